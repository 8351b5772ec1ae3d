"""What is wrong with a list of crops before anything is trained on it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from detector.degrade import Picture
from detector.errors import InputError
from detector.evaluation.metrics import auc, sigmoid
from detector.training.crop_store import CropStore
from detector.training.data import Sample

LEAK = 0.65
"""A classifier that sees no face should stay below this AUC; DFDC's own file sizes give .60."""

_FOLDS = 5
_RIDGE = 1e-2

Facts = NDArray[np.float64]
"""[N, F]: what can be known of a picture without looking at the face."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Findings; all of it goes into JSON."""

    counts: dict[str, int]
    """Samples by `split/label`."""
    groups: dict[str, int]
    """Groups by split."""
    unreadable: list[str]
    """URIs that are not there or cannot be decoded."""
    doubled: list[tuple[str, str]]
    """URIs with the same pixels but another label or split."""
    shared: list[str]
    """People, on view or put in, on more than one side of the split."""
    without_real: int
    """Fakes whose real is not in the list: they cannot be paired."""
    blind_auc: float
    """AUC of a classifier that knows size, colour and sharpness only, over folds of whole groups."""

    @property
    def usable(self) -> bool:
        """Whether results on this list would mean anything: no person and no picture on two sides."""
        return not self.shared and not self.doubled


def audit(samples: Sequence[Sample]) -> Audit:
    """Reads every picture once."""
    store = CropStore()
    facts: list[list[float]] = []
    readable: list[Sample] = []
    unreadable: list[str] = []
    seen: dict[str, Sample] = {}
    doubled: list[tuple[str, str]] = []
    for sample in samples:
        try:
            picture = store.read(sample.uri)
        except (InputError, OSError):
            unreadable.append(sample.uri)
            continue
        first = seen.setdefault(hashlib.sha256(picture.data).hexdigest(), sample)
        if (first.label, first.split) != (sample.label, sample.split):
            doubled.append((first.uri, sample.uri))
        facts.append(blind_facts(picture))
        readable.append(sample)
    return Audit(
        counts=dict(sorted(Counter(f"{sample.split}/{sample.label}" for sample in samples).items())),
        groups=_groups_by_split(samples),
        unreadable=unreadable,
        doubled=doubled,
        shared=shared_people(samples),
        without_real=_without_real(samples),
        blind_auc=blind_auc(np.array(facts), readable) if readable else float("nan"),
    )


def shared_people(samples: Sequence[Sample]) -> list[str]:
    """People that are on view or put in on more than one side of the split."""
    sides: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        for person in {sample.group, sample.donor} - {""}:
            sides[person].add(sample.split)
    return sorted(person for person, splits in sides.items() if len(splits) > 1)


def _groups_by_split(samples: Sequence[Sample]) -> dict[str, int]:
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        groups[sample.split].add(sample.group)
    return {split: len(names) for split, names in sorted(groups.items())}


def _without_real(samples: Sequence[Sample]) -> int:
    reals = {sample.pair for sample in samples if sample.label == 0}
    return sum(sample.label == 1 and sample.pair not in reals for sample in samples)


def blind_facts(picture: Picture) -> list[float]:
    """Width, height, mean colours, contrast and sharpness of a picture."""
    # Whole numbers to the end: as float64 a large picture would take eight times its size, three times over.
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    contrast, edges = (
        float(cv2.meanStdDev(values)[1][0, 0]) for values in (grey, cv2.Laplacian(grey, cv2.CV_16S))
    )
    return [width, height, *picture.mean(axis=(0, 1)), contrast, float(np.log1p(edges**2))]


def container_facts(infos: Sequence[Mapping[str, Any]]) -> Facts:
    """Size, shape, rate, length, codec and container of videos: [N, F].

    Args:
        infos: Of each video, the fields of `VideoInfo`, and its `size` in bytes.
    """
    kinds = sorted({(key, str(info[key])) for info in infos for key in ("codec", "container")})
    rows = []
    for info in infos:
        length, size = info["duration_s"] or 0.0, info["size"]
        numbers = [np.log1p(size), info["width"], info["height"], info["fps"] or 0.0, length]
        rate = np.log1p(size / length) if length else 0.0
        rows.append([*numbers, rate, *(float(str(info[key]) == value) for key, value in kinds)])
    return np.array(rows, np.float64)


def blind_auc(facts: Facts, samples: Sequence[Sample]) -> float:
    """AUC of a logistic regression on facts [N, F], each fold of groups scored by the others."""
    labels = np.array([sample.label for sample in samples], np.int64)
    names = np.array([sample.group for sample in samples])
    order = np.random.default_rng(0).permutation(np.unique(names))
    fold_of = {name: number % _FOLDS for number, name in enumerate(order)}
    folds = np.array([fold_of[name] for name in names])
    spread = facts.std(axis=0)
    inputs = (facts - facts.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scores = np.zeros(len(labels))
    for fold in range(_FOLDS):
        held_out = folds == fold
        if held_out.any() and not held_out.all():
            scores[held_out] = inputs[held_out] @ _fit(inputs[~held_out], labels[~held_out])
    return auc(labels, scores)


def _fit(inputs: Facts, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights [F] of a ridge logistic regression; the bias does not change a ranking and is dropped."""
    extended = np.column_stack([inputs, np.ones(len(inputs))])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = extended @ weights
        value = np.mean(np.logaddexp(0.0, logits) - labels * logits) + _RIDGE * np.sum(weights**2)
        slope = extended.T @ (sigmoid(logits) - labels) / len(labels) + 2 * _RIDGE * weights
        return float(value), slope

    found: NDArray[np.float64] = minimize(loss, np.zeros(extended.shape[1]), jac=True, method="L-BFGS-B").x
    return found[:-1]
