"""The parts that a self-blended fake is put together from: outlines, warps, and changes of one copy."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.degrade import Picture, jpeg

Mask = NDArray[np.float32]
"""[H, W] float32, 0 to 1."""
Points = NDArray[np.float64]
"""[N, 2], x and y as fractions of the crop."""
Values = tuple[float, float, float]
"""How much, in -1..1: one value for each channel where a change treats them apart, else the first counts."""


class Shape(StrEnum):
    """Outline of what is pasted."""

    OVAL = "oval"
    LOWER = "lower"
    BAND = "band"
    BLOBS = "blobs"
    HULL = "hull"
    PATCHES = "patches"


class Change(StrEnum):
    """How one of the two copies differs from the other."""

    COLOUR = "colour"
    CONTRAST = "contrast"
    DOWNSCALE = "downscale"
    SHARPEN = "sharpen"
    GAMMA = "gamma"
    COMPRESS = "compress"


class Warp(StrEnum):
    """How what is pasted is moved."""

    SIMILARITY = "similarity"
    STRETCH = "stretch"
    PERSPECTIVE = "perspective"


class Join(StrEnum):
    """How the two are put together."""

    FEATHER = "feather"
    POISSON = "poisson"


# Outlines. The face of a labelled crop is centred at (.51, .47) and a little taller than the crop.


def _fill(outlines: list[Points], size: int) -> Mask:
    mask = np.zeros((size, size), np.float32)
    for outline in outlines:
        cv2.fillPoly(mask, [np.rint(outline * size).astype(np.int32)], (1.0,))
    return mask


def _superellipse(
    rng: np.random.Generator, centre: tuple[float, float], half: tuple[float, float], points: int = 40
) -> Points:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    exponent = 2 / rng.uniform(2, 3)
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** exponent
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** exponent
    return np.stack([centre[0] + half[0] * x, centre[1] + half[1] * y], axis=1)


def _face(rng: np.random.Generator) -> Points:
    centre = (0.51 + rng.uniform(-0.03, 0.03), 0.50 + rng.uniform(-0.05, 0.05))
    return _superellipse(rng, centre, (rng.uniform(0.27, 0.42), rng.uniform(0.32, 0.5)))


def _oval(rng: np.random.Generator, size: int) -> Mask:
    return _fill([_face(rng)], size)


def _lower(rng: np.random.Generator, size: int) -> Mask:
    mask = _fill([_face(rng)], size)
    mask[: round(rng.uniform(0.4, 0.6) * size)] = 0
    return mask


def _band(rng: np.random.Generator, size: int) -> Mask:
    mask = _fill([_face(rng)], size)
    mask[: round(rng.uniform(0.12, 0.28) * size)] = 0
    mask[round(rng.uniform(0.5, 0.68) * size) :] = 0
    return mask


_EYES_NOSE_MOUTH = ((0.33, 0.38), (0.69, 0.38), (0.51, 0.55), (0.51, 0.74), (0.33, 0.6), (0.69, 0.6))


def _blobs(rng: np.random.Generator, size: int) -> Mask:
    chosen = rng.choice(len(_EYES_NOSE_MOUTH), int(rng.integers(3, 6)), replace=False)
    blobs = []
    for index in chosen:
        x, y = np.asarray(_EYES_NOSE_MOUTH[index]) + rng.uniform(-0.03, 0.03, 2)
        half = (rng.uniform(0.1, 0.2), rng.uniform(0.08, 0.17))
        blobs.append(_superellipse(rng, (float(x), float(y)), half))
    return _fill(blobs, size)


def _hull(rng: np.random.Generator, size: int) -> Mask:
    corners = _face(rng)[:: int(rng.integers(3, 5))]
    jittered = corners + rng.normal(0, 0.03, corners.shape)
    hull = cv2.convexHull(jittered.astype(np.float32))
    return _fill([np.asarray(hull, np.float64)[:, 0]], size)


def _patches(rng: np.random.Generator, size: int) -> Mask:
    patches: list[Points] = []
    for x, y in ((0.34, 0.4), (0.68, 0.4), (0.51, 0.72)):
        if rng.random() < 0.75 or not patches:
            half = np.array([rng.uniform(0.09, 0.16), rng.uniform(0.07, 0.12)])
            square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + rng.normal(0, 0.015, (4, 2))
            patches.append(square + np.array([x, y]))
    return _fill(patches, size)


SHAPES: dict[Shape, Callable[[np.random.Generator, int], Mask]] = {
    Shape.OVAL: _oval,
    Shape.LOWER: _lower,
    Shape.BAND: _band,
    Shape.BLOBS: _blobs,
    Shape.HULL: _hull,
    Shape.PATCHES: _patches,
}


# Warps: matrices in px.


def _scaled(rng: np.random.Generator, size: int, scale_x: float, scale_y: float) -> NDArray[np.float64]:
    middle = size / 2
    shift_x, shift_y = rng.uniform(-0.03, 0.03) * size, rng.uniform(-0.015, 0.015) * size
    return np.array(
        [
            [scale_x, 0, middle * (1 - scale_x) + shift_x],
            [0, scale_y, middle * (1 - scale_y) + shift_y],
            [0, 0, 1],
        ],
        np.float64,
    )


def _similarity(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    scale = rng.uniform(0.95, 1 / 0.95)
    return _scaled(rng, size, scale, scale)


def _stretch(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return _scaled(rng, size, rng.uniform(0.95, 1 / 0.95), rng.uniform(0.95, 1 / 0.95))


def _perspective(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * size
    moved = (corners + rng.uniform(-0.03, 0.03, corners.shape) * size).astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(corners, moved), np.float64)


WARPS: dict[Warp, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    Warp.SIMILARITY: _similarity,
    Warp.STRETCH: _stretch,
    Warp.PERSPECTIVE: _perspective,
}


# Changes of one copy.


def _colour(picture: Picture, values: Values) -> Picture:
    return clipped(picture.astype(np.float32) + 20 * np.asarray(values, np.float32))


def _contrast(picture: Picture, values: Values) -> Picture:
    return clipped((picture.astype(np.float32) - 127.5) * (1 + 0.15 * values[0]) + 127.5 + 15 * values[1])


def _downscale(picture: Picture, values: Values) -> Picture:
    size = picture.shape[0]
    small = round(size / (2 if values[0] < 0 else 4))
    shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _sharpen(picture: Picture, values: Values) -> Picture:
    levels = picture.astype(np.float32)
    edges = levels - np.asarray(cv2.GaussianBlur(levels, (0, 0), 1.2), np.float32)
    return clipped(levels + (0.8 + 0.5 * values[0]) * edges)


def _gamma(picture: Picture, values: Values) -> Picture:
    return clipped(255 * (picture.astype(np.float32) / 255) ** (1.25 ** values[0]))


def _compress(picture: Picture, values: Values) -> Picture:
    return jpeg(picture, round(45 + 25 * values[0]))


def clipped(levels: NDArray[np.float32]) -> Picture:
    """Grey levels rounded to uint8."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


CHANGES: dict[Change, Callable[[Picture, Values], Picture]] = {
    Change.COLOUR: _colour,
    Change.CONTRAST: _contrast,
    Change.DOWNSCALE: _downscale,
    Change.SHARPEN: _sharpen,
    Change.GAMMA: _gamma,
    Change.COMPRESS: _compress,
}
