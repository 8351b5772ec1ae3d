"""Which frames of a video are looked at, and that they are upright."""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import VideoError
from detector.types import Limits, Reason, Sampling, Window
from detector.video import SampledFrame, Video, plan_windows
from tests.healthy import HEALTHY, face
from tests.media import Frame, cut_off, moving_face, portrait, write_audio, write_video

SMALL = (96, 64)
BITS = 10


def numbered(n: int, size: tuple[int, int] = SMALL) -> list[Frame]:
    """Frames that carry their own number: ten vertical bars, black for 0 and white for 1."""
    width, height = size
    frames = []
    for index in range(n):
        bits = [(index >> bit) & 1 for bit in range(BITS)]
        row = np.repeat(np.array(bits, np.uint8) * 235, -(-width // BITS))[:width]
        frames.append(np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2))
    return frames


def number(rgb: Frame) -> int:
    """The number that a frame of `numbered` carries."""
    width = rgb.shape[1]
    step = -(-width // BITS)
    middles = [min(bit * step + step // 2, width - 1) for bit in range(BITS)]
    return sum(int(rgb[rgb.shape[0] // 2, x].mean() > 117) << bit for bit, x in enumerate(middles))


def times(*seconds: float) -> list[Window]:
    """One window at these times."""
    return [Window(index=0, times_s=tuple(seconds))]


def sample(path: Path, windows: list[Window], *, consecutive: bool = False) -> list[list[tuple[float, int]]]:
    """Time and number of each sampled frame, by window."""
    with path.open("rb") as file, Video(file, Limits()) as video:
        sampled = video.sample(windows, consecutive=consecutive)
        return [[(f.t_s, number(f.picture.whole())) for f in window] for window in sampled]


def on_screen(shown_from: Sequence[float], target: float) -> int:
    """The number of the frame that a player shows at `target`."""
    return max((i for i, t in enumerate(shown_from) if t <= target + 1e-6), default=0)


def refused(path: Path, limits: Limits | None = None) -> VideoError:
    with pytest.raises(VideoError) as caught, path.open("rb") as file, Video(file, limits or Limits()):
        pass
    return caught.value


# --- planning ---------------------------------------------------------------------------------------------

SAMPLINGS = st.builds(
    Sampling,
    frames=st.integers(1, 40),
    spacing_s=st.sampled_from([0.02, 0.04, 0.1, 0.5, 1.0]),
    windows=st.integers(1, 30),
    every_s=st.none() | st.floats(0.5, 60),
    max_windows=st.integers(1, 50),
)


@given(duration=st.floats(0.01, 20_000), sampling=SAMPLINGS)
def test_windows_lie_evenly_inside_the_video_and_never_overlap(duration: float, sampling: Sampling) -> None:
    windows = plan_windows(duration, sampling)
    every = [t for window in windows for t in window.times_s]

    assert [window.index for window in windows] == list(range(len(windows)))
    assert every == sorted(set(every)), "windows overlap or are out of order"
    assert every[0] >= 0
    assert every[-1] < duration or every == [0], f"{every[-1]} s in a video of {duration} s"
    assert len(windows) <= max(sampling.windows, sampling.max_windows if sampling.every_s else 0)
    if len(windows) > 1:
        gaps = [b.times_s[0] - a.times_s[0] for a, b in pairwise(windows)]
        assert max(gaps) - min(gaps) < 1e-4, "the distances between windows differ"
        before, after = every[0], duration - every[-1]
        assert before == pytest.approx(after, abs=1e-4), "more is left out at one end than at the other"


def test_two_windows_lie_in_the_middle_of_each_half() -> None:
    first, second = plan_windows(60.0, Sampling(windows=2, frames=11, spacing_s=0.1))

    assert np.mean(first.times_s) == pytest.approx(15)
    assert np.mean(second.times_s) == pytest.approx(45)


@pytest.mark.parametrize(("duration", "frames"), [(0.05, 1), (0.35, 4), (0.95, 10), (1.0, 10)])
def test_a_video_shorter_than_a_window_gets_one_over_all_of_it(duration: float, frames: int) -> None:
    (window,) = plan_windows(duration, Sampling(windows=5))

    assert len(window.times_s) == frames
    assert window.times_s[0] == 0


def test_as_many_windows_as_fit_side_by_side() -> None:
    assert len(plan_windows(3.5, Sampling(windows=10))) == 3


def test_long_videos_get_a_window_every_so_often_up_to_the_cap() -> None:
    every = Sampling(windows=2, every_s=30, max_windows=20)

    assert [len(plan_windows(s, every)) for s in (20, 59, 90, 300, 3600)] == [2, 2, 3, 10, 20]


def test_first_plans_one_window_at_the_start() -> None:
    (window,) = plan_windows(100, Sampling(policy="first", frames=20))

    assert window.times_s[0] == 0
    assert len(window.times_s) == 20


# --- sampling by presentation time --------------------------------------------------------------------------


def test_each_time_gets_the_frame_then_on_screen_at_a_variable_frame_rate(tmp_path: Path) -> None:
    shown = np.cumsum([0, *np.random.default_rng(5).uniform(0.02, 0.2, 59)]).tolist()
    path = write_video(tmp_path / "uneven.mp4", numbered(60), pts=shown)
    windows = plan_windows(shown[-1], Sampling(windows=3, frames=8))

    for window, got in zip(windows, sample(path, windows), strict=True):
        wanted = dict.fromkeys(on_screen(shown, t) for t in window.times_s)
        assert [n for _, n in got] == list(wanted)
        assert [t for t, _ in got] == pytest.approx([shown[n] for n in wanted], abs=1e-4)


CONTAINERS = [(25, "a.mp4"), (2, "a.mp4"), (25, "a.mkv"), (25, "a.ts"), (2, "a.ts")]


@pytest.mark.parametrize("gop", [10, 60, 250])
@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.parametrize(("fps", "name"), CONTAINERS)
def test_jumping_to_keyframes_gives_the_same_frames_as_decoding_all(
    tmp_path: Path, fps: float, name: str, gop: int, bframes: int
) -> None:
    frames = 500 if fps > 10 else 120
    options = {"g": str(gop), "keyint_min": str(gop), "bf": str(bframes), "sc_threshold": "0"}
    path = write_video(tmp_path / name, numbered(frames), fps=fps, options=options)
    windows = plan_windows(frames / fps, Sampling(windows=3, frames=5))

    shown = [i / fps for i in range(frames)]
    wanted = [list(dict.fromkeys(on_screen(shown, t) for t in w.times_s)) for w in windows]
    assert [[n for _, n in window] for window in sample(path, windows)] == wanted


def test_what_lies_between_windows_is_not_decoded_where_keyframes_allow_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(800), fps=20, options={"g": "20", "bf": "0"})
    windows = plan_windows(40, Sampling(windows=2))

    with path.open("rb") as file, Video(file, Limits()) as video:
        assert [len(frames) for frames in video.sample(windows)] == [10, 10]
        assert video.frames_decoded < 200, f"{video.frames_decoded} of 800 frames decoded for 20"


def test_frames_that_no_other_needs_are_not_decoded_outside_of_windows(tmp_path: Path) -> None:
    options = {"g": "250", "bf": "3", "b-pyramid": "none", "b_strategy": "0", "sc_threshold": "0"}
    path = write_video(tmp_path / "a.mp4", numbered(240), options=options)
    windows = plan_windows(9.6, Sampling(windows=2))

    with path.open("rb") as file, Video(file, Limits()) as video:
        assert [len(frames) for frames in video.sample(windows)] == [10, 10]
        assert video.frames_decoded < 100, f"{video.frames_decoded} frames decoded, of which 60 are needed"


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mjpeg"), ("a.mov", "prores_ks")])
def test_where_frames_stand_alone_only_those_that_are_sampled_are_decoded(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = write_video(tmp_path / name, numbered(200), codec=codec)
    windows = plan_windows(8, Sampling(windows=4, frames=5))

    wanted = [[on_screen([i / 25 for i in range(200)], t) for t in w.times_s] for w in windows]
    with path.open("rb") as file, Video(file, Limits()) as video:
        got = [[number(f.picture.whole()) for f in window] for window in video.sample(windows)]
        assert got == wanted
        assert video.frames_decoded <= 2 * 20, f"{video.frames_decoded} of 200 frames decoded for 20"


def test_a_frame_that_stays_on_screen_is_taken_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.mp4", numbered(8), fps=2)

    windows = plan_windows(4, Sampling(windows=1, frames=10))  # 1.55 s to 2.45 s

    assert sample(path, windows) == [[(1.5, 3), (2.0, 4)]]


@pytest.mark.parametrize("fps", [25, 3])
def test_first_takes_consecutive_frames_whatever_their_times(tmp_path: Path, fps: float) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(40), fps=fps)
    windows = plan_windows(40 / fps, Sampling(policy="first", frames=30))

    (got,) = sample(path, windows, consecutive=True)
    assert [n for _, n in got] == list(range(30)), f"{len(got)} frames"


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    """A transport stream starts at 1.4 s."""
    path = write_video(tmp_path / "a.ts", numbered(50))

    assert sample(path, times(0, 0.4, 1.0)) == [[(0, 0), (pytest.approx(0.4), 10), (pytest.approx(1.0), 25)]]


def test_a_video_that_ends_before_its_duration_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(50))

    with path.open("rb") as file, Video(file, Limits()) as video:
        assert [len(frames) for frames in video.sample(times(0, 1, 1.9))] == [3]
        assert not video.ended_early
    with path.open("rb") as file, Video(file, Limits()) as video:
        assert [len(frames) for frames in video.sample(times(0, 1, 5))] == [2]
        assert video.ended_early


def test_a_cut_off_file_gives_what_is_there_and_says_that_it_ended(tmp_path: Path) -> None:
    frames = moving_face(75, (320, 180), face_px=80)
    path = cut_off(write_video(tmp_path / "a.mp4", frames, options={"movflags": "faststart"}), 0.5)

    with path.open("rb") as file, Video(file, Limits()) as video:
        taken = [
            f for window in video.sample(plan_windows(video.info.duration_s, Sampling())) for f in window
        ]
    assert video.info.duration_s == pytest.approx(3.0, abs=0.1)
    assert 0 < len(taken) < 20
    assert video.ended_early


def test_a_file_without_a_duration_is_walked_for_it(tmp_path: Path) -> None:
    """As browsers record it: WebM that was never finished."""
    path = tmp_path / "live.webm"
    write_video(path, numbered(60), codec="libvpx", options={"live": "1"})
    with av.open(str(path)) as file:
        assert file.duration is None
        assert file.streams.video[0].duration is None

    windows = plan_windows(2.4, Sampling(windows=2, frames=5))
    with path.open("rb") as file:
        assert Video(file, Limits()).info.duration_s == pytest.approx(2.4, abs=0.1)
    got = [n for window in sample(path, windows) for _, n in window]
    assert got == [on_screen([i / 25 for i in range(60)], t + 1e-3) for w in windows for t in w.times_s]


# --- upright ------------------------------------------------------------------------------------------------


def shown_first(path: Path) -> tuple[Video, Frame]:
    with path.open("rb") as file, Video(file, Limits()) as video:
        (frames,) = video.sample(times(0))
        return video, frames[0].picture.whole()


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("sar", [(1, 1), (2, 1), (4, 3)])
def test_pixels_are_as_a_player_shows_them(tmp_path: Path, rotation: int, sar: tuple[int, int]) -> None:
    picture = portrait()[:400, :480]
    path = write_video(tmp_path / "a.mp4", [picture] * 3, rotation=rotation, sar=sar)

    video, rgb = shown_first(path)
    assert (video.info.width, video.info.height) == (rgb.shape[1], rgb.shape[0])
    assert abs(rgb.shape[0] - 400) <= 2, f"{rgb.shape} for a picture of 400 x 480"
    assert abs(rgb.shape[1] - 480) <= 2, f"{rgb.shape} for a picture of 400 x 480"
    height, width = min(400, rgb.shape[0]), min(480, rgb.shape[1])
    difference = np.abs(rgb[:height, :width].astype(int) - picture[:height, :width]).mean()
    assert difference < 12, f"differs by {difference:.1f} grey levels: turned or squeezed the wrong way"


def shapes_of_two(tmp_path: Path, *sizes: tuple[int, int]) -> set[Any]:
    """Shapes of the pictures of two recordings in one file."""
    path = tmp_path / "both.ts"
    one, two = (write_video(tmp_path / f"{i}.ts", numbered(50, size)) for i, size in enumerate(sizes))
    path.write_bytes(one.read_bytes() + two.read_bytes())
    with path.open("rb") as file, Video(file, Limits()) as video:
        windows = video.sample([Window(index=0, times_s=tuple(i / 25 for i in range(100)))])
        shapes = {f.picture.whole().shape for window in windows for f in window}
        assert video.size_changed
        return shapes


def test_a_change_of_size_is_seen_and_brought_to_the_first_size(tmp_path: Path) -> None:
    """Two transport streams one after the other, as a broadcaster's recording."""
    assert shapes_of_two(tmp_path, (96, 64), (144, 96)) == {(64, 96, 3)}


def test_a_picture_of_another_shape_is_not_squeezed_into_the_first_one(tmp_path: Path) -> None:
    assert shapes_of_two(tmp_path, (96, 64), (160, 64)) == {(64, 96, 3), (64, 160, 3)}


def test_a_recording_that_becomes_wide_is_shown_wide(tmp_path: Path) -> None:
    """As when 4:3 goes over to 16:9: the frames have the same size, but their pixels another shape."""
    path = tmp_path / "both.ts"
    narrow = write_video(tmp_path / "a.ts", numbered(50, (96, 72)), codec="mpeg2video")
    wide = write_video(tmp_path / "b.ts", numbered(50, (128, 72)), codec="mpeg2video", sar=(4, 3))
    path.write_bytes(narrow.read_bytes() + wide.read_bytes())

    with path.open("rb") as file, Video(file, Limits()) as video:
        windows = video.sample(times(0.2, 0.5, 2.5, 3))
        assert [(f.picture.width, f.picture.height) for f in next(windows)] == [(96, 72)] * 2 + [
            (128, 72)
        ] * 2
        assert not video.size_changed


def test_a_turn_that_only_the_first_frame_tells_of_holds_for_all(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    HEALTHY["turned-by-the-stream.ts"](path)

    upside_down = np.rot90(face()[25], 2)
    with path.open("rb") as file, Video(file, Limits()) as video:
        assert video.info.rotation == 180
        [[first, late]] = video.sample(times(0, 1))
        off = np.abs(late.picture.whole().astype(int) - upside_down).mean()
        assert off < 12, f"the frame at {late.t_s} s is {off:.0f} grey levels off: not turned"
        assert first.t_s == 0


def test_pictures_out_of_order_in_an_avi_come_when_a_player_shows_them(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered(300), options={"bf": "3", "g": "50", "sc_threshold": "0"})
    windows = plan_windows(12, Sampling(windows=3, frames=5))

    wanted = [[on_screen([i / 25 for i in range(300)], t) for t in w.times_s] for w in windows]
    assert [[n for _, n in window] for window in sample(path, windows)] == wanted


def test_going_back_for_a_keyframe_is_no_disorder(tmp_path: Path) -> None:
    """One keyframe, at the start: a seek in a transport stream finds none, and reading starts again."""
    options = {"g": "9999", "keyint_min": "9999", "sc_threshold": "0", "bf": "0"}
    path = write_video(tmp_path / "a.ts", numbered(600), options=options)

    with path.open("rb") as file, Video(file, Limits()) as video:
        windows = plan_windows(24, Sampling(windows=3, frames=5))
        assert [len(frames) for frames in video.sample(windows)] == [5, 5, 5]
        assert not video.times_invalid
        assert video.frames_decoded < 2 * 600, f"{video.frames_decoded} of 600 frames decoded"


@pytest.mark.parametrize("name", ["sound-first.mkv", "sound-first.ts"])
def test_time_starts_at_the_first_picture(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    HEALTHY[name](path)

    with path.open("rb") as file, Video(file, Limits()) as video:
        assert video.info.duration_s == pytest.approx(5, abs=0.1)
        assert video.info.fps is None or video.info.fps == pytest.approx(25)
        [frames] = video.sample(times(0, 1, 2))
        assert [f.t_s for f in frames] == pytest.approx([0, 1, 2], abs=0.001)


# --- refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"This is not a video.\n" * 50, Reason.NOT_VIDEO),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), Reason.NOT_VIDEO),
        (b"PK\x03\x04" + bytes(500), Reason.NOT_VIDEO),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n", Reason.NOT_VIDEO),
        (b"ffconcat version 1.0\nfile 'a.mp4'\n", Reason.NOT_VIDEO),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(500), Reason.INCOMPLETE),
        (bytes(range(256)) * 8, Reason.NOT_VIDEO),
    ],
)
def test_what_is_no_video_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: Reason) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)

    assert refused(path).reason is reason


def test_sound_alone_has_no_video_stream(tmp_path: Path) -> None:
    assert refused(write_audio(tmp_path / "a.mp4", 0.5)).reason is Reason.NO_VIDEO_STREAM


def test_a_codec_outside_the_list_is_refused_by_name(tmp_path: Path) -> None:
    error = refused(write_video(tmp_path / "a.avi", numbered(3), codec="ffv1"))

    assert error.reason is Reason.UNSUPPORTED_CODEC
    assert "ffv1" in str(error)


def test_frames_over_the_limit_are_refused_with_their_size(tmp_path: Path) -> None:
    error = refused(write_video(tmp_path / "a.mp4", numbered(3)), Limits(max_pixels=96 * 64 - 1))

    assert error.reason is Reason.TOO_LARGE


def test_an_open_file_of_bytes_works_like_one_on_disk(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(5))

    with Video(io.BytesIO(path.read_bytes()), Limits()) as video:
        (frames,) = video.sample(times(0.05))
        assert isinstance(frames[0], SampledFrame)
        assert number(frames[0].picture.whole()) == 1


def test_a_clock_that_leaps_beyond_what_a_number_holds_is_damage(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov", "g": "10", "preset": "veryfast"}
    body = bytearray(write_video(tmp_path / "a.mp4", face(50), options=fragments).read_bytes())
    place = 0
    for time in (0, 1 << 62, -(1 << 62), 1 << 62):
        place = body.index(b"tfdt", place + 1)
        body[place + 8 : place + 16] = time.to_bytes(8, "big", signed=True)
    with Video(io.BytesIO(body), Limits()) as video:
        frames = [frame for window in video.sample(times(0, 0.1, 0.2)) for frame in window]
        assert frames, "what lies before the leap is lost"
        assert video.ended_early, "the leap passed unnoticed"
