"""A dearer look at the same frames, to tell what the product missed: YuNet at three sizes on every frame.

Links with the product's own code, so what differs is what was detected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.faces import START_SCORE, Look
from detector.tracks import FaceTrack, SceneCounter, assign_persons, iou, link
from detector.types import ExtractOptions, FaceBox, Facts, TrackReason
from detector.video import Video, plan_windows

SIZES = (1920, 640, 320)
SAME_FACE = 0.3
_MERGE_IOU = 0.4

Picture = NDArray[np.uint8]  # [H, W, 3] RGB


@dataclass(slots=True)
class Seen:
    """A track of either side: boxes, px of the displayed frame, by time in ms; `reason` is None if scored."""

    window: int
    person: int
    boxes: dict[int, FaceBox]
    reason: TrackReason | None
    quality: float
    pictures: list[Picture] = field(default_factory=list)

    @property
    def face_px(self) -> float:
        """Median of the longer side, px."""
        return float(np.median([box.side for box in self.boxes.values()]))


def by_product(facts: Facts) -> list[Seen]:
    """The tracks that the product lists."""
    if facts.info is None:
        return []
    width, height = facts.info.width, facts.info.height
    return [
        Seen(
            track.window,
            track.person_id,
            {
                round(1000 * b.t_s): FaceBox(b.x * width, b.y * height, b.w * width, b.h * height, 1.0)
                for b in track.boxes
            },
            track.reason,
            track.quality,
        )
        for track in facts.tracks
    ]


def by_second_look(path: Path, options: ExtractOptions, look: Look, shown: Sequence[Seen] = ()) -> list[Seen]:
    """The tracks of the dearer look; every track, those of `shown` too, gets pictures of its face."""
    counter, tracks, seen = SceneCounter(), [], []
    with path.open("rb") as file, Video(file, options.limits) as video:
        windows = plan_windows(video.info.duration_s, options.sampling)
        for window, frames in zip(windows, video.sample(windows), strict=True):
            pictures = [frame.picture.whole() for frame in frames]
            times = [round(1000 * frame.t_s) for frame in frames]
            boxes = [_look_at_all_sizes(look, picture) for picture in pictures]
            here = link(window.index, boxes, [counter.scene(picture) for picture in pictures])
            here.sort(key=lambda track: -track.face_px)
            made = list(_selected(here, times, options))
            shots = dict(zip(times, pictures, strict=True))
            for one in (*made, *(s for s in shown if s.window == window.index)):
                one.pictures = list(_shots(one, shots))
            tracks += here
            seen += made
    assign_persons(tracks)
    for one, track in zip(seen, tracks, strict=True):
        one.person = track.person_id
    return seen


def same_face(a: Seen, b: Seen) -> bool:
    """Whether two tracks overlap in at least half of the moments that both have."""
    return _same(a.boxes, b.boxes)


def persons(seen: Sequence[Seen]) -> dict[int, dict[int, FaceBox]]:
    """Boxes of each person by time in ms, over the tracks that are scored."""
    found: dict[int, dict[int, FaceBox]] = {}
    for one in seen:
        if one.reason is None:
            found.setdefault(one.person, {}).update(one.boxes)
    return found


def find_person(boxes: dict[int, FaceBox], among: dict[int, dict[int, FaceBox]]) -> int | None:
    """The first of the persons that lies where these boxes lie, in at least half of the common moments."""
    return next((person for person, others in among.items() if _same(boxes, others)), None)


def _same(a: dict[int, FaceBox], b: dict[int, FaceBox]) -> bool:
    common = a.keys() & b.keys()
    return bool(common) and sum(iou(a[t], b[t]) >= SAME_FACE for t in common) >= len(common) / 2


def _look_at_all_sizes(look: Look, rgb: Picture) -> list[FaceBox]:
    """Boxes of every size, the better one where two overlap; the sizes do not depend on the product's own."""
    found: list[FaceBox] = []
    longest = max(rgb.shape[:2])
    for size in sorted({min(size, longest) for size in SIZES}):
        scale = size / longest
        small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
        found += [
            FaceBox(b.x / scale, b.y / scale, b.w / scale, b.h / scale, b.score)
            for b in look(np.asarray(small, np.uint8), True)
        ]
    kept: list[FaceBox] = []
    for box in sorted(found, key=lambda box: -box.score):
        if all(iou(box, other) <= _MERGE_IOU for other in kept):
            kept.append(box)
    return kept


def _selected(tracks: Sequence[FaceTrack], times: Sequence[int], options: ExtractOptions) -> Iterator[Seen]:
    """The tracks of a window, largest first, with the product's reasons why some are not scored."""
    scored = 0
    for track in tracks:
        reason = None
        if track.face_px < options.min_face_px:
            reason = TrackReason.TOO_SMALL
        elif track.found < min(options.min_frames, len(times)):
            reason = TrackReason.TOO_SHORT
        elif track.quality < START_SCORE:
            reason = TrackReason.LOW_QUALITY
        elif scored >= options.max_tracks_per_window:
            reason = TrackReason.CAP
        scored += reason is None
        boxes = {times[position]: box for position, box in track.boxes.items()}
        yield Seen(track.window, track.person_id, boxes, reason, track.quality)


def _shots(seen: Seen, pictures: dict[int, Picture]) -> Iterator[Picture]:
    """First, middle and last box of a track with half a face around it."""
    times = sorted(seen.boxes.keys() & pictures.keys())
    for t in [times[0], times[len(times) // 2], times[-1]] if times else []:
        rgb, box = pictures[t], seen.boxes[t]
        half = round(box.side)
        x, y = round(box.x + box.w / 2), round(box.y + box.h / 2)
        framed = cv2.copyMakeBorder(rgb, half, half, half, half, cv2.BORDER_CONSTANT) if half else rgb
        # A face may lean out of the frame by more than its border here: the slice is then merely smaller.
        part = framed[max(0, y) : y + 2 * half, max(0, x) : x + 2 * half]
        if part.size:
            yield np.asarray(cv2.resize(part, (96, 96), interpolation=cv2.INTER_AREA), np.uint8)
