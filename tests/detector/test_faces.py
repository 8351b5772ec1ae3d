"""Faces are found at every size, by the default detector and by the one of the reference."""

import cv2
import numpy as np
import pytest

from detector import faces
from detector.tracks import iou
from detector.types import FaceBox
from tests.film import FACE
from tests.media import Actor, Frame, film, no_face, portrait, two_faces

TRUTH = FaceBox(*FACE, 1.0)


@pytest.fixture(scope="module")
def yunet() -> faces.Look:
    return faces.load("yunet")


@pytest.fixture(scope="module")
def hog() -> faces.Look:
    return faces.load("hog")


def scaled(picture: Frame, factor: float) -> Frame:
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1, 2, 4])
def test_the_portrait_has_one_face_at_every_size(yunet: faces.Look, factor: float) -> None:
    (box,) = yunet(scaled(portrait(), factor), False)

    x, y, w, h = (side * factor for side in FACE)
    overlap = iou(box, FaceBox(x, y, w, h, 1.0))
    assert overlap > 0.7, f"{box} overlaps the face by {overlap:.2f}"
    assert box.score > faces.START_SCORE


@pytest.mark.parametrize("side", [200, 640, 1080, 2000])
def test_a_face_that_fills_the_frame_is_found(yunet: faces.Look, side: int) -> None:
    x, y, w, h = FACE
    close_up = portrait()[y - 5 : y + h + 5, x - 16 : x + w + 17]
    found = yunet(scaled(close_up, side / close_up.shape[0]), False)

    assert len(found) == 1, f"{len(found)} faces in a close-up of {side} px"
    assert found[0].h > 0.8 * side


def test_two_faces_are_two_boxes(yunet: faces.Look) -> None:
    found = yunet(two_faces(1, face_px=100)[0], False)

    assert len(found) == 2
    assert iou(*found) == 0


def test_nobody_is_found_where_nobody_is(yunet: faces.Look) -> None:
    assert yunet(no_face(1)[0], False) == []
    assert yunet(np.zeros((360, 640, 3), np.uint8), False) == []


@pytest.mark.parametrize("shape", [(8, 8), (2, 600), (600, 2), (17, 17), (33, 1000)])
def test_frames_of_any_shape_are_looked_at(yunet: faces.Look, shape: tuple[int, int]) -> None:
    frame = np.zeros((*shape, 3), np.uint8)

    assert yunet(frame, False) == []
    assert yunet(frame, True) == []


@pytest.mark.parametrize("width", [480, 640, 1280])
def test_a_small_face_beside_a_large_one_is_found(yunet: faces.Look, width: int) -> None:
    """In 640 x 360 too: what is no wider than the larger raster is looked at as it is."""
    face_px = 42 * max(1, width / 640)
    small = Actor(face_px, seed=5, light=0.3, centre=(0.8, 0.5), other_person=True)
    actors = [Actor(110, motion=0.3, centre=(0.25, 0.5)), small]
    size = (width, width * 9 // 16)
    counts = [len(yunet(frame, False)) for frame in film(6, size, 4, actors, background="gradient")]

    assert counts == [2] * 6


def test_a_look_at_full_size_finds_the_small_face_that_the_rasters_miss(yunet: faces.Look) -> None:
    (frame,) = film(1, (1920, 1080), 25, [Actor(24, motion=0, light=0)], background="plain")

    assert yunet(frame, False) == []
    assert len(yunet(frame, True)) == 1


def test_the_order_of_colours_is_red_green_blue(yunet: faces.Look) -> None:
    right, wrong = (yunet(picture, False)[0].score for picture in (portrait(), portrait()[..., ::-1].copy()))

    assert right > wrong, f"the detector likes blue skin better: {wrong:.3f} against {right:.3f}"


def test_looking_twice_gives_the_same_boxes(yunet: faces.Look) -> None:
    frame = two_faces(1)[0]

    assert yunet(frame, False) == yunet(frame, False)


def test_hog_finds_the_portrait_and_starts_tracks(hog: faces.Look) -> None:
    box = max(hog(portrait(), False), key=lambda found: found.score)

    assert iou(box, TRUTH) > 0.4
    assert faces.START_SCORE <= box.score < 1
    assert hog(no_face(1)[0], False) == []
