"""One decoded frame as a player shows it, of which no more is converted than is asked for.

A frame lies in memory as planes of Y'CbCr. The detector wants all of it, small; the network wants a face at
full size. To convert whole frames to RGB first would cost more than to decode them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from detector.colour import Encoding, Samples, guess_matrix, to_srgb

_FULL_RANGE = 2
# Matrix coefficients that FFmpeg converts from; at others it gives up.
_BY_FFMPEG, _UNTOLD = (0, 1, 2, 4, 5, 6, 7, 9), 2
_SANE_ASPECT = (Fraction(1, 8), Fraction(8))


@dataclass(frozen=True, slots=True)
class Orientation:
    """What a player does to a stored frame: mirror it, then turn it counter-clockwise by quarters."""

    turns: int
    mirrored: bool

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation | None:
        """From the display matrix (ISO/IEC 14496-12, 8.3.2) that a frame carries; None without one."""
        carried: Any = frame.side_data
        for data in carried.keys():  # noqa: SIM118  # no mapping, whatever it is called
            if data.type.name == "DISPLAYMATRIX":
                a, b, _, c, d = (int(n) for n in np.frombuffer(bytes(data), np.int32)[:5])
                if a * d == b * c:  # no matrix at all
                    break
                mirrored = a * d < b * c
                if mirrored:
                    a, b = -a, -b
                return cls(round(-math.atan2(b, a) / (math.pi / 2)) % 4, mirrored)
        return None

    def apply(self, picture: Samples) -> Samples:
        """Turn `[H, W, ...]`; a view."""
        return np.rot90(picture[:, ::-1] if self.mirrored else picture, self.turns)


UPRIGHT = Orientation(0, mirrored=False)


def shown_size(frame: av.VideoFrame, aspect: Fraction | None, orientation: Orientation) -> tuple[int, int]:
    """Width and height in px at which a player shows a frame whose pixels have this aspect ratio."""
    sane = aspect and _SANE_ASPECT[0] <= aspect <= _SANE_ASPECT[1]
    width, height = max(1, round(frame.width * (aspect if aspect and sane else 1))), frame.height
    return (height, width) if orientation.turns % 2 else (width, height)


class Picture:
    """A decoded frame, to be looked at in px as displayed.

    Args:
        frame: as it was decoded.
        width, height: px as displayed. A frame of another size is brought to this one.
        orientation: what is done to it.
    """

    def __init__(
        self, frame: av.VideoFrame, width: int, height: int, orientation: Orientation = UPRIGHT
    ) -> None:
        self.width, self.height = width, height
        self._frame = frame
        self._orientation = orientation

    @cached_property
    def _encoding(self) -> Encoding | None:
        return _encoding(self._frame)

    def whole(self) -> NDArray[np.uint8]:
        """All of it at full size, `[height, width, 3] uint8 RGB`."""
        rgb = self.region(0, 0, self.width, self.height)
        return np.asarray(_resized(rgb, self.width, self.height), np.uint8)

    def shrunk(self, longest: int) -> NDArray[np.uint8]:
        """All of it with a long side of at most `longest` px, `[h, w, 3] uint8 RGB`."""
        return self._at_size(longest, self._planes)

    def glance(self, longest: int) -> NDArray[np.uint8]:
        """As `shrunk`, from few of its px: for what needs no detail."""
        return self._at_size(longest, [_thinned(plane, 2 * longest) for plane in self._planes])

    def _at_size(self, longest: int, planes: Sequence[Samples]) -> NDArray[np.uint8]:
        scale = min(1.0, longest / max(self.width, self.height))
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        stored = (height, width) if self._orientation.turns % 2 else (width, height)
        small = self._converted([_resized(plane, *stored) for plane in planes])
        return np.ascontiguousarray(self._orientation.apply(small), np.uint8)

    def region(self, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        """A part of it, px as displayed -> `[h', w', 3] uint8 RGB`, as large as it is stored."""
        turned = [self._orientation.apply(plane) for plane in self._planes]
        height, width = turned[0].shape[:2]
        left, right = _span(x, w, width / self.width, width)
        upper, lower = _span(y, h, height / self.height, height)
        return self._converted([_cut(plane, turned[0], left, upper, right, lower) for plane in turned])

    @cached_property
    def _planes(self) -> Sequence[Samples]:
        """Views of luma and chroma, of one field where frames are interlaced; or RGB in one."""
        frame = self._frame
        encoding = self._encoding
        if frame.colorspace not in _BY_FFMPEG:
            frame.colorspace = _UNTOLD
        if encoding is None:
            return (np.asarray(frame.to_ndarray(format="rgb24"), np.uint8),)
        if len(frame.planes) < 3:
            frame = frame.reformat(format="yuv444p")
        step = 2 if frame.interlaced_frame else 1
        return [_view(plane, encoding.bits)[::step] for plane in list(frame.planes)[:3]]

    def _converted(self, planes: Sequence[Samples]) -> NDArray[np.uint8]:
        """Planes of one size -> `[H, W, 3] uint8 RGB`."""
        if self._encoding is None:
            return np.asarray(planes[0], np.uint8)
        return to_srgb(np.dstack(planes), self._encoding)


def _encoding(frame: av.VideoFrame) -> Encoding | None:
    """How the frame is coded; None where it is RGB, grey, or something that only FFmpeg knows."""
    form = frame.format
    matrix = guess_matrix(frame.colorspace, frame.color_trc, frame.width, frame.height)
    encoding = Encoding(
        matrix,
        frame.color_primaries,
        frame.color_trc,
        frame.color_range == _FULL_RANGE or form.name.startswith("yuvj"),
        form.components[0].bits if len(frame.planes) >= 3 else 8,
    )
    three = len(form.components) >= 3 and not (form.is_rgb or form.has_palette or form.is_bit_stream)
    return encoding if three and encoding.is_known and not form.is_big_endian else None


def _view(plane: av.video.plane.VideoPlane, bits: int) -> Samples:
    kind = np.dtype(np.uint8 if bits == 8 else np.uint16)
    rows = np.ndarray((plane.height, plane.line_size // kind.itemsize), kind, memoryview(plane))
    return rows[:, : plane.width]


def _thinned(plane: Samples, longest: int) -> Samples:
    """Every n-th px of a plane, not fewer than `longest` along its long side; a view."""
    step = max(1, max(plane.shape[:2]) // longest)
    return plane[::step, ::step]


def _span(start: int, length: int, scale: float, end: int) -> tuple[int, int]:
    """A stretch of px as displayed in px as stored; at least one."""
    first = min(round(start * scale), end - 1)
    return first, min(max(first + 1, round((start + length) * scale)), end)


def _cut(plane: Samples, luma: Samples, left: int, upper: int, right: int, lower: int) -> Samples:
    """A rectangle given in px of `luma`, at its size, out of a plane of the same or less resolution."""
    if plane.shape[:2] == luma.shape[:2]:
        return plane[upper:lower, left:right]
    across, down = (-(-luma.shape[axis] // plane.shape[axis]) for axis in (1, 0))
    # One sample more on each side, so that a part shows what the whole does.
    x, y = max(0, left // across - 1), max(0, upper // down - 1)
    part = plane[y : -(-lower // down) + 1, x : -(-right // across) + 1]
    full = _resized(part, part.shape[1] * across, part.shape[0] * down)
    return full[upper - y * down : lower - y * down, left - x * across : right - x * across]


def _resized(plane: Samples, width: int, height: int) -> Samples:
    if plane.shape[:2] == (height, width):
        return plane
    # Averaging costs five times as much, and without it nothing is missed until every second px is.
    by_area = plane.shape[1] >= 2 * width or plane.shape[0] >= 2 * height
    how = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
    return cast(Samples, cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=how))
