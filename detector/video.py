"""Read a video: probe it, plan windows over its presentation time, decode only what lies on the way.

One forward pass with one thread. It jumps only where a keyframe lies between here and the next window: a
seek per sample decodes ten times as much on files of usual GOP length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import IO, Self

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from detector.container import open_container, video_stream
from detector.errors import VideoError
from detector.types import Limits, Reason, Sampling, VideoInfo, Window
from detector.whole import is_whole

_SANE_ASPECT = (Fraction(1, 8), Fraction(8))
_JUMP_WITHOUT_INDEX_S = 5.0
_BEFORE_TARGET_S = 0.5
_END_TOLERANCE_S = 0.25


@dataclass(frozen=True, slots=True)
class SampledFrame:
    """One decoded frame with its presentation time in seconds from the start of the video."""

    t_s: float
    frame: av.VideoFrame


class Video:
    """An open video. Use as a context manager; counts what it decodes.

    Attributes:
        info: facts of container and stream.
        frames_decoded, frames_corrupt: counted as the sampling goes.
        whole: whether the file ends where its container says; None where it does not say.
        ended_early: True once the stream ended, by an error or by itself, before the planned times.
        times_missed: planned times behind that end.
        size_changed: True once a frame of another size came.
    """

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self.frames_decoded = 0
        self.frames_corrupt = 0
        self.ended_early = False
        self.times_missed = 0
        self.size_changed = False
        self._frames: Iterator[av.VideoFrame] | None = None
        self._pending: av.VideoFrame | None = None  # decoded, but not handed out
        self.whole = is_whole(file)
        self._container = open_container(file, limits)
        try:
            self._stream = video_stream(self._container, limits)
            self._start_s = self._stream_start_s()
            self._first = self._pending = self._read_first_frame()
            self.info = self._probe()
        except VideoError:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def sample(self, windows: list[Window], *, consecutive: bool = False) -> Iterator[list[SampledFrame]]:
        """Yield, for each window in order, its frames: of each planned time the frame then on screen.

        A frame is taken once, so a window over a slow or short video holds fewer frames than times.
        `consecutive` ignores the times and takes the first frames, as many as there are times.

        Raises:
            VideoError: encrypted, or frames over a limit.
        """
        if consecutive:
            yield list(islice(self._timed_frames(math.inf), len(windows[0].times_s)))
            return
        frames = self._timed_frames(windows[-1].times_s[-1] + _BEFORE_TARGET_S)
        current = next(frames, None)
        following = next(frames, None)
        for window in windows:
            self._jump(window.times_s[0], current)
            taken: list[SampledFrame] = []
            for target in window.times_s:
                while following is not None and following.t_s <= target + 1e-6:
                    current, following = following, next(frames, None)
                over = current is None or (
                    following is None and target > current.t_s + self._shown_s(current)
                )
                self.times_missed += over
                self.ended_early |= over
                if current is None:
                    continue
                if not over and (not taken or taken[-1].t_s != current.t_s):
                    taken.append(current)
            yield taken

    def displayed(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame as a player shows it, `[H, W, 3] uint8 RGB`, H and W those of `info`.

        Rotation, then sample aspect ratio; a frame of another size than the first is brought to that size.
        """
        rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        turns = round((frame.rotation or 0) / 90) % 4
        if turns:
            rgb = np.ascontiguousarray(np.rot90(rgb, turns))
        size = self.info.width, self.info.height
        if (rgb.shape[1], rgb.shape[0]) != size:
            shrinks = rgb.shape[1] >= size[0] and rgb.shape[0] >= size[1]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            return np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)
        return rgb

    def _stream_start_s(self) -> float | None:
        start, base = self._stream.start_time, self._stream.time_base
        return None if start is None or base is None else float(start * base)

    def _probe(self) -> VideoInfo:
        stream, frame = self._stream, self._first
        width, height = max(1, round(frame.width * self._aspect())), frame.height
        rotation = round((frame.rotation or 0) / 90) * 90 % 360
        if rotation % 180:
            width, height = height, width
        rate = stream.average_rate
        return VideoInfo(
            duration_s=self._duration(),
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            codec=stream.codec_context.name,
            container=self._container.format.name,
            rotation=rotation,
        )

    def _duration(self) -> float | None:
        if self._stream.duration and self._stream.time_base:
            seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration:
            seconds = self._container.duration / 1e6
        else:
            seconds = self._last_packet_s()
        return seconds if 0 < seconds < 1e6 else None

    def _last_packet_s(self) -> float:
        """Duration of a video whose header has none (live WebM): the packets are walked, not decoded."""
        end, base = 0.0, self._stream.time_base or Fraction(1)
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    end = max(
                        end, float((packet.pts + (packet.duration or 0)) * base) - (self._start_s or 0.0)
                    )
        except av.error.FFmpegError:
            pass  # the walk ends where the file does; the frames found so far are what there is
        self._restart()
        return end

    def _restart(self) -> None:
        self._container.seek(int(self._stream.start_time or 0), stream=self._stream, backward=True)
        self._frames = None

    def _read_first_frame(self) -> av.VideoFrame:
        frame = next(self._decoded(), None)
        if frame is None:
            raise VideoError(Reason.NO_FRAMES, "the file opens, but not one frame can be decoded")
        if self._start_s is None:
            self._start_s = float(frame.time or 0.0)
        return frame

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames from here on; a damaged packet is skipped and counted, as a player does."""
        if self._frames is None:
            self._frames = self._decode()
        return self._frames

    def _decode(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError):
                self.frames_corrupt += 1
                self.ended_early = True
                return
            if packet is None:
                return
            if packet.has_sidedata("encryption_info"):
                raise VideoError(Reason.ENCRYPTED, "the video is encrypted, and its key is not here")
            try:
                frames = packet.decode()
            except av.error.MemoryError as error:
                raise VideoError(Reason.DECODE_MEMORY, "decoding needs more memory than allowed") from error
            except av.error.FFmpegError:
                self.frames_corrupt += 1
                continue
            for frame in frames:
                self.frames_decoded += 1
                self.frames_corrupt += bool(frame.is_corrupt)
                yield frame

    def _timed_frames(self, end: float) -> Iterator[SampledFrame]:
        """Frames in order of presentation time, the first one again, until one lies behind `end`."""
        last = -1.0
        while True:
            frame = self._pending if self._pending is not None else next(self._decoded(), None)
            self._pending = None
            if frame is None:
                return
            self.size_changed |= (frame.width, frame.height) != (self._first.width, self._first.height)
            known_s = self._time_s(frame)
            t_s = last + 1e-3 if known_s is None else known_s
            if t_s <= last:
                continue
            last = t_s
            yield SampledFrame(t_s, frame)
            if t_s > end:
                return

    def _jump(self, target_s: float, current: SampledFrame | None) -> None:
        """Seek to the last keyframe before the target, if one lies between here and there."""
        here = 0.0 if current is None else current.t_s
        base = self._stream.time_base
        wanted_s = target_s - _BEFORE_TARGET_S
        if base is None or wanted_s <= here:
            return
        timestamp = int((wanted_s + (self._start_s or 0.0)) / float(base))
        entries = self._stream.index_entries
        if len(entries):
            found = entries.search_timestamp(timestamp, backward=True)
            if found < 0:
                return
            key_s = float(entries[found].timestamp * base) - (self._start_s or 0.0)
            if key_s <= here + _BEFORE_TARGET_S:
                return
        elif wanted_s - here < _JUMP_WITHOUT_INDEX_S:
            return
        self._land(target_s)

    def _land(self, target_s: float) -> None:
        """Seek to a keyframe before the target, and look whether the first picture really lies before it.

        A transport stream has no index: a seek there lands between keyframes, and pictures come only from
        the next one on. Then further back is tried, in the end the start.
        """
        back_s = _BEFORE_TARGET_S
        while not self._seek_before(target_s - back_s, target_s):
            if back_s > target_s:
                self._restart()
                return
            back_s *= 4

    def _seek_before(self, wanted_s: float, target_s: float) -> bool:
        """Seek to `wanted_s`; the keyframe found before the target waits as `_pending`; False if none."""
        timestamp = int((wanted_s + (self._start_s or 0.0)) / float(self._stream.time_base))
        try:
            self._container.seek(timestamp, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return True  # not seekable: the forward pass goes on from here
        corrupt, self._frames = self.frames_corrupt, None
        self._pending = self._key_frame_until(target_s)
        self.frames_corrupt = corrupt  # what a landing between keyframes breaks is no damage
        return self._pending is not None

    def _key_frame_until(self, target_s: float) -> av.VideoFrame | None:
        for frame in self._decoded():
            t_s = self._time_s(frame)
            if t_s is not None and t_s > target_s:
                return None
            if frame.key_frame or t_s is None:
                return frame
        return None

    def _time_s(self, frame: av.VideoFrame) -> float | None:
        return None if frame.time is None else float(frame.time) - (self._start_s or 0.0)

    def _aspect(self) -> Fraction:
        aspect = self._stream.sample_aspect_ratio
        if not aspect or not _SANE_ASPECT[0] <= aspect <= _SANE_ASPECT[1]:
            return Fraction(1)
        return Fraction(aspect)

    def _shown_s(self, last: SampledFrame) -> float:
        """How long the last frame may stand for times after it: as long as it says, at least two frames."""
        frame, rate = last.frame, self._stream.average_rate
        own = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return max(_END_TOLERANCE_S, own, 2 / float(rate) if rate else 0.0)


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
