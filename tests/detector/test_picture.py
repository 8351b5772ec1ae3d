"""A frame as a player shows it: whole, small, or a part of it."""

import io
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.colour import Encoding, to_srgb
from detector.picture import Picture
from detector.types import Limits, Window
from detector.video import Video
from tests.media import Frame, moving_face, portrait, write_video

FORMATS = ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "yuv411p", "nv12", "yuyv422", "rgb24")


def first(file: Path | bytes) -> Picture:
    opened = io.BytesIO(file) if isinstance(file, bytes) else file.open("rb")
    with opened, Video(opened, Limits()) as video:
        [[frame]] = video.sample([Window(index=0, times_s=(0.0,))])
        frame.picture.whole()  # the planes are gone with the container
        return frame.picture


def stored_as(form: str, rgb: Frame) -> Picture:
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=form)
    return Picture(frame, rgb.shape[1], rgb.shape[0])


def difference(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("side", [(480, 400), (161, 121)])
def test_every_format_shows_the_same_picture(form: str, side: tuple[int, int]) -> None:
    rgb = np.ascontiguousarray(portrait()[: side[1], : side[0]])
    off = difference(stored_as(form, rgb).whole(), rgb)
    assert off < 4, f"{form} {side}: {off:.1f} grey levels off"


def test_luma_with_green_and_orange_chroma_shows_the_same_picture() -> None:
    """YCgCo, as some screen recorders write it."""
    red, green, blue = (portrait()[:400, :480, i].astype(float) for i in range(3))
    luma = red / 4 + green / 2 + blue / 4
    chromas = (green - luma + 128, (red - blue) / 2 + 128)
    planes = np.clip(np.rint(np.stack([luma, *chromas])), 0, 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    frame.colorspace, frame.color_range = 8, 2

    off = difference(Picture(frame, 480, 400).whole(), portrait()[:400, :480])
    assert off < 2, f"{off:.1f} grey levels off"


@pytest.mark.parametrize("matrix", range(18))
@pytest.mark.parametrize("form", ["yuv420p", "gray", "nv12", "gbrp"])
def test_a_matrix_that_nobody_knows_is_no_failure(matrix: int, form: str) -> None:
    frame = av.VideoFrame.from_ndarray(portrait()[:120, :160], format="rgb24").reformat(format=form)
    frame.colorspace = matrix

    off = difference(Picture(frame, 160, 120).whole(), portrait()[:120, :160])
    assert matrix == 8 or form == "gray" or off < 30, f"matrix {matrix} of {form}: {off:.1f} grey levels off"


@given(
    form=st.sampled_from(FORMATS),
    corner=st.tuples(st.integers(0, 150), st.integers(0, 110)),
    size=st.tuples(st.integers(1, 160), st.integers(1, 120)),
)
def test_a_part_is_what_the_whole_shows_there(
    form: str, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    picture = stored_as(form, np.ascontiguousarray(portrait()[100:221, 150:311]))
    (x, y), w, h = corner, min(size[0], 161 - corner[0]), min(size[1], 121 - corner[1])

    part, there = picture.region(x, y, w, h), picture.whole()[y : y + h, x : x + w]
    # More than 8 bits are computed as floats: a half may be rounded either way (1 pixel in 2 of 1,500 parts).
    assert np.abs(part.astype(int) - there).max() <= (1 if form.endswith("10le") else 0)


@pytest.mark.parametrize("look", ["shrunk", "glance"])
@pytest.mark.parametrize(
    ("longest", "shape"), [(240, (200, 240, 3)), (90, (75, 90, 3)), (9999, (400, 480, 3))]
)
def test_small_pictures_are_the_whole_made_small(look: str, longest: int, shape: Sequence[int]) -> None:
    rgb = np.ascontiguousarray(portrait()[:400, :480])
    small = getattr(stored_as("yuv420p", rgb), look)(longest)

    assert small.shape == shape
    assert np.abs(small.mean((0, 1)) - rgb.mean((0, 1))).max() < 3


# Rows of the display matrix, 16.16 fixed point, as ISO/IEC 14496-12 stores them: x to x and y, y to x and y.
MATRICES = {
    "upright": ((1, 0, 0, 1), lambda shown: shown),
    "mirrored": ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), lambda shown: shown[::-1, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda shown: shown[::-1]),
    "quarter to the right": ((0, 1, -1, 0), lambda shown: np.rot90(shown, -1)),
    "quarter to the left": ((0, -1, 1, 0), np.rot90),
    "transposed": ((0, 1, 1, 0), lambda shown: shown.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_display_matrix_says_how_to_turn_and_mirror(name: str, tmp_path: Path) -> None:
    stored = np.ascontiguousarray(portrait()[:240, :320])
    path = write_video(tmp_path / "a.mp4", [stored] * 3)
    body, (numbers, turn) = bytearray(path.read_bytes()), MATRICES[name]
    at = body.index(b"tkhd") + 44
    for place, number in zip((0, 4, 12, 16), numbers, strict=True):
        body[at + place : at + place + 4] = (number * 65536).to_bytes(4, "big", signed=True)

    picture, wanted = first(bytes(body)), turn(stored)
    assert (picture.height, picture.width) == wanted.shape[:2]
    assert difference(picture.whole(), wanted) < 4, f"{name}: shown the wrong way round"
    part = picture.region(100, 60, 120, 90)
    assert difference(part, wanted[60:150, 100:220]) < 4, f"{name}: a part lies elsewhere"


def test_interlaced_frames_show_no_comb(tmp_path: Path) -> None:
    """Of two fields, 1/50 s apart, one is shown: woven together, whatever moves has teeth."""
    film = moving_face(60, (640, 360), face_px=150)
    woven = []
    for early, late in zip(film[::6], film[3::6], strict=True):
        frame = early.copy()
        frame[1::2] = late[1::2]
        woven.append(frame)
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
    picture = first(write_video(tmp_path / "a.mp4", woven, options=options)).whole()

    assert difference(picture, film[0]) < difference(picture, film[3])
    rows = np.abs(np.diff(picture.astype(int), axis=0)).mean()
    assert rows < 1.2 * np.abs(np.diff(film[0].astype(int), axis=0)).mean(), f"teeth of {rows:.1f} levels"


@pytest.mark.parametrize("transfer", [16, 18])
def test_light_brighter_than_white_keeps_its_order_and_stays_below_white(transfer: int) -> None:
    """Highlights of HDR are pressed together, not cut off; faces, below white, keep their light."""
    ramp = np.full((1, 1024, 3), 512, np.uint16)
    ramp[0, :, 0] = np.arange(1024)
    shown = to_srgb(ramp, Encoding(9, 9, transfer, full_range=False, bits=10))[0, :, 1].astype(int)

    assert (np.diff(shown) >= 0).all()
    white = 64 + round(876 * (0.58 if transfer == 16 else 0.75))
    assert 240 <= shown[white] < shown[white + 60] <= 255
