"""Packets in, frames out: forwards in one thread, no more decoded than what was asked for needs."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import av.error

from detector.container import refuse_large
from detector.errors import VideoError
from detector.types import Limits, Reason

# Streams that a receiver may enter anywhere: they have no index, and their clock may start again midway.
ENTERABLE = ("mpegts", "mpeg")
_REORDERED = ("h264", "hevc")
# Packets come in the order of decoding. The frame that follows one on screen is at most so many behind it:
# codecs reorder over 16 frames.
_AHEAD = 32
# A clock that goes back by more than this has been started again; in such a stream, ahead by more than that.
_LEAP_BACK_S, _LEAP_AHEAD_S = 1, 10
# The first picture of a stream may come so much later than the stream is said to start, and no more.
_LATE_S = 1.0
# Of what lies behind the last place in an index so much is read to find the end.
_MOST_READ = 32 << 20
_FAR_S = 1e6
# Times closer than this are the same.
_SAME_S = 1e-6


class Decoder:
    """Reads one stream of an open container. Times are seconds from the start of the stream.

    Attributes:
        frames_decoded, frames_corrupt: counted as it goes.
        broke_off: True once the container could not be read on.
        seekable: False once it is known that times do not tell places.
        last_place: of the last packet when all were walked, bytes from the start of the file.
        late_s: by how much the first picture comes later than the stream is said to start.
    """

    def __init__(self, container: Any, stream: Any, limits: Limits) -> None:
        self.frames_decoded = 0
        self.frames_corrupt = 0
        self.broke_off = False
        self.seekable = True
        self.late_s, self.last_place = 0.0, 0
        self._container, self._stream, self._limits = container, stream, limits
        self._base: Fraction | None = stream.time_base
        # An AVI holds no time of presentation: what FFmpeg makes up for pictures out of order is of no use.
        self._in_order = container.format.name == "avi" and stream.codec_context.name in _REORDERED
        start = None if self._in_order else stream.start_time
        self._start_s = float(start * self._base) if start is not None and self._base else None
        self._begin = int(stream.start_time or 0)
        self._targets: Sequence[float] | None = None
        self._pending: list[av.VideoFrame] = []  # decoded, but not handed out
        self._frames: Iterator[av.VideoFrame] | None = None
        self._shift = 0  # ticks by which packets are late since the clock started again
        self._ruined = False  # the last keyframe is damaged, and what follows is built on it
        self._enterable = container.format.name in ENTERABLE
        # Where every frame stands for itself, one that is not wanted need not be decoded at all.
        self._alone = bool(stream.codec_context.codec.intra_only)

    @property
    def start_s(self) -> float:
        """When the stream starts by the clock of its container, s; 0 where it is not known."""
        return self._start_s or 0.0

    def want(self, targets: Sequence[float]) -> None:
        """Decode from here on only what the frames that are on screen at these times (rising) need."""
        self._targets = targets

    def peek(self) -> av.VideoFrame | None:
        """The next frame, which will be handed out again; None at the end."""
        if not self._pending and (frame := next(self, None)) is not None:
            self._pending = [frame]
            if self.frames_decoded == 1 and not self.frames_corrupt:
                self._start_with(frame)
        return self._pending[0] if self._pending else None

    def __iter__(self) -> Iterator[av.VideoFrame]:
        return self

    def __next__(self) -> av.VideoFrame:
        """The next frame. A damaged packet is skipped and counted, as a player does.

        Raises:
            VideoError: encrypted, or frames over the limits.
        """
        if self._pending:
            return self._pending.pop()
        if self._frames is None:
            self._frames = self._decode()
        return next(self._frames)

    def time_s(self, frame: av.VideoFrame) -> float | None:
        """Presentation time of a frame; None where it has none. The first frame tells where time starts."""
        clock_s: float | None = frame.time
        if self._in_order:
            clock_s = None if frame.dts is None or self._base is None else float(frame.dts * self._base)
        if clock_s is None:
            return None
        if self._start_s is None:
            self._start_s = float(clock_s)
        return float(clock_s) - self._start_s

    def _start_with(self, frame: av.VideoFrame) -> None:
        """Let time start at the first picture where that comes late, as where sound comes long before it."""
        t_s = self.time_s(frame)
        if t_s is not None and t_s > _LATE_S and frame.pts is not None:
            self.late_s, self._begin = t_s, frame.pts
            self._start_s = self.start_s + t_s

    def last_packet_s(self) -> float:
        """When the last packet ends: all are walked, none is decoded. Starts again from the beginning.

        Where the clock starts again midway, as in recordings that were put together, nothing can be found by
        its time any more, and there are no jumps from here on.
        """
        self.restart()
        end = self._walked_s(float("inf"))
        self.seekable = not self._shift
        self.restart()
        return end

    def end_by_index_s(self) -> float:
        """When the last packet starts by an index that lists each of them; 0 without one."""
        entries = self._stream.index_entries
        places = [entries[i] for i in range(max(0, len(entries) - _AHEAD), len(entries))]
        return max((self._seconds(p.timestamp) for p in places if not p.is_discard), default=0.0)

    def end_by_seeking_s(self) -> float:
        """When the last packet ends, from the last place on that an index knows. Starts again."""
        try:
            self._container.seek(self._timestamp(_FAR_S), stream=self._stream, backward=True)
            return self._walked_s(_MOST_READ)
        except (av.error.FFmpegError, OverflowError):
            return 0.0
        finally:
            self.restart()

    def _walked_s(self, most: float) -> float:
        """When the last of the packets from here on ends, of at most so many bytes."""
        end, corrupt, size = 0.0, self.frames_corrupt, 0
        for packet in self._packets():
            if packet.pts is not None:
                end = max(end, self._seconds(packet.pts + (packet.duration or 0)))
            size, self.last_place = size + packet.size, packet.pos or self.last_place
            if size > most:
                break
        self.broke_off, self.frames_corrupt = False, corrupt
        return end

    def restart(self) -> None:
        """Go back to the beginning."""
        try:
            if self._enterable:  # by time one lands behind the first keyframe
                self._container.seek(0, unsupported_byte_offset=True)
            else:
                self._container.seek(self._begin, stream=self._stream, backward=True)
        except av.error.FFmpegError:  # no keyframe lies there
            self._container.seek(0, unsupported_byte_offset=True)
        self._frames, self._pending, self._shift = None, [], 0

    def key_before_s(self, target_s: float) -> float | None:
        """When the last keyframe before the target is shown, by the container's index.

        None where it has no index, infinitely early where no keyframe lies there.
        """
        entries = self._stream.index_entries
        if not len(entries) or self._base is None:
            return None
        found = entries.search_timestamp(self._timestamp(target_s), backward=True)
        return self._seconds(entries[found].timestamp) if found >= 0 else float("-inf")

    def jump(self, target_s: float, back_s: float) -> None:
        """Go on from a keyframe that lies `back_s` and more before the target.

        A transport stream has no index: a seek there lands between keyframes, and pictures come only from
        the next one on. Then further back is tried, in the end the start, and no jump from there on.
        """
        while not self._seek(target_s - back_s, target_s):
            if back_s > target_s:
                self.seekable = False
                self.restart()
                return
            back_s *= 4

    def _seek(self, wanted_s: float, target_s: float) -> bool:
        """Go to the keyframe before `wanted_s`; False if there is no picture from there to the target."""
        try:
            self._container.seek(self._timestamp(wanted_s), stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return True  # not seekable: the forward pass goes on from here
        corrupt, self._frames, self._pending = self.frames_corrupt, None, []
        landed = self._key_frame_until(target_s)
        self.frames_corrupt = corrupt  # what a landing between keyframes breaks is no damage
        self._pending = [landed] if landed is not None else []
        return landed is not None

    def _key_frame_until(self, target_s: float) -> av.VideoFrame | None:
        for frame in self:
            t_s = self.time_s(frame)
            if t_s is not None and t_s > target_s + _SAME_S:
                return None
            if frame.key_frame or t_s is None or self._is_recovered(frame):
                return frame
        return None

    def _is_recovered(self, frame: av.VideoFrame) -> bool:
        """True for H.264 that is refreshed bit by bit: its index leads to where that begins."""
        indexed = not self._enterable and len(self._stream.index_entries) > 0
        return indexed and self._stream.codec_context.name == "h264" and not frame.is_corrupt

    def _timestamp(self, seconds: float) -> int:
        return int((seconds + (self._start_s or 0.0)) / float(self._base or 1))

    def _seconds(self, timestamp: int) -> float:
        return float(timestamp * (self._base or 1)) - (self._start_s or 0.0)

    def _packets(self) -> Iterator[Any]:
        packets, last, place = self._container.demux(self._stream), None, 0
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError):
                self.broke_off = True
                self.frames_corrupt += 1
                return
            except IndexError:  # PyAV, at the end, where a stream came that was not there at first
                return
            if packet is None:
                return
            if packet.dts is not None and packet.pts is not None:
                if last is not None and self._is_leap(packet.dts + self._shift - last):
                    if packet.pos is not None and packet.pos < place:
                        continue  # the end of what went on under another number, let go of with the last
                    self._shift = last + (packet.duration or 1) - packet.dts
                try:
                    packet.dts, packet.pts = packet.dts + self._shift, packet.pts + self._shift
                except OverflowError:  # no clock tells such a time
                    self.broke_off = True
                    self.frames_corrupt += 1
                    return
                last, place = packet.dts, packet.pos or place
            yield packet

    def _is_leap(self, ticks: int) -> bool:
        seconds = float(ticks * (self._base or 1))
        return seconds < -_LEAP_BACK_S or (seconds > _LEAP_AHEAD_S and self._enterable)

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet, until in _with_end_of_show(self._packets()):
            if packet.has_sidedata("encryption_info"):
                raise VideoError(Reason.ENCRYPTED, "the video is encrypted, and its key is not here")
            wanted = until is None or self._in_order or self._is_wanted(packet.pts, until)
            if wanted or not self._alone:
                self._stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
                yield from self._frames_of(packet)
        if self.broke_off:  # then no packet came that lets go of what the decoder holds
            yield from self._frames_of(None)

    def _frames_of(self, packet: Any) -> Iterator[av.VideoFrame]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.MemoryError as error:
            raise VideoError(Reason.DECODE_MEMORY, "decoding needs more memory than allowed") from error
        except av.error.FFmpegError:
            context = self._stream.codec_context
            refuse_large(context.width, context.height, self._limits)  # it was, where they grow in midstream
            self.frames_corrupt += 1
            self._ruined |= packet is not None and packet.is_keyframe
            return
        for frame in frames:
            refuse_large(frame.width, frame.height, self._limits)
            if frame.key_frame:
                self._ruined = frame.is_corrupt
            self.frames_decoded += 1
            self.frames_corrupt += bool(frame.is_corrupt or self._ruined)
            yield frame

    def _is_wanted(self, pts: int, until: float) -> bool:
        """Whether a frame that is shown from `pts` to `until` is on screen at one of the wanted times."""
        if self._targets is None:
            return True
        after = bisect_left(self._targets, self._seconds(pts) - _SAME_S)
        end = until if until == float("inf") else self._seconds(int(until))
        return after < len(self._targets) and self._targets[after] < end + _SAME_S


def _with_end_of_show(packets: Iterator[Any]) -> Iterator[tuple[Any, float | None]]:
    """Each packet with the time stamp of what is shown next: infinite at the end, None if it has no time."""
    ahead: deque[Any] = deque()
    for packet in packets:
        ahead.append(packet)
        if len(ahead) > _AHEAD:
            yield _first_with_end(ahead)
    while ahead:
        yield _first_with_end(ahead)


def _first_with_end(ahead: deque[Any]) -> tuple[Any, float | None]:
    packet = ahead.popleft()
    if packet.pts is None:
        return packet, None
    return packet, min(
        (p.pts for p in ahead if p.pts is not None and p.pts > packet.pts), default=float("inf")
    )
