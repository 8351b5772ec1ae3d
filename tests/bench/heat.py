"""`make bench BAR=heat`: does hiding what a heat map shows move the logit more than hiding as much elsewhere?

On the `val` crops of the labelled DFDC set, each a clip of one frame. The top fifth of a crop's map is
blurred away; beside it, the top fifth of the map of another crop, drawn at random: as large, of like shape,
and in a face as likely a place. What counts is how far the logit moves. Intervals are 95 %, whole groups of
people drawn. Some two minutes for each file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.crops import resize
from detector.evaluation.intervals import Interval, bootstrap
from detector.heatmap import heat_maps
from detector.model import Model, settle_process
from detector.training.crop_store import CropStore
from detector.training.finish import groups_of
from detector.types import Clips
from detector.weights import manifest, read, resolve
from tests.bench.weights import validation
from tests.shared import shared_data_folder, why_missing

HIDDEN = 0.2
_BLUR = 1 / 8  # sigma, of a crop's side: no eye, mouth or seam is left
_CROPS_PER_CALL = 64
_SEED = 0


@dataclass(frozen=True, slots=True)
class Hiding:
    """How far the logit of a crop moves on average when a fifth of it is hidden."""

    crops: int
    shown: float
    elsewhere: float
    difference: float
    interval: Interval

    @property
    def holds(self) -> bool:
        """Whether what the map shows matters more, by the interval."""
        return self.interval[0] > 0


def measure(model: Model) -> Hiding:
    """Hide and score again, on all validation crops."""
    store, samples = CropStore(), validation(shared_data_folder() / "crops")
    size = model.header.input.size
    pixels = np.stack([resize(store.crop(sample), size) for sample in samples])
    maps = np.concatenate([heat_maps(part, model)[:, 0] for part in _parts(pixels)])
    before = _logits(pixels, model)
    others = np.random.default_rng(_SEED).permutation(len(pixels))
    moved = [np.abs(before - _logits(_hidden(pixels, of), model)) for of in (maps, maps[others])]
    gain = moved[0] - moved[1]
    return Hiding(
        len(pixels),
        float(moved[0].mean()),
        float(moved[1].mean()),
        float(gain.mean()),
        bootstrap(lambda weights: {"gain": _mean(gain, weights)}, groups_of(samples))["gain"],
    )


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float(np.average(values, weights=weights))


def _parts(pixels: NDArray[np.uint8]) -> list[Clips]:
    steps = range(0, len(pixels), _CROPS_PER_CALL)
    frames = [pixels[start : start + _CROPS_PER_CALL, None] for start in steps]
    return [Clips(part, np.ones(part.shape[:2], np.bool_)) for part in frames]


def _logits(pixels: NDArray[np.uint8], model: Model) -> NDArray[np.float64]:
    return np.array([score.logit for part in _parts(pixels) for score in model.score(part)])


def _hidden(pixels: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Crops whose map's top fifth is blurred away."""
    hidden = pixels.copy()
    for crop, heat in zip(hidden, maps, strict=True):
        blurred = cv2.GaussianBlur(crop, (0, 0), crop.shape[0] * _BLUR)
        most = np.argsort(heat, axis=None)[-round(HIDDEN * heat.size) :]
        crop.reshape(-1, 3)[most] = blurred.reshape(-1, 3)[most]
    return hidden


def main() -> None:
    """Print the figures of every shipped file; exit 1 where the claim fails for one."""
    if missing := why_missing(shared_data_folder()):
        sys.exit(missing)
    settle_process()
    failed = False
    for name in (name for name in manifest()["files"] if name.endswith(".safetensors")):
        found = measure(Model(read(resolve(name))))
        low, high = found.interval
        print(
            f"{name}: {found.crops:,} crops, the logit moves by {found.shown:.3f} where the map's top fifth "
            f"is hidden, by {found.elsewhere:.3f} elsewhere: "
            f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f})"
        )
        failed |= not found.holds
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
