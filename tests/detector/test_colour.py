"""The colours that the detector and the network see are those of the original, however they were coded."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from detector.types import Limits, Window
from detector.video import Video
from tests.chart import ENCODINGS, PATCHES, Tags, medians, signal, write_chart

# Grey levels of 255.
TOLERANCE, TOLERANCE_HDR = 3, 12


def shown(path: Path) -> NDArray[np.uint8]:
    """The first frame as the product shows it, `[H, W, 3] uint8 RGB`."""
    with path.open("rb") as file, Video(file, Limits()) as video:
        [window] = video.sample([Window(index=0, times_s=(0.0,))])
        return window[0].picture.whole()


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as file:
        return next(file.decode(video=0))


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_patch_comes_back_as_the_colour_it_was(name: str, tmp_path: Path) -> None:
    encoding = ENCODINGS[name]
    path = write_chart(tmp_path / f"chart{encoding.suffix}", encoding)

    frame = first_frame(path)
    assert Tags.of(frame) == encoding.told, f"{name}: the chart's file does not carry the tags it should"
    coded_as = frame.format.name.replace("yuvj", "yuv")  # FFmpeg's other name of full range
    assert coded_as == encoding.pixels.replace("yuvj", "yuv"), f"{name}: the chart is {frame.format.name}"

    tolerance = TOLERANCE_HDR if encoding.is_hdr else TOLERANCE
    wrong = [
        f"{patch}: wanted {PATCHES[patch]}, got {got}"
        for patch, got in medians(shown(path)).items()
        if max(abs(a - b) for a, b in zip(got, PATCHES[patch], strict=True)) > tolerance
    ]
    assert not wrong, f"{name}: more than {tolerance} levels off\n" + "\n".join(wrong)


@pytest.mark.parametrize(("name", "value"), [("PQ, HEVC", 0.58), ("HLG, HEVC", 0.75)])
def test_white_of_the_hdr_charts_is_reference_white(name: str, value: float) -> None:
    assert signal(np.ones((1, 3)), ENCODINGS[name].coded) == pytest.approx(value, abs=0.005)
