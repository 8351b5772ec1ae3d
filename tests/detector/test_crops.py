"""The square that is cut around a face."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.crops import crop, crop_region, resize
from detector.picture import Picture
from detector.types import CropSpec, FaceBox
from tests.media import Frame

FRAMES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
BOXES = st.builds(
    FaceBox,
    x=st.floats(-1000, 5000),
    y=st.floats(-1000, 5000),
    w=st.floats(0.5, 4000),
    h=st.floats(0.5, 4000),
    score=st.just(0.9),
)
SPECS = st.builds(
    CropSpec,
    size=st.integers(32, 64),
    scale=st.floats(0.3, 4),
    shift_y=st.floats(-1, 1),
    square=st.booleans(),
)


def shown(rgb: Frame) -> Picture:
    return Picture(av.VideoFrame.from_ndarray(rgb, format="rgb24"), rgb.shape[1], rgb.shape[0])


@given(box=BOXES, frame=FRAMES, spec=SPECS)
def test_the_region_lies_inside_the_frame(box: FaceBox, frame: tuple[int, int], spec: CropSpec) -> None:
    x, y, w, h = crop_region(box, *frame, spec)

    assert 0 <= x < x + w <= frame[0]
    assert 0 <= y < y + h <= frame[1]
    if spec.square:
        assert w == h


@given(box=BOXES, frame=FRAMES, spec=SPECS)
def test_the_region_has_its_size_unless_the_frame_is_smaller(
    box: FaceBox, frame: tuple[int, int], spec: CropSpec
) -> None:
    _, _, w, h = crop_region(box, *frame, spec)

    if spec.square:
        assert w == min(max(1, round(box.side * spec.scale)), *frame)
    else:
        assert w == min(max(1, round(box.w * spec.scale)), frame[0])
        assert h == min(max(1, round(box.h * spec.scale)), frame[1])


@given(x=st.integers(500, 1000), y=st.integers(500, 700), w=st.integers(20, 200), h=st.integers(20, 200))
def test_the_centre_lies_a_little_below_the_boxs(x: int, y: int, w: int, h: int) -> None:
    spec = CropSpec(scale=1.5, shift_y=0.1)
    left, top, side, _ = crop_region(FaceBox(x, y, w, h, 0.9), 1920, 1080, spec)

    assert left + side / 2 == pytest.approx(x + w / 2, abs=1)
    assert top + side / 2 == pytest.approx(y + h / 2 + 0.1 * side, abs=1)


def test_a_region_that_leans_out_is_moved_not_shrunk() -> None:
    assert crop_region(FaceBox(-20, -20, 100, 100, 0.9), 640, 360, CropSpec(scale=1, shift_y=0)) == (
        0,
        0,
        100,
        100,
    )
    assert crop_region(FaceBox(600, 300, 100, 100, 0.9), 640, 360, CropSpec(scale=1, shift_y=0)) == (
        540,
        260,
        100,
        100,
    )


def test_the_defaults_cut_nine_tenths_of_the_longer_side() -> None:
    assert crop_region(FaceBox(200, 100, 80, 100, 0.9), 640, 360, CropSpec()) == (195, 108, 90, 90)


def test_pixels_are_those_of_the_region() -> None:
    rows, columns = np.mgrid[0:100, 0:120].astype(np.uint8)
    frame = np.dstack([columns, rows, rows])
    cut = crop(shown(frame), FaceBox(40, 30, 32, 32, 0.9), CropSpec(size=32, scale=1, shift_y=0))

    assert np.array_equal(cut, frame[30:62, 40:72])


def test_what_is_not_square_is_squashed_where_the_weights_ask_for_it() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[:, 50:] = 255
    cut = crop(
        shown(frame), FaceBox(25, 0, 50, 100, 0.9), CropSpec(size=40, scale=1, shift_y=0, square=False)
    )

    assert cut.shape == (40, 40, 3)
    assert (cut[:, :19] == 0).all()
    assert (cut[:, 21:] == 255).all()


@pytest.mark.parametrize("side", [20, 64, 65, 500])
def test_every_size_comes_out_as_asked_and_keeps_its_brightness(side: int) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    resized = resize(picture, 64)

    assert resized.shape == (64, 64, 3)
    assert resized.dtype == np.uint8
    assert resized.mean() == pytest.approx(picture.mean(), abs=4)


def test_shrinking_averages_over_the_area() -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 200

    assert np.unique(resize(stripes, 64)).tolist() == [100]
