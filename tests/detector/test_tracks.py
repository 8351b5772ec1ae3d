"""Boxes become tracks, tracks of several windows become persons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.tracks import FaceTrack, SceneCounter, assign_persons, iou, link
from detector.types import FaceBox
from tests.media import Actor, film, no_face

SIDES = st.floats(1, 2000)
PLACES = st.floats(-500, 4000)
BOXES = st.builds(FaceBox, x=PLACES, y=PLACES, w=SIDES, h=SIDES, score=st.floats(0.5, 1))


def face(x: float, y: float = 100, side: float = 100, score: float = 0.9) -> FaceBox:
    return FaceBox(x, y, side, side, score)


def one_window(*frames: list[FaceBox], scenes: list[int] | None = None) -> list[FaceTrack]:
    return link(0, list(frames), scenes or [0] * len(frames))


def seen(window: int, *boxes: FaceBox, scene: int = 0) -> list[FaceTrack]:
    """Tracks of a window in which each box stands still for three frames."""
    return link(window, [list(boxes)] * 3, [scene] * 3)


def persons(*windows: list[FaceTrack]) -> list[list[int]]:
    """Person of each track, window by window."""
    assign_persons([track for window in windows for track in window])
    return [[track.person_id for track in window] for window in windows]


# --- overlap ------------------------------------------------------------------------------------------------


@given(a=BOXES, b=BOXES)
def test_overlap_is_symmetric_and_within_0_and_1(a: FaceBox, b: FaceBox) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= 1 + 1e-9
    assert iou(a, a) == pytest.approx(1)


def test_overlap_of_halves_and_strangers() -> None:
    assert iou(face(0), face(50)) == pytest.approx(1 / 3)
    assert iou(face(0), face(100)) == 0


# --- tracks -------------------------------------------------------------------------------------------------


def test_a_face_that_moves_a_little_is_one_track() -> None:
    (track,) = one_window(*([face(100 + 8 * i)] for i in range(10)))

    assert sorted(track.boxes) == list(range(10))
    assert track.found == 10


def test_two_faces_keep_their_tracks_whatever_the_order_of_the_boxes() -> None:
    tracks = one_window(*([face(0), face(300)][:: 1 if i % 2 else -1] for i in range(8)))

    assert sorted(round(track.boxes[7].x) for track in tracks) == [0, 300]
    for track in tracks:
        assert len({round(box.x) for box in track.boxes.values()}) == 1, "a track changed its face"


@given(
    starts=st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True),
    present=st.lists(st.booleans(), min_size=2, max_size=10),
)
def test_every_box_that_may_start_a_track_is_in_exactly_one(starts: list[int], present: list[bool]) -> None:
    frames = [[face(200 * start) for start in starts] if here else [] for here in present]
    tracks = one_window(*frames)

    assert sum(track.found for track in tracks) == sum(map(len, frames))
    for track in tracks:
        assert sorted(track.boxes) == list(range(min(track.boxes), track.last + 1)), "a track has holes"


def test_missed_frames_are_interpolated() -> None:
    (track,) = one_window([face(100)], [face(100)], [], [], [face(130)], [face(130)])

    assert sorted(track.boxes) == list(range(6))
    assert track.found == 4
    assert 100 < track.boxes[2].x < track.boxes[3].x < 130


def test_a_gap_of_three_frames_is_bridged_and_one_of_four_is_not() -> None:
    assert len(one_window([face(0)], [], [], [], [face(0)])) == 1
    assert len(one_window([face(0)], [], [], [], [], [face(0)])) == 2


def test_a_scene_cut_ends_a_track_although_the_next_face_is_in_the_same_place() -> None:
    tracks = one_window([face(0)], [face(0)], [face(0)], [face(0)], scenes=[0, 0, 1, 1])

    assert [sorted(track.boxes) for track in tracks] == [[0, 1], [2, 3]]


def test_a_weak_detection_goes_on_but_does_not_start() -> None:
    assert one_window([face(0, score=0.6)], [face(0, score=0.6)]) == []
    (track,) = one_window([face(0)], [face(0, score=0.6)])
    assert track.found == 2


def test_boxes_are_smoothed_and_a_steady_face_stays_where_it_is() -> None:
    (steady,) = one_window(*([face(50)] for _ in range(5)))
    (shaking,) = one_window(*([face(50 + 12 * (i % 2))] for i in range(9)))

    assert {box.x for box in steady.boxes.values()} == {50}
    xs = [shaking.boxes[i].x for i in range(1, 8)]
    assert max(xs) - min(xs) < 6, f"12 px of shaking became {max(xs) - min(xs):.1f}"


def test_size_and_quality_of_a_track() -> None:
    (track,) = one_window([face(0, side=90, score=0.8)], [face(0, side=90, score=0.9)])

    assert track.face_px == pytest.approx(90)
    assert track.quality == pytest.approx(0.85)


# --- scenes -------------------------------------------------------------------------------------------------


def test_a_moving_face_stays_in_its_scene_and_a_cut_starts_another() -> None:
    moving = list(film(6, (320, 180), 3, [Actor(80, seed=2, light=1)], background="noise"))
    counter = SceneCounter()

    assert [counter.scene(frame) for frame in moving] == [0] * 6, "movement and light are not a cut"
    assert [counter.scene(frame) for frame in no_face(2, (320, 180))] == [1, 1], "the cut was not seen"


def test_plain_frames_are_no_cut_of_themselves() -> None:
    counter = SceneCounter()
    black = np.zeros((90, 160, 3), np.uint8)

    assert [counter.scene(black) for _ in range(3)] == [0, 0, 0]


# --- persons ------------------------------------------------------------------------------------------------


def test_the_same_place_in_the_same_scene_is_the_same_person() -> None:
    assert persons(seen(0, face(0), face(400)), seen(1, face(410), face(10)))[0] == [0, 1]
    left, right = seen(1, face(410), face(10))
    assign_persons([*seen(0, face(0), face(400)), left, right])
    assert (left.person_id, right.person_id) == (1, 0)


def test_after_a_cut_everyone_is_someone_else() -> None:
    assert persons(seen(0, face(0)), seen(1, face(0), scene=1)) == [[0], [1]]


def test_another_size_is_another_person() -> None:
    assert persons(seen(0, face(0, side=100)), seen(1, face(0, side=200))) == [[0], [1]]


def test_another_place_is_another_person_unless_it_is_the_only_face_of_both_windows() -> None:
    assert persons(seen(0, face(0)), seen(1, face(400))) == [[0], [0]]
    assert persons(seen(0, face(0), face(800)), seen(1, face(400), face(800)))[1] == [2, 1]


def test_a_window_without_faces_lies_between() -> None:
    assert persons(seen(0, face(0)), [], seen(2, face(5))) == [[0], [], [0]]


@given(
    windows=st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True), min_size=1, max_size=5),
    scenes=st.lists(st.integers(0, 1), min_size=5, max_size=5),
)
def test_no_two_tracks_of_a_window_are_the_same_person(windows: list[list[int]], scenes: list[int]) -> None:
    rising = np.cumsum(scenes).tolist()
    made = [seen(i, *(face(150 * p) for p in w), scene=rising[i]) for i, w in enumerate(windows)]
    ids = persons(*made)

    for window in ids:
        assert len(set(window)) == len(window), f"one person twice in a window: {ids}"
    flat = {person for window in ids for person in window}
    assert flat == set(range(len(flat))), f"numbers are left out: {ids}"
