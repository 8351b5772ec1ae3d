"""Sparse face boxes -> tracks within a window -> persons over all windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from detector.faces import START_SCORE
from detector.types import FaceBox

# Boxes of neighbouring sampled frames belong to one face from this overlap on.
_LINK_IOU = 0.2
# A face that crosses the frame overlaps with itself no more: of those left over, one of nearly the same size
# at most so many of its sides away is the same.
_LONGEST_WAY = 1.0
_SAME_FACE = 1.25
# A face may be missed in this many sampled frames in a row; its boxes are interpolated.
_LONGEST_GAP = 3
# Two sampled frames show different scenes if this share of their colours differs and their grey thumbnails
# correlate less than this. Chosen between the closest cases seen: a dance under changing stage lights
# (0.26 and 0.96, one scene) and a cut between two people before one wall (0.29 and 0.78).
_CUT_COLOURS = 0.25
_CUT_CORRELATION = 0.9
_THUMBNAIL = (64, 36)
# The same place and a similar size in another window of the same scene: the same person.
_SAME_PLACE_SIDES = 0.75
_SAME_SIZE = 1.6


@dataclass(slots=True)
class FaceTrack:
    """One face within one window: boxes by position of the frame in the window, in px as displayed."""

    window: int
    boxes: dict[int, FaceBox]
    first_scene: int = 0
    last_scene: int = 0
    person_id: int = -1
    found: int = field(default=0)

    @property
    def last(self) -> int:
        """Position of the last frame."""
        return max(self.boxes)

    @property
    def face_px(self) -> float:
        """Median of the boxes' longer side, px."""
        return float(np.median([box.side for box in self.boxes.values()]))

    @property
    def quality(self) -> float:
        """Mean score of the detector over the frames in which it found the face, in [0, 1]."""
        return float(np.mean([box.score for box in self.boxes.values()]))


class SceneCounter:
    """Numbers the scenes of a video from its sampled frames, in the order in which they come."""

    def __init__(self) -> None:
        self._last: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._scene = 0

    def scene(self, rgb: NDArray[np.uint8]) -> int:
        """The scene of the next frame, `[H, W, 3] uint8 RGB` of any size."""
        small = cv2.resize(rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
        colours = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 8], [0, 180, 0, 256, 0, 256]).ravel()
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
        now = np.asarray(colours / colours.sum(), np.float32), grey - grey.mean()
        if self._last is not None and _is_cut(self._last, now):
            self._scene += 1
        self._last = now
        return self._scene


def _is_cut(
    a: tuple[NDArray[np.float32], NDArray[np.float32]], b: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> bool:
    """Both hold a colour histogram that sums to 1 and a grey thumbnail of mean 0."""
    colours = float(np.abs(a[0] - b[0]).sum()) / 2
    norm = float(np.linalg.norm(a[1]) * np.linalg.norm(b[1]))
    correlation = float(a[1] @ b[1]) / norm if norm > 0 else 0.0
    return colours > _CUT_COLOURS and correlation < _CUT_CORRELATION


def link(window: int, frames: list[list[FaceBox]], scenes: list[int]) -> list[FaceTrack]:
    """Link the boxes of a window's frames to tracks.

    Args:
        window: index of the window.
        frames: boxes of each frame, in order.
        scenes: scene of each frame; a cut ends every track.

    Returns:
        Tracks with gaps interpolated and boxes smoothed over three frames.
    """
    done: list[FaceTrack] = []
    live: list[FaceTrack] = []
    for position, boxes in enumerate(frames):
        ended = [t for t in live if position - t.last > _LONGEST_GAP + 1 or t.last_scene != scenes[position]]
        done += ended
        live = [track for track in live if track not in ended]
        taken = _continued([track.boxes[track.last] for track in live], boxes)
        for track_index, box_index in taken.items():
            live[track_index].boxes[position] = boxes[box_index]
        scene = scenes[position]
        live += [
            FaceTrack(window, {position: box}, scene, scene)
            for i, box in enumerate(boxes)
            if i not in taken.values() and box.score >= START_SCORE
        ]
    return [_smoothed(_interpolated(track)) for track in done + live]


def assign_persons(tracks: list[FaceTrack]) -> None:
    """Number the persons: sets `person_id` of each track.

    Tracks of several windows are one person if no scene cut lies between, their sizes are similar, and they
    are at the same place or each the only face of its window. Where that is not sure they stay separate.
    """
    latest: dict[int, FaceTrack] = {}
    before: list[FaceTrack] = []
    for window in sorted({track.window for track in tracks}):
        here = [track for track in tracks if track.window == window]
        alone = len(before) == len(here) == 1
        for person, track in _same_persons(latest, here, anywhere=before[0].person_id if alone else None):
            track.person_id = person
        for track in here:
            if track.person_id < 0:
                track.person_id = len(latest)
            latest[track.person_id] = track
        before = here


def _same_persons(
    latest: dict[int, FaceTrack], here: list[FaceTrack], anywhere: int | None
) -> list[tuple[int, FaceTrack]]:
    """Pairs of persons seen before and tracks of this window; the person `anywhere` may have moved."""
    if not latest or not here:
        return []
    persons = list(latest)
    cost = np.full((len(persons), len(here)), np.inf)
    for i, person in enumerate(persons):
        a = latest[person].boxes[latest[person].last]
        for j, track in enumerate(here):
            b = track.boxes[min(track.boxes)]
            same_scene = latest[person].last_scene == track.first_scene
            similar = 1 / _SAME_SIZE <= a.side / b.side <= _SAME_SIZE
            distance = _centre_distance(a, b) / min(a.side, b.side)
            if same_scene and similar and (distance <= _SAME_PLACE_SIDES or person == anywhere):
                cost[i, j] = distance
    rows, columns = linear_sum_assignment(np.where(np.isinf(cost), 1e6, cost))
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(persons[i], here[j]) for i, j in pairs if np.isfinite(cost[i, j])]


