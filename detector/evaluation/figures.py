"""Labelled scores in, figures with intervals out: of all items, of slices, and of two versions of a score."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.calibration import STRICT_FPR, STRICT_GROUPS, Calibration
from detector.evaluation.intervals import Interval, auc_change_interval, bootstrap, rate_interval
from detector.evaluation.metrics import (
    Groups,
    Labels,
    Ranking,
    Scores,
    brier,
    calibration_error,
    confusion,
    debiased_calibration_error,
    log_loss,
    risk_coverage,
)
from detector.types import Policy

_LEAST_GROUPS = 10
"""Groups of each class below which nothing is said of how figures of both would vary."""
_LEAST_FALSE = 3
"""Reals above a threshold, expected, below which nothing is said of how what it finds would vary."""
_OF_BOTH = ("auc", "average_precision", "equal_error_rate", "balanced_accuracy", "precision", "f1")
_MOST_SLICES = 50
_RATES = {"tpr_at_fpr_5": 0.05, "tpr_at_fpr_1": 0.01, "tpr_at_fpr_0_1": STRICT_FPR}
_OF_PROBABILITIES = ("log_loss", "brier", "ece", "ece_debiased")
_COVERAGES = (0.5, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Items:
    """Labelled scores; an item without one (nan) is one about which nothing was said."""

    labels: Labels
    logits: Scores
    """[N], raw; nan = abstained."""
    groups: Groups
    facets: Mapping[str, NDArray[np.str_]]
    """Column -> [N] values that slices are made by; empty = not known."""

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, held: NDArray[np.bool_]) -> Items:
        """The items that a mask [N] holds."""
        facets = {name: values[held] for name, values in self.facets.items()}
        return Items(self.labels[held], self.logits[held], self.groups[held], facets)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """[N], False where nothing was said."""
        return np.isfinite(self.logits)


def figures(items: Items, policy: Policy, seed: int = 0) -> dict[str, Any]:
    """What scores are worth, on the items that have one, and on all with abstentions counted as errors.

    Args:
        items: Of both classes or of one; a figure that one class does not have is None.
        policy: Calibration, and the threshold of `flagged` for what counts decisions.
        seed: Of the bootstrap.

    Returns:
        Figure -> value, None where there is none; `intervals` holds those at 95 %, of whole groups.
    """
    covered = items.only(items.covered)
    found = _counts(items) | {"coverage": _share(len(covered), len(items))}
    every = _plain(_Judged(_as_errors(items), policy).figures(None))
    reals = covered.labels == 0
    unsaid = [] if len(set(covered.groups[reals].tolist())) >= STRICT_GROUPS else ["tpr_at_fpr_0_1"]
    every |= dict.fromkeys(unsaid)
    if not len(covered):
        nothing = dict.fromkeys((*every, *_OF_PROBABILITIES, "confusion", "risk_coverage"))
        return found | nothing | {"intervals": {}, "all": every}
    judged = _Judged(covered, policy)

    def both(weights: Scores | None) -> dict[str, float]:
        return judged.figures(weights) | judged.losses(weights)

    once = _plain(both(None)) | dict.fromkeys(unsaid)
    intervals = {name: _ends(ends) for name, ends in bootstrap(both, covered.groups, seed=seed).items()}
    for name, held in (("false_positive_rate", reals), ("recall", ~reals)):
        intervals[name] = _ends(rate_interval(judged.flagged[held], covered.groups[held]))
    intervals |= dict.fromkeys([*_without_interval(covered), *unsaid])
    return found | once | judged.without_intervals() | {"intervals": intervals, "all": every}


def _without_interval(items: Items) -> list[str]:
    """Figures that the groups are too few for, by which an interval would be too narrow."""
    reals = items.labels == 0
    groups = min(len(set(items.groups[held].tolist())) for held in (reals, ~reals))
    too_few = [name for name, rate in _RATES.items() if reals.sum() * rate < _LEAST_FALSE]
    return [*_OF_BOTH, *_RATES] if groups < _LEAST_GROUPS else too_few


class _Judged:
    """Items and what a policy makes of them."""

    def __init__(self, items: Items, policy: Policy) -> None:
        self._labels = items.labels
        self._ranking = Ranking(items.labels, items.logits)
        calibration = Calibration(policy.slope, policy.bias)
        self._calibrated = calibration.apply(items.logits)
        self._p = calibration.scores(items.logits)
        self._threshold = policy.flag
        self.flagged: NDArray[np.bool_] = self._p >= policy.flag

    def figures(self, weights: Scores | None) -> dict[str, float]:
        """Of ranking and decisions; nan where a class is missing."""
        curve = self._ranking.curve(weights)
        decided = confusion(self._labels, self.flagged, weights)
        return {
            "auc": curve.auc,
            "average_precision": curve.average_precision,
            "equal_error_rate": curve.equal_error_rate,
            **{name: curve.recall_at(rate) for name, rate in _RATES.items()},
            "accuracy": decided.accuracy,
            "balanced_accuracy": decided.balanced_accuracy,
            "precision": decided.precision,
            "recall": decided.recall,
            "f1": decided.f1,
            "false_positive_rate": decided.false_positive_rate,
        }

    def losses(self, weights: Scores | None) -> dict[str, float]:
        """Of probabilities; there is none where something has no score."""
        return {
            "log_loss": log_loss(self._labels, self._calibrated, weights),
            "brier": brier(self._labels, self._p, weights),
        }

    def without_intervals(self) -> dict[str, Any]:
        decided = confusion(self._labels, self.flagged)
        edge = math.log(self._threshold / (1 - self._threshold)) if 0 < self._threshold < 1 else 0.0
        risks = risk_coverage(self.flagged != (self._labels == 1), np.abs(self._calibrated - edge))
        return {
            "ece": calibration_error(self._labels, self._p),
            "ece_debiased": debiased_calibration_error(self._labels, self._p),
            "confusion": {
                name: int(getattr(decided, name))
                for name in ("true_positives", "false_positives", "true_negatives", "false_negatives")
            },
            "risk_coverage": {
                "aurc": float(risks.mean()),
                **{f"risk_at_{share:.0%}": float(risks[_index(share, len(risks))]) for share in _COVERAGES},
            },
        }


def slices(items: Items, policy: Policy, columns: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Figures of the items of each value of each column.

    A slice of fakes alone, as one kind of manipulation is, is held against the reals of all items: `against`
    says so. Numbers are put into at most four bins of as many items each; a column of one value makes none,
    and of many values the 50 most frequent do.
    """
    found = []
    for column in columns:
        values = _binned(items.facets[column])
        found_in = Counter(values.tolist())
        if len(found_in) < 2:
            continue
        del found_in[""]
        for value in sorted((value for value, _ in found_in.most_common(_MOST_SLICES)), key=_natural):
            held = values == value
            against = "its own reals"
            if set(items.labels[held].tolist()) == {1} and (items.labels == 0).any():
                held, against = held | (items.labels == 0), "all reals"
            found.append(
                {"column": column, "value": value, "against": against}
                | figures(items.only(held), policy, seed)
            )
    return found


