"""One face in two places: two persons, unless linking by embedding is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.extraction import extract_clips
from detector.faces import load as load_detector
from detector.identities import join, load
from detector.tracks import FaceTrack
from detector.types import ExtractOptions, FaceBox
from tests.media import Actor, film, write_video


@pytest.fixture(scope="module")
def moved_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same woman left before a plain wall, then right before noise; a man beside her, both times."""
    halves = [
        film(50, (640, 360), 25, [Actor(face_px=110, centre=(x, 0.5)), beside], background)
        for x, beside, background in (
            (0.2, Actor(face_px=110, centre=(0.75, 0.5), other_person=True), "plain"),
            (0.75, Actor(face_px=110, centre=(0.2, 0.5), other_person=True), "noise"),
        )
    ]
    path = tmp_path_factory.mktemp("identities") / "moved-house.mp4"
    return write_video(path, [frame for half in halves for frame in half])


def persons(path: Path, *, linked: bool) -> list[list[int]]:
    """Windows of each person."""
    options = replace(ExtractOptions(), link_identities=linked)
    with path.open("rb") as file:
        facts = extract_clips(file, options, load_detector("yunet"), load() if linked else None).facts
    seen: dict[int, list[int]] = {}
    for track in facts.tracks:
        seen.setdefault(track.person_id, []).append(track.window)
    return sorted(seen.values())


def test_a_face_in_two_places_is_two_persons(moved_house: Path) -> None:
    assert persons(moved_house, linked=False) == [[0], [0], [1], [1]], "a scene cut parts persons"


def test_linking_joins_a_face_over_scenes_and_keeps_neighbours_apart(moved_house: Path) -> None:
    found = persons(moved_house, linked=True)
    assert all(len(set(windows)) == len(windows) for windows in found), "two faces of one window were joined"
    assert found == [[0, 1], [0, 1]], "each of the two is seen in both windows"


def test_joining_takes_the_closest_pair_and_never_two_faces_of_one_window() -> None:
    tracks = [FaceTrack(window, {0: FaceBox(0, 0, 50, 50, 1.0)}) for window in (0, 0, 1)]
    for number, track in enumerate(tracks):
        track.person_id = number
    near, nearer, far = np.zeros(128), np.full(128, 0.01), np.full(128, 0.02)
    join(tracks, {0: near, 1: nearer, 2: far})
    assert [track.person_id for track in tracks] == [0, 1, 1]
