"""The made videos are what they claim to be."""

import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from tests.media import (
    DEMO,
    Frame,
    cut_off,
    film,
    long_gop_clip,
    make_demo_folder,
    moving_face,
    no_face,
    self_blended,
    two_faces,
    write_audio,
    write_video,
)

SMALL = (320, 180)


class Read(NamedTuple):
    """What is stored in a file: pixels as they lie there, and what a player is told about them."""

    frames: list[Frame]
    times: list[float]
    rotation: int
    sar: float
    complete: bool


def read(path: Path) -> Read:
    frames, times, rotation, complete = [], [], 0, True
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        sar = float(stream.sample_aspect_ratio or 1)
        try:
            for frame in file.decode(stream):
                frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                times.append(float(frame.time or 0))
                rotation = frame.rotation
        except av.InvalidDataError:
            complete = False
    return Read(frames, times, rotation, sar, complete)


def difference(one: Frame, other: Frame) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture(scope="module")
def face() -> list[Frame]:
    return moving_face(12, SMALL, face_px=80, seed=2)


def test_frames_come_back_as_they_went_in(face: list[Frame], tmp_path: Path) -> None:
    made = read(write_video(tmp_path / "plain.mp4", face))

    assert len(made.frames) == len(face)
    assert made.times == pytest.approx([index / 25 for index in range(len(face))])
    assert max(map(difference, made.frames, face)) < 4


@pytest.mark.parametrize(("rotation", "read_back"), [(90, 90), (-90, -90), (180, -180), (270, -90)])
def test_a_player_turns_stored_frames_upright(
    face: list[Frame], tmp_path: Path, rotation: int, read_back: int
) -> None:
    made = read(write_video(tmp_path / "turned.mp4", face, rotation=rotation))

    assert made.rotation == read_back
    assert made.frames[0].shape == ((180, 320, 3) if rotation == 180 else (320, 180, 3))
    assert difference(np.rot90(made.frames[0], rotation // 90), face[0]) < 4
    assert difference(np.rot90(made.frames[0], rotation // 90 + 2), face[0]) > 10


def test_a_phone_held_upright_writes_the_matrix_that_players_know(face: list[Frame], tmp_path: Path) -> None:
    """The transformation in the track header maps (x, y) to (-y, x): a quarter turn clockwise."""
    data = write_video(tmp_path / "phone.mp4", face[:2], rotation=-90).read_bytes()

    matrix = data[data.index(b"tkhd") + 44 :][:20]
    assert np.frombuffer(matrix, ">i4").tolist() == [0, 65536, 0, -65536, 0]


def test_wide_pixels_are_stored_half_as_wide(face: list[Frame], tmp_path: Path) -> None:
    made = read(write_video(tmp_path / "wide.mp4", face, sar=(2, 1)))

    assert made.sar == 2
    assert made.frames[0].shape == (180, 160, 3)
    assert difference(np.repeat(made.frames[0], 2, axis=1), face[0]) < 6


def test_variable_frame_rate_keeps_each_time(face: list[Frame], tmp_path: Path) -> None:
    times = [0, 0.02, 0.11, 0.131, 0.9, 0.92, 1, 1.04, 1.2, 1.21, 1.3, 1.5]
    made = read(write_video(tmp_path / "uneven.mp4", face, pts=times))

    assert made.times == pytest.approx(times, abs=1 / 90_000)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx-vp9"), ("a.mkv", "libx265"), ("a.avi", "mpeg4"), ("a.mov", "mjpeg")],
)
def test_other_codecs_and_containers(face: list[Frame], tmp_path: Path, name: str, codec: str) -> None:
    made = read(write_video(tmp_path / name, face, codec=codec))

    assert len(made.frames) == len(face)
    assert difference(made.frames[-1], face[-1]) < 8


def test_an_encoder_leaves_this_process_no_real_time_one(face: list[Frame], tmp_path: Path) -> None:
    before = os.sched_getscheduler(0)
    write_video(tmp_path / "a.mp4", face[:2], codec="libsvtav1", options={"preset": "12"})
    assert os.sched_getscheduler(0) == before, "all that is started from here on would starve the rest"


def test_a_cut_file_with_its_index_first_decodes_in_part(tmp_path: Path) -> None:
    frames = moving_face(60, SMALL, face_px=80)
    path = write_video(tmp_path / "cut.mp4", frames, options={"movflags": "faststart"})

    made = read(cut_off(path, 0.6))
    assert 5 < len(made.frames) < 55
    assert not made.complete


def test_a_cut_file_with_its_index_last_cannot_be_opened(face: list[Frame], tmp_path: Path) -> None:
    path = cut_off(write_video(tmp_path / "cut.mp4", face), 0.8)

    assert b"moov" not in path.read_bytes()
    with pytest.raises(av.InvalidDataError):
        av.open(str(path))


def test_audio_alone_has_no_video_stream(tmp_path: Path) -> None:
    with av.open(str(write_audio(tmp_path / "tone.mp4", 1))) as file:
        assert [stream.type for stream in file.streams] == ["audio"]
        assert sum(frame.samples for frame in file.decode(audio=0)) == pytest.approx(44_100, abs=2048)


def test_a_long_gop_has_one_keyframe(tmp_path: Path) -> None:
    path = long_gop_clip(tmp_path / "long.mp4", 2, SMALL, gop=40)

    with av.open(str(path)) as file:
        assert [n for n, frame in enumerate(file.decode(video=0)) if frame.key_frame] == [0, 40]


def test_the_same_seed_gives_the_same_pictures_and_another_does_not() -> None:
    one, again, other = (moving_face(3, SMALL, face_px=60, seed=seed) for seed in (4, 4, 5))

    assert all(map(np.array_equal, one, again))
    assert not any(map(np.array_equal, one, other))


def test_faces_move_and_a_blended_one_differs_inside_the_face_only() -> None:
    plain, blended = moving_face(4, SMALL, fps=2, face_px=80), self_blended(4, SMALL, fps=2, face_px=80)

    assert all(difference(a, b) > 1 for a, b in pairwise(plain))
    for a, b in zip(plain, blended, strict=True):
        changed = np.abs(a.astype(int) - b).sum(axis=2) > 12
        assert 500 < changed.sum() < 80 * 80


def test_two_faces_lie_side_by_side() -> None:
    frame = two_faces(1, SMALL, face_px=60)[0]
    empty = next(film(1, SMALL, 25, []))

    covered = (np.abs(frame.astype(int) - empty).sum(axis=2) > 30).any(axis=0)
    edges = np.flatnonzero(np.diff(covered.astype(int)))
    assert covered[:160].any()
    assert covered[160:].any()
    assert len(edges) >= 3


def test_gradients_move() -> None:
    first, *_, last = no_face(25, SMALL)

    assert first.shape == (180, 320, 3)
    assert difference(first, last) > 10


def test_the_demo_folder_holds_what_it_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the films left out, which take seconds."""
    quick = {name: DEMO[name] for name in ("audio-only.mp4", "empty.mp4", "text.mp4", "face-too-small.mp4")}
    monkeypatch.setattr("tests.media.DEMO", quick)

    listed = make_demo_folder(tmp_path / "new" / "demo")
    assert sorted(listed) == sorted(path.name for path in (tmp_path / "new" / "demo").iterdir())
    assert (tmp_path / "new" / "demo" / "empty.mp4").stat().st_size == 0


def test_demo_names_are_readable_and_one_is_awkward() -> None:
    assert all(name.endswith(".mp4") for name in DEMO)
    assert any(" " in name and not name.isascii() for name in DEMO)