def change(before: Items, after: Items, policy: Policy, seed: int = 0) -> dict[str, Any]:
    """What becomes of the figures when the same items are scored in another state; both scored count."""
    both = before.covered & after.covered
    one, two = before.only(both), after.only(both)
    first, second = _Judged(one, policy).figures(None), _Judged(two, policy).figures(None)
    low, high = auc_change_interval(one.labels, one.logits, two.logits, one.groups, seed=seed)
    kept = ("auc", "tpr_at_fpr_1", "recall", "false_positive_rate")
    return {
        "items": len(one),
        **_plain({name: second[name] for name in kept}),
        "auc_change": _finite(second["auc"] - first["auc"]),
        "auc_change_interval": _ends((low, high)),
    }


def _as_errors(items: Items) -> Items:
    """Items that all have a score: a real without one is above every threshold, a fake below."""
    worst = np.where(items.labels == 0, np.inf, -np.inf)
    return replace(items, logits=np.where(items.covered, items.logits, worst))


def _counts(items: Items) -> dict[str, Any]:
    held = items.covered
    return {
        "reals": int((items.labels == 0).sum()),
        "fakes": int((items.labels == 1).sum()),
        "abstained_reals": int((~held & (items.labels == 0)).sum()),
        "abstained_fakes": int((~held & (items.labels == 1)).sum()),
        "groups": len(set(items.groups.tolist())),
    }


def _binned(values: NDArray[np.str_]) -> NDArray[np.str_]:
    """Values as they are, or the bin of each where they are many different numbers."""
    known = sorted(set(values.tolist()) - {""})
    try:
        numbers = np.array([float(value) if value else math.nan for value in values.tolist()])
    except ValueError:
        return values
    numbers[~np.isfinite(numbers)] = math.nan
    if len(known) <= 12 or len(np.unique(numbers[~np.isnan(numbers)])) < 2:
        return values
    edges = np.unique(np.nanquantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    index = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(0, len(edges) - 2))
    names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    return np.array(
        ["" if math.isnan(number) else names[at] for number, at in zip(numbers, index, strict=True)]
    )


def _natural(value: str) -> tuple[float, str]:
    head = value.split(" ", maxsplit=1)[0]
    try:
        return float(head), value
    except ValueError:
        return math.inf, value


def _index(share: float, count: int) -> int:
    return max(0, math.ceil(share * count) - 1)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(found: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in found.items()}


def _ends(interval: Interval) -> list[float] | None:
    return list(interval) if all(map(math.isfinite, interval)) else None
