"""Pictures for people: veiled, with boxes around faces, with a heat map over them. Nothing here is scored."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.types import TimedBox

Picture = NDArray[np.uint8]
"""`[H, W, 3] uint8 RGB`."""

_VEIL = 1 / 14
"""Blur of a veiled picture, sigma in parts of its side: a face is still seen to be one, but not whose."""
_QUALITY = 88
_HEAT_PX = 224
_OVER = 0.5
_BOX = (255, 214, 10)
_OUTLINE = (20, 20, 20)


def veiled(picture: Picture, parts: float = 1.0) -> Picture:
    """Grey and blurred; `parts`: how large a face is in it."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(grey, (0, 0), max(1.0, min(picture.shape[:2]) * parts * _VEIL))
    return np.asarray(cv2.cvtColor(blurred, cv2.COLOR_GRAY2RGB), np.uint8)


def with_boxes(still: Picture, boxes: Sequence[tuple[str, TimedBox]]) -> Picture:
    """A whole frame with boxes, each with a word beside it."""
    picture = still.copy()
    height, width = picture.shape[:2]
    for word, box in boxes:
        left, upper = round(box.x * width), round(box.y * height)
        corner = (round((box.x + box.w) * width), round((box.y + box.h) * height))
        for colour, thickness in ((_OUTLINE, 4), (_BOX, 2)):
            cv2.rectangle(picture, (left, upper), corner, colour, thickness)
        at = (max(2, left), upper - 5 if upper > 16 else min(height - 4, corner[1] + 14))
        for colour, thickness in ((_OUTLINE, 3), (_BOX, 1)):
            cv2.putText(picture, word, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
    return picture


def with_heat(crop: Picture, heat: NDArray[np.float32]) -> tuple[Picture, Picture, Picture]:
    """A crop, its map, and the map over it, all of one size.

    Args:
        crop: `[H, W, 3] uint8 RGB`.
        heat: `[H, W] float32` in [0, 1].
    """
    size = (_HEAT_PX, _HEAT_PX)
    shown = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    level = (255 * cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    over = cv2.addWeighted(shown, 1 - _OVER, np.asarray(coloured, np.uint8), _OVER, 0)
    return shown, np.asarray(coloured, np.uint8), np.asarray(over, np.uint8)


def jpeg(picture: Picture) -> bytes:
    """A picture as a JPEG file."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
