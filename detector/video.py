"""Read a video: probe it, plan windows over its presentation time, decode only what lies on the way.

One forward pass with one thread. It jumps only where a keyframe lies between here and the next window: a
seek per sample decodes ten times as much on files of usual GOP length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Self

import av

from detector.container import open_container, video_stream
from detector.decoder import ENTERABLE, Decoder
from detector.errors import VideoError
from detector.picture import Orientation, Picture, shown_size
from detector.types import Limits, Reason, Sampling, VideoInfo, Window
from detector.whole import is_whole

_JUMP_WITHOUT_INDEX_S = 5.0
_BEFORE_TARGET_S = 0.5
_END_TOLERANCE_S = 0.25
_LONGEST_S = 1e6
# Share of frames whose times do not rise, and factor between two rates of one stream, that are still sane.
_TOLERATED_UNORDERED, _OFF_RATE = 0.1, 10


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """One frame with its presentation time in seconds from the start of the video."""

    t_s: float
    picture: Picture
    shown_s: float


class Video:
    """An open video. Use as a context manager.

    Attributes:
        info: facts of container and stream.
        whole: whether the file ends where its container says; None where it does not say.
        times_missed: planned times behind the end of the stream.
        end_s: when the last frame ends, once the end of the stream was reached before a planned time.
        size_changed: True once a frame of another size came.
    """

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self.times_missed = 0
        self.end_s: float | None = None
        self.size_changed = False
        self._unordered = 0
        self.whole = is_whole(file)
        self._container = open_container(file, limits)
        try:
            self._stream = video_stream(self._container, limits)
            self._decoder = Decoder(self._container, self._stream, limits)
            first = self._decoder.peek()
            if first is None:
                raise self._without_frames()
            self._size = first.width, first.height
            self.info = self._probe(first)
        except VideoError:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def frames_decoded(self) -> int:
        """So far."""
        return self._decoder.frames_decoded

    @property
    def frames_corrupt(self) -> int:
        """Frames that were damaged or could not be decoded, so far."""
        return self._decoder.frames_corrupt

    @property
    def times_invalid(self) -> bool:
        """True if presentation times are no guide to what a player shows, as far as has been seen."""
        if self._unordered > _TOLERATED_UNORDERED * self.frames_decoded:
            return True
        stream, seconds = self._stream, self.info.duration_s
        if not (stream.frames > 1 and stream.average_rate and seconds):
            return False
        return not 1 / _OFF_RATE < stream.frames / seconds / stream.average_rate < _OFF_RATE

    @property
    def ended_early(self) -> bool:
        """True once the stream ended, by an error or by itself, before the planned times."""
        return self._decoder.broke_off or self.times_missed > 0

    def sample(self, windows: list[Window], *, consecutive: bool = False) -> Iterator[list[SampledFrame]]:
        """Yield, for each window in order, its frames: of each planned time the frame then on screen.

        A frame is taken once, so a window over a slow or short video holds fewer frames than times.
        `consecutive` ignores the times and takes the first frames, as many as there are times.

        Raises:
            VideoError: encrypted, or frames over a limit.
        """
        if consecutive:
            yield list(islice(self._timed_frames(), len(windows[0].times_s)))
            return
        self._decoder.want([t for window in windows for t in window.times_s])
        frames = self._timed_frames()
        current = next(frames, None)
        following = next(frames, None)
        for window in windows:
            self._jump(window.times_s[0], current)
            taken: list[SampledFrame] = []
            for target in window.times_s:
                while following is not None and following.t_s <= target + 1e-6:
                    current, following = following, next(frames, None)
                if current is None or (following is None and target > current.t_s + current.shown_s):
                    self.times_missed += 1
                    self.end_s = 0.0 if current is None else current.t_s + current.shown_s
                elif not taken or taken[-1].t_s != current.t_s:
                    taken.append(current)
            yield taken

    def again(self) -> None:
        """Start from the beginning, for another plan."""
        self.times_missed = 0
        self._decoder.restart()

    def _without_frames(self) -> VideoError:
        if self._stream.metadata.get("enc_key_id"):
            return VideoError(Reason.ENCRYPTED, "the video is encrypted, and its key is not here")
        if self.whole is False:
            return VideoError(Reason.INCOMPLETE, "the file is cut short before its first picture")
        if self._decoder.frames_corrupt:
            return VideoError(Reason.CORRUPT, "not one of its pictures can be decoded")
        return VideoError(Reason.NO_FRAMES, "the file opens, but not one picture comes out")

    def _probe(self, first: av.VideoFrame) -> VideoInfo:
        width, height = shown_size(first, self._stream.sample_aspect_ratio)
        rate = self._stream.average_rate
        return VideoInfo(
            duration_s=self._duration(),
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            codec=self._stream.codec_context.name,
            container=self._container.format.name,
            rotation=Orientation.of(first).turns * 90,
        )

    def _duration(self) -> float | None:
        """Seconds as the container tells, else by walking the packets; None where it makes no sense."""
        if (
            self._container.format.name in ENTERABLE
            or not 0 < (seconds := self._told_duration_s()) < _LONGEST_S
        ):
            seconds = self._decoder.last_packet_s()
        return seconds if 0 < seconds < _LONGEST_S else None

    def _told_duration_s(self) -> float:
        """By the stream or the container; 0 where neither tells."""
        stream, seconds = self._stream, 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif (told := _clock(stream.metadata.get("DURATION", ""))) is not None:
            seconds = told - self._decoder.start_s
        elif self._container.duration:
            seconds = self._container.duration / 1e6 - self._decoder.start_s
        if self.whole is False and stream.frames and stream.average_rate:  # AVI: what is gone counts, too
            seconds = max(seconds, float(stream.frames / stream.average_rate))
        return seconds

    def _timed_frames(self) -> Iterator[SampledFrame]:
        """Frames in order of presentation time."""
        last = -1.0
        for frame in self._decoder:
            self.size_changed |= (frame.width, frame.height) != self._size
            known_s = self._decoder.time_s(frame)
            t_s = last + 1e-3 if known_s is None else known_s
            if t_s <= last:
                self._unordered += 1
                continue
            last = t_s
            picture = Picture(frame, self.info.width, self.info.height)
            yield SampledFrame(t_s, picture, self._shown_s(frame))

    def _jump(self, target_s: float, current: SampledFrame | None) -> None:
        """Seek to the last keyframe before the target, if one lies between here and there."""
        here = 0.0 if current is None else current.t_s
        wanted_s = target_s - _BEFORE_TARGET_S
        if not self._decoder.seekable or self._stream.time_base is None or wanted_s <= here:
            return
        key_s = self._decoder.key_before_s(wanted_s)
        if key_s is None:
            pays = wanted_s - here >= _JUMP_WITHOUT_INDEX_S
        else:
            pays = key_s > here + _BEFORE_TARGET_S
        if pays:
            self._decoder.jump(target_s, _BEFORE_TARGET_S)

    def _shown_s(self, frame: av.VideoFrame) -> float:
        """How long the last frame may stand for times after it: as long as it says, at least two frames."""
        rate = self._stream.average_rate
        own = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return max(_END_TOLERANCE_S, own, 2 / float(rate) if rate else 0.0)


def _clock(text: str) -> float | None:
    """Seconds of a time like 00:01:02.500, which Matroska keeps for each stream; None if it is none."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


def plan_windows(duration_s: float | None, sampling: Sampling) -> list[Window]:
    """Windows that lie evenly over the whole presentation time, never overlapping.

    Each of n equal parts of the video holds one window at its centre. A video shorter than a window gets
    one, over all of it.
    """
    span = (sampling.frames - 1) * sampling.spacing_s
    length = span + sampling.spacing_s
    if sampling.policy == "first" or duration_s is None:
        return [_window(0, 0.0, sampling)]
    if duration_s <= length:
        times = _window(0, 0.0, sampling).times_s
        return [Window(index=0, times_s=tuple(t for t in times if t == 0 or t < duration_s))]
    count = sampling.windows
    if sampling.every_s is not None:
        count = max(count, min(sampling.max_windows, int(duration_s / sampling.every_s)))
    count = max(1, min(count, int(duration_s / length)))
    part = duration_s / count
    return [_window(i, (i + 0.5) * part - span / 2, sampling) for i in range(count)]


def _window(index: int, start_s: float, sampling: Sampling) -> Window:
    times = tuple(round(start_s + k * sampling.spacing_s, 6) for k in range(sampling.frames))
    return Window(index=index, times_s=times)
