"""A face box and a picture -> the square that the network sees: one code path for scan and training."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.picture import Picture
from detector.types import CropSpec, FaceBox


def crop_region(box: FaceBox, width: int, height: int, spec: CropSpec) -> tuple[int, int, int, int]:
    """The region to cut, whole px inside the frame: x, y, w, h.

    A square of `scale` times the box's longer side whose centre lies `shift_y` of its side below the box's
    centre; moved inside the frame where it leans out, shrunk only where the frame is smaller.
    """
    centre_x, centre_y = box.x + box.w / 2, box.y + box.h / 2
    if spec.square:
        side = min(max(1, round(box.side * spec.scale)), width, height)
        w = h = side
    else:
        w = min(max(1, round(box.w * spec.scale)), width)
        h = min(max(1, round(box.h * spec.scale)), height)
    x = min(max(0, round(centre_x - w / 2)), width - w)
    y = min(max(0, round(centre_y + spec.shift_y * h - h / 2)), height - h)
    return x, y, w, h


def crop(picture: Picture, box: FaceBox, spec: CropSpec) -> NDArray[np.uint8]:
    """Cut a face, in px of the displayed picture, and resize it: `[size, size, 3] uint8 RGB`."""
    return resize(picture.region(*crop_region(box, picture.width, picture.height, spec)), spec.size)


def resize(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize to `[size, size, 3] uint8`: by area where it shrinks, bilinear where it grows."""
    shrinks = min(rgb.shape[:2]) >= size
    resized = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
