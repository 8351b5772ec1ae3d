"""The numbers of a decoded frame -> the colours that a player shows on an ordinary (sRGB) screen.

Code points are those of ITU-T H.273. Sources: ITU-R BT.601, BT.709 and BT.2020 (matrices and ranges), BT.2100
(PQ and HLG), BT.2408 (reference white at 203 nits), IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Samples = NDArray[np.unsignedinteger[Any]]

# Weights of red and blue in luma, by matrix coefficients.
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
_RGB, _BT709, _BT601, _YCGCO, _BT2020 = 0, 1, 6, 8, 9
# All others, as those for XYZ and ICtCp, no player heeds.
_HEEDED = {*_LUMA, _RGB, _YCGCO}
_PQ, _HLG = 16, 18
_WHITE_NITS = 203.0
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
# Linear light, 1 = reference white, up to which colours are kept; brighter ones are pressed into the rest.
_KNEE = 0.8
_TO_BT709 = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    11: ((1.1578, -0.1489, -0.0089), (-0.0415, 1.0449, -0.0034), (-0.0178, -0.0761, 1.0939)),
    12: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How numbers stand for colours: code points of H.273, range, and bits of a sample."""

    matrix: int
    primaries: int
    transfer: int
    full_range: bool
    bits: int

    @property
    def is_known(self) -> bool:
        """False for matrices that are not a weighted sum, which the caller has to leave to FFmpeg."""
        return self.matrix in _LUMA or self.matrix == _YCGCO


def guess_matrix(told: int, transfer: int, width: int, height: int) -> int:
    """Matrix coefficients as told, else as players take them: by transfer and size of the frame."""
    if told in _HEEDED:
        return told
    if transfer in (_PQ, _HLG):
        return _BT2020
    return _BT709 if width >= 1280 or height > 576 else _BT601


def to_srgb(yuv: Samples, encoding: Encoding) -> NDArray[np.uint8]:
    """`[H, W, 3] uint8 or uint16 Y'CbCr`, chroma at full size -> `[H, W, 3] uint8 RGB`.

    High dynamic range is brought to that of a screen: reference white becomes white, what is brighter is
    pressed into the highlights.
    """
    if encoding.transfer in (_PQ, _HLG):
        return _encoded(_pressed(_linear(yuv, encoding)))
    if encoding.primaries in _TO_BT709:
        return _encoded(_linear(yuv, encoding))
    rgb = cv2.transform(yuv, _matrix(encoding, 255.0))
    return np.asarray(np.minimum(rgb, 255), np.uint8)


@lru_cache(maxsize=16)
def _matrix(encoding: Encoding, peak: float) -> Floats:
    """`[3, 4] float32`: from samples to R'G'B' in [0, peak]."""
    unit, top = 1 << (encoding.bits - 8), (1 << encoding.bits) - 1
    luma, chroma, black = (top, top, 0) if encoding.full_range else (219 * unit, 224 * unit, 16 * unit)
    scaled = _sums(encoding.matrix) / (luma, chroma, chroma)
    offset = -scaled @ (black, 128 * unit, 128 * unit)
    return np.asarray(np.column_stack([scaled, offset]) * peak, np.float32)


def _sums(matrix: int) -> NDArray[np.float64]:
    """`[3, 3]`: red, green and blue, each a sum of luma in [0, 1] and two chromas in [-0.5, 0.5]."""
    if matrix == _YCGCO:
        return np.array([[1, -1, 1], [1, 1, 0], [1, -1, -1]], np.float64)
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )


def _linear(yuv: Samples, encoding: Encoding) -> Floats:
    """Linear light in the primaries of BT.709, 1 = reference white."""
    signal = np.clip(cv2.transform(yuv.astype(np.float32), _matrix(encoding, 1.0)), 0, 1)
    light = {_PQ: _from_pq, _HLG: _from_hlg}.get(encoding.transfer, _from_srgb)(signal.astype(np.float32))
    rows = _TO_BT709.get(encoding.primaries)
    return light if rows is None else np.asarray(cv2.transform(light, np.array(rows, np.float32)), np.float32)


def _from_pq(signal: Floats) -> Floats:
    root = signal ** np.float32(1 / 78.84375)
    ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return np.asarray(ratio ** np.float32(1 / 0.1593017578125) * (10_000 / _WHITE_NITS), np.float32)


def _from_hlg(signal: Floats) -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal * signal / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array((0.2627, 0.6780, 0.0593))
    gain = luminance ** (_HLG_GAMMA - 1) * (_HLG_PEAK_NITS / _WHITE_NITS)
    return np.asarray(scene * gain[..., None], np.float32)


def _from_srgb(signal: Floats) -> Floats:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _pressed(light: Floats) -> Floats:
    """Light brighter than a screen's white, pressed below it."""
    room = 1 - _KNEE
    return np.where(light <= _KNEE, light, 1 - room * np.exp((_KNEE - np.maximum(light, _KNEE)) / room))


def _encoded(light: Floats) -> NDArray[np.uint8]:
    """Linear light -> sRGB."""
    light = np.clip(light, 0, 1)
    signal = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(signal * 255), np.uint8)
