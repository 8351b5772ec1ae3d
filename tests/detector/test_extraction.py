"""From a file to facts and clips: who is scored, who is not and why, and what is said about the file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector import faces
from detector.extraction import extract_clips
from detector.types import (
    Extraction,
    ExtractOptions,
    FaceBox,
    Limits,
    Reason,
    Sampling,
    TrackReason,
    Warn,
)
from tests.media import Actor, cut_off, film, moving_face, no_face, two_faces, write_audio, write_video

CLIP_BYTES = 10 * 112 * 112 * 3


@pytest.fixture(scope="module")
def look() -> faces.Look:
    return faces.load("yunet")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people side by side, 3 s."""
    return write_video(tmp_path_factory.mktemp("pair") / "pair.mp4", two_faces(75))


def extract(path: Path, look: faces.Look, **options: Any) -> Extraction:
    with path.open("rb") as file:
        return extract_clips(file, ExtractOptions(**options), look)


def asked(rgb: np.ndarray, full: bool) -> list[FaceBox]:
    raise AssertionError("the detector was asked")


NO_LOOK = faces.Look(asked)


def reasons(extraction: Extraction) -> list[TrackReason | None]:
    return [track.reason for track in extraction.facts.tracks]


def test_two_people_are_two_persons_in_each_window(pair: Path, look: faces.Look) -> None:
    extraction = extract(pair, look)
    tracks = extraction.facts.tracks

    assert [(t.window, t.person_id) for t in tracks] in (
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(0, 0), (0, 1), (1, 1), (1, 0)],
    )
    assert extraction.clips.pixels.shape == (4, 10, 112, 112, 3)
    assert extraction.clips.mask.all()
    for person in (0, 1):
        xs = [box.x for t in tracks if t.person_id == person for box in t.boxes]
        assert max(xs) - min(xs) < 0.2, f"person {person} is on both sides of the frame: {xs}"


def test_a_track_says_when_and_where_as_fractions_of_the_frame(pair: Path, look: faces.Look) -> None:
    for track in extract(pair, look).facts.tracks:
        assert track.boxes[0].t_s == track.start_s
        assert track.boxes[-1].t_s == track.end_s
        assert track.end_s - track.start_s == pytest.approx(0.9, abs=0.05)
        assert 80 < track.face_px < 130
        for box in track.boxes:
            assert 0 < box.x < box.x + box.w < 1
            assert box.h * 360 == pytest.approx(track.face_px, rel=0.3)


def test_clips_hold_the_face_and_not_the_frame(pair: Path, look: faces.Look) -> None:
    clips = extract(pair, look).clips

    for clip in clips.pixels:
        (box,) = look(np.pad(clip[4], ((40, 40), (40, 40), (0, 0))), False)
        assert 90 < box.side < 160, f"in a crop of 112 px the face measures {box.side:.0f} px"


def test_who_is_too_small_is_listed_without_a_clip(tmp_path: Path, look: faces.Look) -> None:
    actors = [Actor(100, motion=0.3, centre=(0.25, 0.5)), Actor(30, motion=0.2, light=0, centre=(0.75, 0.5))]
    path = write_video(tmp_path / "a.mp4", film(12, (640, 360), 10, actors, background="gradient"), fps=10)
    extraction = extract(path, look, sampling=Sampling(windows=1))

    assert reasons(extraction) == [None, TrackReason.TOO_SMALL]
    assert [track.clip for track in extraction.facts.tracks] == [0, None]
    assert len(extraction.clips) == 1


def test_who_is_seen_too_shortly_is_listed_without_a_clip(tmp_path: Path, look: faces.Look) -> None:
    frames = [*moving_face(2, fps=10), *no_face(10)]
    path = write_video(tmp_path / "a.mp4", frames, fps=10)
    extraction = extract(path, look, sampling=Sampling(windows=1))

    assert reasons(extraction) == [TrackReason.TOO_SHORT]


def test_above_the_cap_the_largest_faces_are_scored(tmp_path: Path, look: faces.Look) -> None:
    sizes = ((60, 0.15), (110, 0.5), (80, 0.85))
    actors = [Actor(px, motion=0.1, light=0, centre=(x, 0.5)) for px, x in sizes]
    path = write_video(tmp_path / "a.mp4", film(12, (960, 360), 10, actors, background="gradient"), fps=10)
    extraction = extract(path, look, sampling=Sampling(windows=1), max_tracks_per_window=2)

    by_size = [(round(t.face_px, -1), t.reason) for t in extraction.facts.tracks]
    assert [reason for _, reason in by_size] == [None, None, TrackReason.CAP], by_size
    assert by_size[0] > by_size[1] > by_size[2]
    assert Warn.CLIP_BUDGET in extraction.facts.warnings


def test_clips_over_the_budget_are_left_out_and_counted(pair: Path, look: faces.Look) -> None:
    extraction = extract(pair, look, limits=Limits(max_clip_bytes=3 * CLIP_BYTES))

    assert reasons(extraction) == [None, None, None, TrackReason.CAP]
    assert len(extraction.clips) == 3
    assert Warn.CLIP_BUDGET in extraction.facts.warnings


