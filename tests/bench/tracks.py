"""`make bench BAR=tracks`: what a track needs to be scored, on the `val` crops with the default weights.

By size: each crop is shrunk to the px that a smaller face would give, and enlarged again by the product's own
code. By score of the detector: crops at three sizes are treated as badly as uploads are, since YuNet is sure
of nearly all of them as they are. By frames: stills are set in motion, with noise and H.264 over them; real
faces move more, so that real frames gain more. Intervals are 95 %, whole groups of people drawn. Minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from detector import faces
from detector.crops import resize
from detector.degrade import Look, Picture, degrade, degrade_clip, draw_look
from detector.evaluation.intervals import auc_change_interval, auc_interval
from detector.evaluation.metrics import Groups, Labels, Scores, auc
from detector.model import Model, settle_process
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.finish import groups_of, labels_of, logits_of, score_pictures
from detector.training.motion import moving_still
from detector.types import Clips, CropSpec, ExtractOptions
from detector.weights import read, resolve
from tests.bench.crops import central_face
from tests.bench.weights import validation
from tests.shared import shared_data_folder, why_missing

FACE_PX = (16, 24, 32, 40, 48, 64, 96, 128)
FRAMES = (1, 2, 3, 5, 10)
BANDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0)
# Faces of these sizes are scored; the bands of the detector's score hold them together.
_PX_OF_BANDS = (40, 64, 128)
_UNSURE = 2.0  # how often a degradation happens, over how often it does in training
_STILLS = 360
_IN_MOTION = Look(noise=4, h264=30)
_CHUNK = 32


def main() -> int:
    """Measure and print."""
    if missing := why_missing(shared_data_folder()):
        print(missing, file=sys.stderr)
        return 2
    settle_process()
    samples, model = validation(shared_data_folder() / "crops"), Model(read(resolve("default")))
    print(f"{len(samples):,} crops, {len(set(groups_of(samples).tolist()))} groups of people")
    _by_size(model, samples)
    _by_detector(model, samples)
    _by_frames(model, samples)
    options = ExtractOptions()
    print(
        f"\nin force: min_face_px {options.min_face_px}, min_frames {options.min_frames}, "
        f"quality {faces.START_SCORE}"
    )
    return 0


def shrunk(face_px: int) -> Callable[[Picture], Picture]:
    """A change of a crop to the pixels of a face of that size; a smaller one stays as it is."""
    side = max(1, round(face_px * CropSpec().scale))
    return lambda picture: resize(picture, min(side, len(picture)))


def _by_size(model: Model, samples: Sequence[Sample]) -> None:
    print(f"\n{'face':>10}{'AUC':>8}{'95 %':>14}{'lost':>8}{'95 %':>16}")
    whole = logits_of(model, samples)
    for face_px in FACE_PX:
        logits = logits_of(model, samples, shrunk(face_px))
        _print_beside(f"{face_px} px", labels_of(samples), groups_of(samples), logits, whole)
    _print_beside("as it is", labels_of(samples), groups_of(samples), whole, whole)


def _by_detector(model: Model, samples: Sequence[Sample]) -> None:
    look, store = faces.load("yunet"), CropStore()
    sureness: list[float] = []
    logits: list[Scores] = []
    for face_px in _PX_OF_BANDS:
        change = shrunk(face_px)
        for start in range(0, len(samples), _CHUNK):
            pictures = [
                degrade(change(store.crop(sample)), _bad_look(face_px, start + i), start + i)
                for i, sample in enumerate(samples[start : start + _CHUNK])
            ]
            boxes = [central_face(look, picture, faces.KEEP_SCORE) for picture in pictures]
            sureness += [box.score if box else 0.0 for box in boxes]
            logits.append(score_pictures(model, pictures))
    scores, sure = np.concatenate(logits), np.array(sureness)
    labels = np.tile(labels_of(samples), len(_PX_OF_BANDS))
    groups = np.tile(groups_of(samples), len(_PX_OF_BANDS))
    px = np.repeat(_PX_OF_BANDS, len(samples))
    print(f"\n{'detector':>12}{'crops':>8}{f'of {min(px)} px':>10}{'AUC':>8}{'95 %':>14}")
    for low, high in pairwise(BANDS):
        here = (sure >= low) & (sure < high)
        name = f"{low}-{high}" if low else "not found"
        found = auc(labels[here], scores[here])
        least, most = auc_interval(labels[here], scores[here], groups[here])
        small = (px[here] == min(px)).mean()
        print(f"{name:>12}{here.sum():8,}{small:10.0%}{found:8.3f}{f'{least:.3f}-{most:.3f}':>14}")


def _bad_look(face_px: int, index: int) -> Look:
    return draw_look(np.random.default_rng((face_px, index)), _UNSURE)


def _by_frames(model: Model, samples: Sequence[Sample]) -> None:
    chosen = [samples[index] for index in np.random.default_rng(0).permutation(len(samples))[:_STILLS]]
    each = np.concatenate(
        [_frame_logits(model, chosen[start : start + 4], start) for start in range(0, len(chosen), 4)]
    )
    print(f"\n{'frames':>10}{'AUC':>8}{'95 %':>14}{'lost':>8}{'95 %':>16}")
    for frames in FRAMES:
        logits = each[:, :frames].mean(1)
        _print_beside(f"{frames}", labels_of(chosen), groups_of(chosen), logits, each.mean(1))


def _frame_logits(model: Model, samples: Sequence[Sample], seed: int) -> Scores:
    """Logits [N, T] of the frames of stills in motion."""
    store, size, clips = CropStore(), model.header.input.size, []
    for index, sample in enumerate(samples):
        moved = moving_still(store.crop(sample), max(FRAMES), np.random.default_rng(seed + index))
        clips.append(
            np.stack([resize(frame, size) for frame in degrade_clip(moved, _IN_MOTION, seed + index)])
        )
    scores = model.score(Clips(np.stack(clips), np.ones((len(clips), max(FRAMES)), np.bool_)))
    return np.array([score.frame_logits for score in scores])


def _print_beside(name: str, labels: Labels, groups: Groups, logits: Scores, best: Scores) -> None:
    """A line: the AUC, and how much less it is than that of `best` on the same crops."""
    low, high = auc_interval(labels, logits, groups)
    least, most = auc_change_interval(labels, logits, best, groups)
    lost = auc(labels, best) - auc(labels, logits)
    print(
        f"{name:>10}{auc(labels, logits):8.3f}{f'{low:.3f}-{high:.3f}':>14}"
        f"{lost:8.3f}{f'{least:.3f}-{most:.3f}':>16}"
    )


if __name__ == "__main__":
    sys.exit(main())
