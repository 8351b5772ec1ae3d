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

from detector.container import is_hidden_by_edit_list, open_container, refuse_told_large, video_stream
from detector.decoder import ENTERABLE, Decoder
from detector.errors import VideoError
from detector.extent import MP4, is_followed, is_hollow, last_s
from detector.picture import UPRIGHT, Orientation, Picture, shown_size
from detector.transport import is_scrambled
from detector.types import Limits, Reason, Sampling, VideoInfo, Window
from detector.whole import walked

_JUMP_WITHOUT_INDEX_S = 5.0
_BEFORE_TARGET_S = 0.5
_END_TOLERANCE_S = 0.25
_LONGEST_S = 1e6
# Share of frames whose times do not rise, and factor between two rates of one stream, that are still sane.
_TOLERATED_UNORDERED, _OFF_RATE = 0.1, 10
# What FFmpeg guesses from a few pictures at the end of a long file is no rate.
_HIGHEST_RATE = 1000
# A container tells too short a time where pictures come so much later: by factor, and in seconds.
_LONGER, _LONGER_S = 1.05, 0.5
# Frames of another shape than the first are not brought to its size, which would squeeze faces.
_SAME_SHAPE = 1.02


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
        whole: whether all is there and read that the container tells of; None where it does not say.
        times_missed: planned times behind the end of the stream.
        end_s: when the last frame ends, once the end of the stream was reached before a planned time.
        shorter_than_told: True once the stream ended before what the container says of this very stream.
        size_changed: True once a frame of another size came.
    """

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self.times_missed = 0
        self.end_s: float | None = None
        self.shorter_than_told = False
        self.size_changed = False
        self._unordered = 0
        self._last_s = self._seen_s = -1.0  # time of the last frame, and up to where frames come once more
        self._found_s = 0.0  # when the last packet comes, where that is known
        self._turn: int | None = None  # as the last frame says that tells of one, degrees
        self._orientation = UPRIGHT
        self._limits = limits
        self._file, self._walk = file, walked(file)
        self.whole = self._walk.whole
        self._container = open_container(file, limits)
        try:
            self._stream = video_stream(self._container, limits)
            self._decoder = Decoder(self._container, self._stream, limits)
            first = self._decoder.peek()
            if first is None:
                if not self._stream.codec_context.width:
                    refuse_told_large(file, limits)
                raise self._without_frames()
            self._size = first.width, first.height
            self._orient(first)
            self._aspect = self._stream.sample_aspect_ratio
            self._first_aspect = self._stream.codec_context.sample_aspect_ratio
            if is_hollow(file, self._container, self._stream):
                self.whole = False
            self.info = self._probe(first)
            if is_followed(file, self._container, self._decoder):
                self.whole = False
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
        if not (stream.frames > 1 and stream.average_rate and seconds) or seconds == self._found_s:
            return False
        return not 1 / _OFF_RATE < stream.frames / seconds / stream.average_rate < _OFF_RATE

    @property
    def ended_early(self) -> bool:
        """True once the stream ended, by an error or by itself, before the planned times."""
        return self._decoder.broke_off or self.times_missed > 0

    @property
    def lacks_pictures(self) -> bool:
        """True once the stream ended although packets with pictures lie behind that."""
        return self.end_s is not None and self._found_s > _LONGER * self.end_s + _LONGER_S

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
        """Start from the beginning, for another plan: the stream is not as long as was said."""
        still = self.frames_decoded == 1  # which is meant to stand all the time
        self._last_s = self._seen_s = -1.0
        self.shorter_than_told = self._own_duration_s() is not None and not still
        self.times_missed = 0
        self._decoder.restart()

    def _without_frames(self) -> VideoError:
        if self._stream.metadata.get("enc_key_id"):
            return VideoError(Reason.ENCRYPTED, "the video is encrypted, and its key is not here")
        mpegts = self._container.format.name == "mpegts"
        if mpegts and is_scrambled(self._file, self._stream.id):
            return VideoError(Reason.ENCRYPTED, "the broadcast is scrambled, and its key is not here")
        if self.whole is False:
            return VideoError(Reason.INCOMPLETE, "the file is cut short before its first picture")
        if self._decoder.frames_corrupt:
            return VideoError(Reason.CORRUPT, "not one of its pictures can be decoded")
        if self._container.format.name == MP4 and is_hidden_by_edit_list(self._file, self._limits):
            return VideoError(Reason.NO_FRAMES, "the edit list of the file hides every picture")
        return VideoError(Reason.NO_FRAMES, "the file opens, but not one picture comes out")

    def _probe(self, first: av.VideoFrame) -> VideoInfo:
        width, height = shown_size(first, self._aspect, self._orientation)
        rate = self._stream.average_rate
        return VideoInfo(
            duration_s=self._duration(),
            width=width,
            height=height,
            fps=float(rate) if rate and rate <= _HIGHEST_RATE else None,
            codec=self._stream.codec_context.name,
            container=self._container.format.name,
            rotation=self._orientation.turns * 90,
        )

    def _duration(self) -> float | None:
        """Seconds as the container tells, else by walking the packets; None where it makes no sense."""
        if (
            self._container.format.name in ENTERABLE
            or not 0 < (seconds := self._told_duration_s()) < _LONGEST_S
        ):
            seconds = self._decoder.last_packet_s()
        else:
            self._found_s = self._find_last()
            if _LONGER * seconds + _LONGER_S < self._found_s < _LONGEST_S:
                seconds = self._found_s
        return seconds if 0 < seconds < _LONGEST_S else None

    def _find_last(self) -> float:
        if self._walk.end_s is not None:
            self._decoder.seekable = self._walk.seekable
            return self._walk.end_s - self._decoder.start_s
        if self.whole is False:
            return 0.0
        return last_s(self._file, self._container, self._stream, self._decoder)

    def _told_duration_s(self) -> float:
        """By the stream or the container; 0 where neither tells."""
        stream, own_s = self._stream, self._own_duration_s()
        seconds = self._container_s() or 0.0 if own_s is None else own_s
        if self.whole is False and stream.frames and stream.average_rate:  # AVI: what is gone counts, too
            seconds = max(seconds, float(stream.frames / stream.average_rate))
        return seconds

    def _own_duration_s(self) -> float | None:
        """What the container says of this stream and no other; None where it says nothing."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base) - self._decoder.late_s
        told = _clock(stream.metadata.get("DURATION", ""))
        if told is not None:
            return told - self._decoder.start_s
        return self._container_s() if len(self._container.streams) == 1 else None

    def _container_s(self) -> float | None:
        """What the container says of its longest stream."""
        told = self._container.duration
        return told / 1e6 - self._decoder.start_s if told else None

    def _timed_frames(self) -> Iterator[SampledFrame]:
        """Frames in order of presentation time."""
        for frame in self._decoder:
            self.size_changed |= (frame.width, frame.height) != self._size
            self._orient(frame)
            known_s = self._decoder.time_s(frame)
            t_s = self._last_s + 1e-3 if known_s is None else known_s
            if t_s <= self._last_s:
                self._unordered += t_s > self._seen_s
                continue
            self._last_s = t_s
            picture = Picture(frame, *self._shown_size(frame), self._orientation)
            yield SampledFrame(t_s, picture, self._shown_s(frame))

    def _orient(self, frame: av.VideoFrame) -> None:
        """A display matrix in the stream itself holds from where it comes to the next keyframe."""
        turn = frame.rotation
        if turn == self._turn or (not turn and not frame.key_frame and self._turn is not None):
            return
        # Only where it changes: a frame whose side data was looked at stays until the next collection.
        self._turn, self._orientation = turn, Orientation.of(frame) or UPRIGHT

    def _shown_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height, px: those of the first frame, but where a player shows another shape."""
        coded = self._stream.codec_context.sample_aspect_ratio
        aspect = self._aspect if coded == self._first_aspect else coded
        width, height = shown_size(frame, aspect, self._orientation)
        other = width * self.info.height / (height * self.info.width)
        same = 1 / _SAME_SHAPE < other < _SAME_SHAPE
        return (self.info.width, self.info.height) if same else (width, height)

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
            self._seen_s = self._last_s
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
