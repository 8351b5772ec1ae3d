"""Clips from single pictures: the view drifts, nears and turns, as a held head and a tracked box do."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.degrade import Picture

_DRIFT = 0.03
"""Largest way of the view over a clip, as a share of the picture's side."""
_ZOOM = 0.04
_TURN_DEGREES = 4.0
_TREMBLE = 0.004
"""Step of the jitter that a tracker leaves from frame to frame, share of the side."""


def moving_still(picture: Picture, frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A clip [T, S, S, 3] uint8 of a square picture, with subpixel motion; borders are mirrored."""
    size = picture.shape[0]
    time = np.linspace(-0.5, 0.5, frames) if frames > 1 else np.zeros(1)
    x, y = (_path(time, _DRIFT * size, rng) + _jitter(frames, _TREMBLE * size, rng) for _ in range(2))
    zoom = np.exp(_path(time, _ZOOM, rng))
    turn = _path(time, _TURN_DEGREES, rng)
    clip = []
    for frame in range(frames):
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), float(turn[frame]), float(zoom[frame]))
        matrix[:, 2] += (x[frame], y[frame])
        clip.append(cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101))
    return np.asarray(np.stack(clip), np.uint8)


def _path(time: NDArray[np.float64], reach: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A line with a slight bend, at most `reach` from end to end, around 0."""
    slope, bend = rng.uniform(-1, 1, 2)
    return np.asarray(reach * (slope * time + 0.5 * bend * (time**2 - 1 / 12)), np.float64)


def _jitter(frames: int, step: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise that decays: a tracker's error is remembered, but not for ever."""
    noise = rng.normal(0, step, frames)
    for frame in range(1, frames):
        noise[frame] += 0.7 * noise[frame - 1]
    return np.asarray(noise, np.float64)
