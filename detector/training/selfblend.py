"""Fakes made from a real picture alone: a changed copy of it is pasted back through a soft mask.

What is left to find is what every face swap leaves: a border, and two sides that differ in colour,
sharpness or geometry. After Shiohara and Yamasaki 2022 (arXiv 2204.08376), written from its description;
without landmarks, the outlines are guessed from the place of the face in the crop. Some families of masks,
changes, warps and joins are never trained on (`Families.held_out`): they measure whether more was learned
than the hand of one blender.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.degrade import Picture
from detector.training.blendparts import (
    CHANGES,
    SHAPES,
    WARPS,
    Change,
    Join,
    Mask,
    Shape,
    Values,
    Warp,
    clipped,
)

_Kind = TypeVar("_Kind", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Families:
    """What a blend may be drawn from."""

    shapes: tuple[Shape, ...]
    changes: tuple[Change, ...]
    warps: tuple[Warp, ...]
    joins: tuple[Join, ...]
    strengths: tuple[float, ...]
    """Opacity of what is pasted, each as likely."""

    @classmethod
    def training(cls) -> Families:
        """Those that are trained on. A quarter of the opacity, as in the paper, left nothing to see here."""
        return cls(
            shapes=(Shape.OVAL, Shape.LOWER, Shape.BAND, Shape.BLOBS),
            changes=(Change.COLOUR, Change.CONTRAST, Change.DOWNSCALE, Change.SHARPEN),
            warps=(Warp.SIMILARITY,),
            joins=(Join.FEATHER,),
            strengths=(0.5, 0.75, 1.0, 1.0, 1.0),
        )

    @classmethod
    def held_out(cls) -> Families:
        """Those that only validation sees."""
        return cls(
            shapes=(Shape.HULL, Shape.PATCHES),
            changes=(Change.GAMMA, Change.COMPRESS),
            warps=(Warp.STRETCH, Warp.PERSPECTIVE),
            joins=(Join.FEATHER, Join.POISSON),
            strengths=(0.25, 0.5, 0.75, 1.0, 1.0, 1.0),
        )


@dataclass(frozen=True, slots=True)
class Blend:
    """One blend with all its parameters; held over the frames of a clip."""

    mask: Mask
    """Soft, already moved; what is pasted."""
    matrix: NDArray[np.float64]
    """[3, 3], px to px of a picture of the mask's size: moves what is pasted."""
    changes: tuple[tuple[Change, Values], ...]
    """Kind and how much."""
    changes_pasted: bool
    """The pasted copy is the changed one; else the copy below, which then is the paired real."""
    join: Join
    strength: float = 1.0
    """Opacity of what is pasted."""