def _continued(before: Sequence[FaceBox], after: Sequence[FaceBox]) -> dict[int, int]:
    """Which box of the next frame is which of this one: by overlap, and what is left over by its way."""
    taken = match(before, after, _LINK_IOU)
    left = [i for i in range(len(before)) if i not in taken]
    new = [j for j in range(len(after)) if j not in taken.values()]
    if not left or not new:
        return taken
    way = np.array([[_steps(before[i], after[j]) for j in new] for i in left])
    rows, columns = linear_sum_assignment(way)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return taken | {left[i]: new[j] for i, j in pairs if way[i, j] <= _LONGEST_WAY}


def _steps(a: FaceBox, b: FaceBox) -> float:
    """Distance of two boxes in sides of the smaller one; far beyond every limit where their sizes differ."""
    similar = 1 / _SAME_FACE <= a.side / b.side <= _SAME_FACE
    return _centre_distance(a, b) / min(a.side, b.side) if similar else 1e6


def match(before: Sequence[FaceBox], after: Sequence[FaceBox], least_iou: float) -> dict[int, int]:
    """Which box of `after` is which of `before`, by overlap and minimum-cost assignment (Kuhn 1955)."""
    if not before or not after:
        return {}
    overlap = np.array([[iou(a, b) for b in after] for a in before])
    rows, columns = linear_sum_assignment(-overlap)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {i: j for i, j in pairs if overlap[i, j] >= least_iou}


def iou(a: FaceBox, b: FaceBox) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a.w * a.h + b.w * b.h - width * height)


def _centre_distance(a: FaceBox, b: FaceBox) -> float:
    return float(np.hypot(a.x + a.w / 2 - b.x - b.w / 2, a.y + a.h / 2 - b.y - b.h / 2))


def _interpolated(track: FaceTrack) -> FaceTrack:
    known = sorted(track.boxes)
    track.found = len(known)
    rows = np.array([[*track.boxes[p].xywh, track.boxes[p].score] for p in known])
    for position in range(known[0], known[-1] + 1):
        if position not in track.boxes:
            x, y, w, h, score = (float(np.interp(position, known, column)) for column in rows.T)
            track.boxes[position] = FaceBox(x, y, w, h, score)
    return track


def _smoothed(track: FaceTrack) -> FaceTrack:
    """Mean of each box with its neighbours; the ends lean on the one that they have."""
    order = sorted(track.boxes)
    values = np.array([track.boxes[p].xywh for p in order])
    padded = np.concatenate([values[:1], values, values[-1:]])
    means = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    track.boxes = {
        position: FaceBox(x, y, w, h, track.boxes[position].score)
        for position, (x, y, w, h) in zip(order, means.tolist(), strict=True)
    }
    return track
