"""Where the faces of a window are: which of its frames are looked at, and how closely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from detector.faces import Look
from detector.picture import Picture
from detector.tracks import match
from detector.types import FaceBox

# Of so many frames one is looked at, as long as the faces on both sides are the same and still overlap
# (`make soak BAR=persons` holds what comes out against a look at every frame). A face that is there only in
# between is too short to be scored.
_STEP = 3
_STEADY_IOU = 0.3
# Faces smaller than this in the whole window are looked for once more at full size.
_SMALL_FACE_PX = 48
# Of a window, the frames that decide whether a look at full size pays: by more faces, or clearer ones.
_FULL_SIZE_TRIALS = 2
_WORTH_IT = 1.1
# A look at full size: at two thirds of it the smallest face that is scored still has 27 px, which is enough.
_CLOSE, _CLOSE_PX = 2 / 3, 1280
# The usual look loses faces that are large enough to be scored where it shrinks a frame by more than this.
_MUCH_SMALLER = 2


def find_faces(
    pictures: Sequence[Picture], scenes: Sequence[int], look: Look, *, closely: bool
) -> list[list[FaceBox]]:
    """Boxes in each frame of a window; at full size where that shows more.

    Args:
        pictures: the frames, in order.
        scenes: the scene of each; nothing is carried over a cut.
        look: the detector.
        closely: try at full size what faces there are besides large ones.
    """

    def usual(position: int) -> list[FaceBox]:
        return _look_at(pictures[position], look, full=False)

    def closer(position: int) -> list[FaceBox]:
        return trials[position] if position in trials else _look_at(pictures[position], look, full=True)

    if not pictures:
        return []
    found = _sparsely(scenes, usual)
    if max((box.side for boxes in found for box in boxes), default=0.0) < _SMALL_FACE_PX:
        tried = range(0, len(pictures), max(1, len(pictures) // _FULL_SIZE_TRIALS))
    elif closely and max(pictures[0].width, pictures[0].height) > _MUCH_SMALLER * look.usual_px:
        tried = range(len(pictures) // 2, len(pictures) // 2 + 1)
    else:
        return found
    trials = {i: _look_at(pictures[i], look, full=True) for i in tried}
    pays = any(_evidence(boxes) > _WORTH_IT * _evidence(found[i]) for i, boxes in trials.items())
    return _sparsely(scenes, closer) if pays else found


def _evidence(boxes: Sequence[FaceBox]) -> float:
    return sum(box.score for box in boxes)


def _look_at(picture: Picture, look: Look, *, full: bool) -> list[FaceBox]:
    closest = min(look.full_px, max(_CLOSE_PX, round(_CLOSE * max(picture.width, picture.height))))
    rgb = picture.shrunk(closest if full else look.usual_px)
    x, y = picture.width / rgb.shape[1], picture.height / rgb.shape[0]
    return [FaceBox(b.x * x, b.y * y, b.w * x, b.h * y, b.score) for b in look(rgb, full)]


def _sparsely(scenes: Sequence[int], look_at: Callable[[int], list[FaceBox]]) -> list[list[FaceBox]]:
    """Boxes of all frames, most of them by interpolation where little moves."""
    last = len(scenes) - 1
    found = {position: look_at(position) for position in sorted({*range(0, last, _STEP), last} - {-1})}
    gaps = list(pairwise(sorted(found)))
    while gaps:
        before, after = gaps.pop()
        if after - before < 2:
            continue
        same = match(found[before], found[after], _STEADY_IOU)
        steady = len(same) == len(found[before]) == len(found[after]) and scenes[before] == scenes[after]
        if not steady:
            middle = (before + after) // 2
            found[middle] = look_at(middle)
            gaps += [(before, middle), (middle, after)]
            continue
        for position in range(before + 1, after):
            part = (position - before) / (after - before)
            found[position] = [_between(found[before][i], found[after][j], part) for i, j in same.items()]
    return [found[position] for position in range(len(scenes))]


def _between(a: FaceBox, b: FaceBox, part: float) -> FaceBox:
    x, y, w, h, score = (
        p + (q - p) * part for p, q in zip((*a.xywh, a.score), (*b.xywh, b.score), strict=True)
    )
    return FaceBox(x, y, w, h, score)