def self_blend(real: Picture, families: Families, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """A pair of the same size: a real, whose colours may be changed, and the fake that was pasted onto it."""
    return apply(real, draw_blend(rng, families, real.shape[0]))


def draw_blend(rng: np.random.Generator, families: Families, size: int) -> Blend:
    """A random blend for square pictures of `size` px."""
    matrix = WARPS[_pick(families.warps, rng)](rng, size)
    outline = SHAPES[_pick(families.shapes, rng)](rng, size)
    moved = np.asarray(cv2.warpPerspective(outline, matrix, (size, size)), np.float32)
    drawn = [change for change in families.changes if rng.random() < 0.4] or [_pick(families.changes, rng)]
    changes = tuple((change, _three(rng)) for change in drawn)
    return Blend(
        mask=_soften(_elastic(moved, rng), rng),
        matrix=matrix,
        changes=changes,
        changes_pasted=bool(rng.random() < 0.5),
        join=_pick(families.joins, rng),
        strength=float(rng.choice(families.strengths)),
    )


def apply(picture: Picture, blend: Blend) -> tuple[Picture, Picture]:
    """The real and the fake that a blend makes of a picture of its size."""
    size = picture.shape[0]
    changed = picture
    for change, values in blend.changes:
        changed = CHANGES[change](changed, values)
    pasted, below = (changed, picture) if blend.changes_pasted else (picture, changed)
    pasted = np.asarray(
        cv2.warpPerspective(pasted, blend.matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101), np.uint8
    )
    return below, _join(pasted, below, blend)


def blend_clip(
    frames: NDArray[np.uint8], families: Families, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """The same for a clip [T, S, S, 3] uint8: real clip, fake clip, and which frames [T] are false.

    One blend is drawn for the clip. A third of the clips holds it still, a third lets it tremble from frame
    to frame, and in a third it covers only some of the frames in a row.
    """
    count, size = frames.shape[:2]
    blend = draw_blend(rng, families, size)
    mode = rng.integers(3)
    false = np.ones(count, np.bool_)
    if mode == 2 and count > 1:
        length = int(rng.integers(max(1, count // 3), count))
        start = int(rng.integers(0, count - length + 1))
        false[:] = False
        false[start : start + length] = True
    shift = np.zeros(2)
    pairs = []
    for frame in frames:
        if mode == 1:
            shift = 0.7 * shift + rng.normal(0, 0.006 * size, 2)
        pairs.append(apply(frame, _shifted(blend, shift)))
    reals = np.stack([real for real, _ in pairs])
    fakes = np.stack(
        [fake if is_false else real for (real, fake), is_false in zip(pairs, false, strict=True)]
    )
    return reals, fakes, false


def _shifted(blend: Blend, shift: NDArray[np.float64]) -> Blend:
    if not shift.any():
        return blend
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], np.float64)
    size = blend.mask.shape[0]
    mask = np.asarray(cv2.warpPerspective(blend.mask, move, (size, size)), np.float32)
    return replace(blend, mask=mask, matrix=move @ blend.matrix)


def _pick(choices: tuple[_Kind, ...], rng: np.random.Generator) -> _Kind:
    return choices[int(rng.integers(len(choices)))]


def _three(rng: np.random.Generator) -> Values:
    first, second, third = rng.uniform(-1, 1, 3)
    return float(first), float(second), float(third)


def _elastic(mask: Mask, rng: np.random.Generator) -> Mask:
    """Bends the outline by some pixels: noise of sigma 7 px, amplitude 50."""
    size = mask.shape[0]
    noise = rng.uniform(-1, 1, (2, size, size)).astype(np.float32)
    x, y = (cv2.GaussianBlur(field, (0, 0), 7.0) * 50 for field in noise)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    return np.asarray(cv2.remap(mask, columns + x, rows + y, cv2.INTER_LINEAR), np.float32)


def _soften(mask: Mask, rng: np.random.Generator) -> Mask:
    size = mask.shape[0]
    width, height = (max(8, round(float(part) * size)) for part in rng.uniform(0.8, 1.25, 2))
    soft = np.asarray(cv2.resize(mask, (width, height)), np.float32)
    kernel = _odd(rng)
    inside = np.asarray(cv2.GaussianBlur(soft, (kernel, kernel), 0), np.float32)
    shrunk = (inside >= 0.999 * inside.max()).astype(np.float32) if inside.max() > 0 else soft
    kernel = _odd(rng)
    soft = np.asarray(cv2.GaussianBlur(shrunk, (kernel, kernel), float(rng.uniform(5, 45))), np.float32)
    soft /= max(float(soft.max()), 1e-6)
    return np.clip(np.asarray(cv2.resize(soft, (size, size)), np.float32), 0, 1)


def _odd(rng: np.random.Generator) -> int:
    return int(rng.integers(2, 13)) * 2 + 1


def _join(pasted: Picture, below: Picture, blend: Blend) -> Picture:
    if blend.join is Join.POISSON:
        cloned = _poisson(pasted, below, blend.mask)
        if cloned is not None:
            return cloned
    opacity = (blend.mask * blend.strength)[..., None]
    return clipped(opacity * pasted.astype(np.float32) + (1 - opacity) * below.astype(np.float32))


def _poisson(pasted: Picture, below: Picture, mask: Mask) -> Picture | None:
    """Gradient-domain paste; None where the mask leaves too little to paste."""
    hard = ((mask > 0.5) * 255).astype(np.uint8)
    hard[:2] = hard[-2:] = 0  # OpenCV wants a border that is not pasted on
    hard[:, :2] = hard[:, -2:] = 0
    x, y, w, h = cv2.boundingRect(hard)
    if w < 8 or h < 8:
        return None
    middle = (x + w // 2, y + h // 2)
    return np.asarray(cv2.seamlessClone(pasted, below, hard, middle, cv2.NORMAL_CLONE), np.uint8)
