"""Faces as people see them: in a crowd, at the edge, in the dark, on a screen, covered, cut, in a hurry."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector import faces
from detector.extraction import extract_clips
from detector.types import Extraction, ExtractOptions, Sampling, Track, TrackReason
from tests.media import Actor, Frame, film, portrait, write_video

FPS = 10  # as many as are sampled, so that every frame of a made scene is looked at
SIZE = (640, 360)
ONE_WINDOW = ExtractOptions(sampling=Sampling(windows=1))


@pytest.fixture(scope="module")
def look() -> faces.Look:
    return faces.load("yunet")


def extract(path: Path, look: faces.Look, options: ExtractOptions = ONE_WINDOW) -> Extraction:
    with path.open("rb") as file:
        return extract_clips(file, options, look)


def tracks_of(frames: Sequence[Frame], look: faces.Look, folder: Path) -> tuple[Track, ...]:
    """Tracks of a scene that is written as a video at FPS."""
    facts = extract(write_video(folder / "a.mp4", frames, FPS), look).facts
    assert facts.failure is None, facts.message
    return facts.tracks


def scored(tracks: Sequence[Track]) -> list[Track]:
    return [track for track in tracks if track.reason is None]


def said(tracks: Sequence[Track]) -> str:
    """What is there instead, for the message of a failure."""
    return "; ".join(
        f"{t.face_px:.0f} px at {t.boxes[0].x:.2f}, {len(t.boxes)} frames, quality {t.quality:.2f}: "
        f"{t.reason or 'scored'}"
        for t in tracks
    )


def scene(actors: Sequence[Actor], size: tuple[int, int] = SIZE, frames: int = 10) -> list[Frame]:
    return list(film(frames, size, FPS, actors, background="gradient"))


@pytest.mark.parametrize(("face_px", "least"), [(46, 4), (56, 8)])
def test_small_faces_of_a_crowd_are_scored_or_listed_with_the_reason(
    face_px: float, least: int, tmp_path: Path, look: faces.Look
) -> None:
    """Eight people in 720p. Near 40 px the detector is not sure of all of them."""
    crowd = [
        Actor(face_px, seed, motion=0.2, centre=((column + 0.5) / 4, row), other_person=bool(seed % 2))
        for seed, (row, column) in enumerate((row, column) for row in (0.3, 0.7) for column in range(4))
    ]
    tracks = tracks_of(scene(crowd, (1280, 720), 5), look, tmp_path)

    places = {(round(4 * track.boxes[0].x - 0.4), track.boxes[0].y > 0.5) for track in tracks}
    assert len(places) == 8, f"{len(places)} of 8 people are listed: {said(tracks)}"
    assert len({track.person_id for track in scored(tracks)}) >= least, said(tracks)


def test_a_face_half_outside_the_frame_is_scored(tmp_path: Path, look: faces.Look) -> None:
    whole = scene([Actor(130, motion=0.2, centre=(0.5, 0.5))], (1280, 360))
    (track,) = tracks_of([frame[:, 640:] for frame in whole], look, tmp_path)

    assert track.reason is None, said([track])
    assert track.boxes[0].x < 0.05, f"the face is at the left edge, the box at {track.boxes[0].x:.2f}"


def test_a_dark_face_in_the_dark_is_scored(tmp_path: Path, look: faces.Look) -> None:
    lit = scene([Actor(110, motion=0.5, other_person=True)])
    noise = np.random.default_rng(0)
    dark = [np.clip(f * 0.12 + noise.normal(4, 2, f.shape), 0, 255).astype(np.uint8) for f in lit]
    assert np.mean(dark[0]) < 25
    (track,) = tracks_of(dark, look, tmp_path)

    assert track.reason is None, said([track])
    assert len(track.boxes) == 10


def test_no_track_runs_over_a_cut_however_fast_they_come(tmp_path: Path, look: faces.Look) -> None:
    """Two people at one place, a cut every 0.3 s."""
    one = list(film(12, SIZE, FPS, [Actor(120, motion=0.2)], background="gradient"))
    other = list(film(12, SIZE, FPS, [Actor(120, 3, motion=0.2, other_person=True)], background="noise"))
    tracks = tracks_of([(other if i // 3 % 2 else one)[i] for i in range(12)], look, tmp_path)

    for track in tracks:
        shots = {int(box.t_s * FPS + 0.5) // 3 for box in track.boxes}
        assert len(shots) == 1, f"a track runs over a cut: {[box.t_s for box in track.boxes]}"
    assert {track.reason for track in tracks} <= {None, TrackReason.TOO_SHORT}, said(tracks)
    assert len(scored(tracks)) >= 2, said(tracks)
    assert len({track.person_id for track in tracks}) == len(tracks), "people of two shots are one person"


def test_a_face_on_a_screen_within_the_video_is_scored_beside_the_one_before_it(
    tmp_path: Path, look: faces.Look
) -> None:
    room = scene([Actor(130, motion=0.4, centre=(0.28, 0.55))])
    shown = list(film(10, (224, 126), FPS, [Actor(62, 4, other_person=True)], background="noise"))
    for frame, picture in zip(room, shown, strict=True):
        frame[60:206, 376:620] = 20  # the screen's frame
        frame[70:196, 386:610] = picture
    tracks = tracks_of(room, look, tmp_path)

    assert [len(track.boxes) for track in scored(tracks)] == [10, 10], said(tracks)
    assert [track.boxes[0].x > 0.5 for track in scored(tracks)] == [False, True], said(tracks)
    assert len({track.person_id for track in tracks}) == 2


def test_a_hand_before_the_face_does_not_end_its_track(tmp_path: Path, look: faces.Look) -> None:
    """The hand covers all of the face in three sampled frames, and the mouth before and after."""
    frames = scene([Actor(120, motion=0, light=0)])
    for position, height in {3: 100, 4: 0, 5: 0, 6: 0, 7: 100}.items():
        cv2.ellipse(frames[position], ((320, 180 + height), (150, 190), 0), (205, 150, 125), -1)
    assert look(frames[5], False) == [], "the face is still to be seen: the test shows nothing"
    tracks = tracks_of(frames, look, tmp_path)

    assert [len(track.boxes) for track in scored(tracks)] == [10], said(tracks)


@pytest.mark.parametrize("step", [0.3, 0.9])
def test_a_face_that_crosses_the_frame_is_one_track(step: float, tmp_path: Path, look: faces.Look) -> None:
    """`step`: of the face's width from one sampled frame to the next.

    From 0.7 on the boxes of neighbouring frames overlap by less than linking asks for.
    """
    frames = list(_passing(step))
    tracks = tracks_of(frames, look, tmp_path)

    assert len(scored(tracks)) == 1, said(tracks)
    assert len(scored(tracks)[0].boxes) >= 8, said(tracks)


def _passing(step: float) -> Iterator[Frame]:
    """The portrait carried past, its face 72 px wide, before still ground."""
    head = cv2.resize(portrait()[:360, 60:400], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    (ground,) = film(1, (1280, 360), FPS, [], background="gradient")
    for position in range(10):
        frame, x = ground.copy(), round(10 + position * step * 72)
        frame[40 : 40 + head.shape[0], x : x + head.shape[1]] = head
        yield frame


REAL = {
    "fake/dfdc_brtujopkby.mp4": ("a profile", 1),
    "fake/dfdctrack_FAKE_0_acryukkddn_0_0.mp4": ("a profile that fills the frame", 1),
    "faces/lp_driving_d13.mp4": ("glasses", 1),
    "fake/ffpp_face2face_750_743.mp4": ("hands before the face", 1),
    "fake/dfdc_yhffcuhhjy.mp4": ("glasses held before the face", 1),
    "fake/dfdc_widuwuoiur.mp4": ("dark skin against the light", 1),
    "faces/lp_driving_d20.mp4": ("dark skin at night", 1),
    "faces/facerec_hamilton.mp4": ("an audience in the dark", 6),
    "faces/facenet_video.mp4": ("small faces of a crowd on a street", 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_hard_faces_of_real_videos_are_scored_in_both_windows(
    name: str, shared_data: Path, look: faces.Look
) -> None:
    what, people = REAL[name]
    tracks = extract(shared_data / "videos" / name, look, ExtractOptions()).facts.tracks

    persons = {track.person_id for track in scored(tracks)}
    assert len(persons) >= people, f"{what}: {len(persons)} persons; {said(tracks)}"
    assert {track.window for track in scored(tracks)} == {0, 1}, f"{what}: {said(tracks)}"
    if people == 1:
        assert [len(track.boxes) for track in scored(tracks)] == [10, 10], f"{what}: {said(tracks)}"
    for one, after in pairwise(scored(tracks)):
        assert one.clip is not None
        assert after.clip == one.clip + 1