def test_a_small_face_in_a_large_frame_is_found_at_full_size(tmp_path: Path, look: faces.Look) -> None:
    actor = Actor(44, motion=0.1, light=0)
    frames = list(film(8, (2560, 1440), 8, [actor], background="plain"))
    assert look(frames[0], False) == [], "the rasters find it already: the test shows nothing"
    path = write_video(tmp_path / "a.mp4", frames, fps=8, options={"preset": "ultrafast"})
    extraction = extract(path, look, sampling=Sampling(windows=1, frames=5))

    (track,) = extraction.facts.tracks
    assert track.face_px == pytest.approx(44, rel=0.25)


def test_a_face_that_is_away_for_a_while_gives_a_shorter_clip(tmp_path: Path, look: faces.Look) -> None:
    frames = [*moving_face(13), *no_face(12)]  # the last face at 0.48 s, frames at 0.05 s, 0.15 s and so on
    path = write_video(tmp_path / "a.mp4", frames)
    extraction = extract(path, look, sampling=Sampling(windows=1))

    (held,) = extraction.clips.mask.sum(1)
    assert held in {5, 6}, f"{held} of 10 frames"
    assert not extraction.clips.pixels[0, held:].any()


def test_a_whole_video_has_nothing_to_report(pair: Path, look: faces.Look) -> None:
    facts = extract(pair, look).facts

    assert (facts.failure, facts.warnings, facts.frames_corrupt) == (None, (), 0)
    assert facts.complete is True
    assert facts.windows_planned == 2
    assert facts.info is not None
    assert (facts.info.width, facts.info.height, facts.info.codec) == (640, 360, "h264")


def test_a_cut_off_video_is_scored_where_it_is_there_and_not_complete(
    tmp_path: Path, look: faces.Look
) -> None:
    path = write_video(tmp_path / "a.mp4", moving_face(100), options={"movflags": "faststart"})
    facts = extract(cut_off(path, 0.6), look).facts

    assert facts.complete is False
    assert Warn.TRUNCATED in facts.warnings
    assert [track.window for track in facts.tracks if track.reason is None] == [0]


def test_nobody_there_gives_no_tracks_and_no_failure(tmp_path: Path, look: faces.Look) -> None:
    extraction = extract(write_video(tmp_path / "a.mp4", no_face(50)), look)

    assert (extraction.facts.failure, extraction.facts.tracks, len(extraction.clips)) == (None, (), 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("empty", Reason.EMPTY_FILE), ("tone", Reason.NO_VIDEO_STREAM), ("cut", Reason.INCOMPLETE)],
)
def test_what_cannot_be_read_is_facts_with_a_reason_never_an_exception(
    tmp_path: Path, name: str, reason: Reason
) -> None:
    path = tmp_path / "a.mp4"
    if name == "empty":
        path.touch()
    elif name == "tone":
        write_audio(path, 0.5)
    else:
        cut_off(write_video(path, no_face(20)), 0.7)
    facts = extract(path, NO_LOOK).facts

    assert facts.failure is reason
    assert facts.message


def test_the_reference_sampling_takes_the_first_frames(pair: Path, look: faces.Look) -> None:
    extraction = extract(pair, look, sampling=Sampling(policy="first", frames=20))

    ends = [track.boxes[-1].t_s for track in extraction.facts.tracks]
    assert ends == pytest.approx([19 / 25] * 2, abs=0.01)


def test_a_detector_that_was_shown_blue_first_is_shown_blue_first(pair: Path) -> None:
    seen: list[np.ndarray] = []

    def spy(rgb: np.ndarray, full: bool) -> list[FaceBox]:
        seen.append(rgb)
        return []

    one_frame = Sampling(windows=1, frames=1)
    extract(pair, faces.Look(spy), sampling=one_frame)
    rgb = seen[0]
    seen.clear()
    extract(pair, faces.Look(spy), sampling=one_frame, detector_bgr=True)
    assert np.array_equal(seen[0], rgb[..., ::-1])


def test_the_same_video_gives_the_same_clips_twice(pair: Path, look: faces.Look) -> None:
    one, two = extract(pair, look), extract(pair, look)

    assert np.array_equal(one.clips.pixels, two.clips.pixels)
    assert one.facts == replace(two.facts)


def test_frames_of_earlier_windows_are_let_go(tmp_path: Path) -> None:
    """Ten windows of 4K would be a gigabyte."""
    path = write_video(tmp_path / "a.mp4", moving_face(100, (1280, 720)), options={"preset": "ultrafast"})

    def alive_after(windows: int) -> int:
        resident: list[int] = []

        def look(rgb: np.ndarray, full: bool) -> list[FaceBox]:
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
            return []

        extract(path, faces.Look(look), sampling=Sampling(windows=windows, frames=10, spacing_s=0.04))
        return max(resident[len(resident) // 2 :]) - resident[0]

    alive_after(2)
    grown = alive_after(8)
    assert grown < 30 << 20, f"{grown >> 20} MB more are held late in a video than at its start"
