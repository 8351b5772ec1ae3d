"""Pictures for the tests and for `make demo`: faces that move, made from scikit-image's astronaut.

Nothing here needs a network, and the same arguments give the same pictures. `tests/media.py` writes
them to files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.data import astronaut

Frame = NDArray[np.uint8]  # [H, W, 3] RGB
Floats = NDArray[np.float32]
Size = tuple[int, int]  # width, height in px

FACE = (178, 63, 90, 113)  # YuNet's box in the portrait: x, y, width, height in px
HEAD = (95, 0, 256, 300)  # what is cut out around it, down to the collar
BACKGROUNDS = ("plain", "gradient", "noise")


@dataclass(frozen=True, slots=True)
class Actor:
    """One face in a film: where it is, how much it moves and what light falls on it."""

    face_px: float = 120  # height of the box that YuNet draws, in px of the displayed frame
    seed: int = 0  # phases of its movements
    light: float = 0.3  # 0: even light; 1: strong swings of brightness, side and colour
    motion: float = 1.0  # 0: still; 1: wanders about half a face each way, zooms by 12 %, tilts by 8 degrees
    centre: tuple[float, float] = (0.5, 0.5)  # of the face, as fractions of the frame
    other_person: bool = False
    blended: bool = False  # a warped, recoloured copy of the face is blended over it


def portrait(other_person: bool = False) -> Frame:
    """The astronaut, uint8 [512, 512, 3] RGB; `other_person`: mirrored, darker skin and hair."""
    picture: Frame = astronaut()  # type: ignore[no-untyped-call]
    if not other_person:
        return picture
    return _bytes((picture[:, ::-1] / 255) ** 1.6 * (235, 205, 185))


def _bytes(values: Any) -> Frame:
    """Any numbers as uint8, held to 0-255."""
    return np.asarray(np.clip(values, 0, 255), np.uint8)


@lru_cache(maxsize=16)
def _head(face_px: float, other_person: bool) -> Floats:
    """The cut-out head, face `face_px` high: float32 [h, w, 4] 0-255, RGB times alpha (no rim), alpha."""
    x, y, w, h = HEAD
    alpha = _soft_ellipses((512, 512), 6, ((227, 92), (158, 178)), ((212, 232), (205, 118)))
    alpha[:12] *= np.linspace(0, 1, 12)[:, None]  # the portrait ends 15 px above the hair
    if other_person:
        alpha = alpha[:, ::-1]
        x = 512 - x - w
    white = np.full((512, 512), 255)
    rgba = (np.dstack([portrait(other_person), white]) * alpha[..., None])[y : y + h, x : x + w]
    scale = face_px / FACE[3]
    size = (round(w * scale * (1.08 if other_person else 1)), round(h * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgba, size, interpolation=way), np.float32)


def _soft_ellipses(shape: tuple[int, int], blur: float, *ellipses: tuple[Any, Any]) -> Floats:
    """A mask, float32 [h, w] 0-1: ellipses (centre, axes) in px whose edge is blurred by `blur` px."""
    mask = np.zeros(shape, np.float32)
    for centre, axes in ellipses:
        cv2.ellipse(mask, (centre, axes, 0), (1.0,), -1)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur), np.float32)


def _wave(actor: Actor, which: int, seconds: float) -> float:
    """A slow swing in -1..1, another one for each `which` and seed."""
    speed, phase = np.random.default_rng([actor.seed, which]).uniform((0.2, 0), (0.5, 2 * np.pi))
    return float(np.sin(2 * np.pi * speed * seconds + phase))


def _blend(head: Floats, anchor: tuple[float, float], actor: Actor, t: float) -> Floats:
    """`head` with a warped and recoloured copy of its face blended over it; the seam trembles a little."""
    height, width = head.shape[:2]
    (x, y), px = anchor, actor.face_px
    warp = cv2.getRotationMatrix2D((x, y), 3.0, 1.05)
    warp[:, 2] += np.array((0.03 * px, 0.02 * px * _wave(actor, 7, 4 * t)))
    copy = cv2.warpAffine(head, warp, (width, height)) * np.array((1.12, 0.99, 0.88, 1), np.float32)
    face = ((x, y + 0.04 * px), (0.72 * px, 0.86 * px))
    mask = _soft_ellipses((height, width), max(0.02 * px, 0.5), face)[..., None]
    return head + mask * (copy - head)


def _lit(head: Floats, actor: Actor, t: float) -> Frame:
    """`head` as uint8 [h, w, 4] in the light of second `t`: brighter or darker, from a side, warm or cold."""
    side = np.linspace(-1, 1, head.shape[1], dtype=np.float32)[:, None]
    gain = 1 + actor.light * (0.3 * _wave(actor, 4, t) + 0.4 * _wave(actor, 5, t) * side)
    warmth = 0.12 * actor.light * _wave(actor, 6, t)
    gains = np.ones((head.shape[1], 4), np.float32)
    gains[:, :3] = gain * np.array((1 + warmth, 1, 1 - warmth))
    return np.asarray(cv2.convertScaleAbs(head * gains), np.uint8)  # rounds, and holds to 255


def _place(actor: Actor, anchor: tuple[float, float], size: Size, t: float) -> NDArray[np.float64]:
    """The 2 x 3 matrix from px of the head to px of the frame; `anchor`: middle of the face in the head."""
    zoom, tilt = 1 + 0.12 * actor.motion * _wave(actor, 2, t), 8 * actor.motion * _wave(actor, 3, t)
    matrix = np.asarray(cv2.getRotationMatrix2D(anchor, tilt, zoom), np.float64)
    for axis, room in enumerate((0.6, 0.7)):  # in faces between the middle of the face and the frame's edge
        length, edge = size[axis], room * actor.face_px
        at = length * actor.centre[axis] + 0.5 * actor.face_px * actor.motion * _wave(actor, axis, t)
        matrix[axis, 2] += min(max(at, edge), max(length - edge, length / 2)) - anchor[axis]
    return matrix


def _draw(frame: Frame, actor: Actor, t: float) -> None:
    """Draws the actor as at second `t` into `frame`, in place; the face box stays inside the frame."""
    height, width = frame.shape[:2]
    head = _head(actor.face_px, actor.other_person)
    fx, fy = ((FACE[i] + FACE[i + 2] / 2 - HEAD[i]) / HEAD[i + 2] for i in (0, 1))
    anchor = ((1 - fx if actor.other_person else fx) * head.shape[1], fy * head.shape[0])
    if actor.blended:
        head = _blend(head, anchor, actor, t)
    matrix = _place(actor, anchor, (width, height), t)

    middle = matrix @ (head.shape[1] / 2, head.shape[0] / 2, 1)
    reach = np.abs(matrix[:, :2]) @ head.shape[1::-1] / 2
    x0, y0 = np.maximum(np.floor(middle - reach), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(middle + reach), (width, height)).astype(int)
    matrix[:, 2] -= x0, y0
    warped = cv2.warpAffine(_lit(head, actor, t), matrix, (int(x1 - x0), int(y1 - y0)))
    region = frame[y0:y1, x0:x1]
    behind = cv2.cvtColor(255 - warped[..., 3], cv2.COLOR_GRAY2RGB)
    region[:] = cv2.add(cv2.multiply(region, behind, scale=1 / 255), warped[..., :3])


def _background(kind: str, size: Size, seed: int) -> Frame:
    """A still background, uint8 [H, W, 3] RGB: `plain`, `gradient` or `noise` (coarse and soft)."""
    width, height = size
    random = np.random.default_rng([seed, 100])
    one, two = random.uniform(60, 200, (2, 3))
    if kind == "plain":
        return np.full((height, width, 3), one, np.uint8)
    if kind == "noise":
        coarse = random.normal((one + two) / 2, 14, (max(height // 12, 2), max(width // 12, 2), 3))
        grain = random.normal(0, 5, (height, width, 1))
        return _bytes(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) + grain)
    ramp = (np.linspace(0, 1, width)[None, :, None] + np.linspace(0, 1, height)[:, None, None]) / 2
    return _bytes(one + ramp * (two - one))


def film(
    n_frames: int, size: Size, fps: float, actors: Sequence[Actor], background: str | None = None
) -> Iterator[Frame]:
    """Yields uint8 [H, W, 3] RGB, so that long films need no memory; `background`: one of BACKGROUNDS."""
    seed = actors[0].seed if actors else 0
    still = _background(background or BACKGROUNDS[seed % len(BACKGROUNDS)], size, seed)
    for index in range(n_frames):
        frame = still.copy()
        for actor in actors:
            _draw(frame, actor, index / fps)
        yield frame


def moving_face(
    n_frames: int,
    size: Size = (640, 360),
    fps: float = 25,
    face_px: float = 120,
    seed: int = 0,
    light: float = 0.3,
) -> list[Frame]:
    """One face that moves, zooms, tilts and changes its light: n_frames x uint8 [H, W, 3] RGB."""
    return list(film(n_frames, size, fps, [Actor(face_px, seed, light)]))


def two_faces(
    n_frames: int,
    size: Size = (640, 360),
    fps: float = 25,
    face_px: float = 100,
    seed: int = 0,
    light: float = 0.3,
) -> list[Frame]:
    """Two people side by side, the second mirrored, broader and darker: n_frames x uint8 [H, W, 3] RGB."""
    left = Actor(face_px, seed, light, motion=0.5, centre=(0.27, 0.5))
    right = replace(left, seed=seed + 1000, centre=(0.73, 0.45), other_person=True)
    return list(film(n_frames, size, fps, [left, right]))


def self_blended(
    n_frames: int,
    size: Size = (640, 360),
    fps: float = 25,
    face_px: float = 120,
    seed: int = 0,
    light: float = 0.3,
) -> list[Frame]:
    """One face with a warped, recoloured copy of itself blended over it: n_frames x uint8 [H, W, 3] RGB."""
    return list(film(n_frames, size, fps, [Actor(face_px, seed, light, blended=True)]))


def no_face(n_frames: int, size: Size = (640, 360), fps: float = 25, seed: int = 0) -> list[Frame]:
    """Gradients that move and nobody in them: n_frames x uint8 [H, W, 3] RGB."""
    width, height = size
    x, y = np.linspace(0, 2 * np.pi, width)[None, :, None], np.linspace(0, np.pi, height)[:, None, None]
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 3)
    return [
        _bytes(127 + 60 * np.sin(x + i / fps + phases) + 50 * np.sin(y - 0.7 * i / fps))
        for i in range(n_frames)
    ]
