"""Figures that say what scores are worth: ranking, decisions at a threshold, probabilities.

Scores are logits or probabilities, higher = more likely fake; labels are 0 = real, 1 = fake. Most figures
take weights, so that thousands of re-drawn samples need no sorting of their own (`intervals`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""[N] float64."""
Labels = NDArray[np.int64]
"""[N] int64, 0 or 1."""
Groups = NDArray[np.str_]
"""[N] names: items of one group, a person, are not independent."""

_ROUNDING = 1e-9


class Ranking:
    """Labels in the order of their scores, for the curves of one sample under many weights."""

    def __init__(self, labels: Labels, scores: Scores) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])
        self._fake = labels[self._order] == 1

    def curve(self, weights: Scores | None = None) -> Curve:
        """Counts at each threshold; weights [N] count items more than once, or not at all."""
        drawn = np.ones(len(self._order)) if weights is None else weights[self._order]
        return Curve(
            false_positives=np.cumsum(drawn * ~self._fake)[self._ends],
            true_positives=np.cumsum(drawn * self._fake)[self._ends],
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """Weight of the reals and of the fakes at or above each threshold, from the highest down: [K] float64."""

    false_positives: Scores
    true_positives: Scores

    @property
    def _rates(self) -> tuple[Scores, Scores] | None:
        """False and true positive rate, from (0, 0) to (1, 1); None where a class is missing."""
        if not len(self.true_positives) or not (self.false_positives[-1] and self.true_positives[-1]):
            return None
        false = np.append(0.0, self.false_positives / self.false_positives[-1])
        return false, np.append(0.0, self.true_positives / self.true_positives[-1])

    def roc(self) -> tuple[Scores, Scores]:
        """False and true positive rates [K + 1], from (0, 0) to (1, 1); empty where a class is missing."""
        return self._rates or (np.zeros(0), np.zeros(0))

    @property
    def auc(self) -> float:
        """Probability that a fake scores higher than a real, ties counted half."""
        rates = self._rates
        return float(np.trapezoid(rates[1], rates[0])) if rates else float("nan")

    @property
    def average_precision(self) -> float:
        """Precision at each threshold, weighted by the recall that it adds; depends on the share of fakes."""
        rates = self._rates
        if rates is None:
            return float("nan")
        flagged = self.true_positives + self.false_positives
        precision = np.divide(self.true_positives, flagged, np.ones_like(flagged), where=flagged > 0)
        return float(np.sum(np.diff(rates[1]) * precision))

    @property
    def equal_error_rate(self) -> float:
        """Mean of the two error rates at the threshold where they are closest."""
        rates = self._rates
        if rates is None:
            return float("nan")
        false, misses = rates[0], 1 - rates[1]
        closest = np.argmin(np.abs(false - misses))
        return float((false[closest] + misses[closest]) / 2)

    def recall_at(self, false_positive_rate: float) -> float:
        """Largest share of the fakes that is found at that false-positive rate or less."""
        rates = self._rates
        if rates is None:
            return float("nan")
        return float(rates[1][rates[0] <= false_positive_rate + _ROUNDING].max())


def auc(labels: Labels, scores: Scores) -> float:
    """Probability that a fake scores higher than a real, ties counted half; nan where a class is missing."""
    return Ranking(labels, scores).curve().auc


def recall_at(labels: Labels, scores: Scores, false_positive_rate: float) -> float:
    """Largest share of the fakes that is found at that false-positive rate or less."""
    return Ranking(labels, scores).curve().recall_at(false_positive_rate)


def threshold_at(labels: Labels, scores: Scores, false_positive_rate: float) -> float:
    """Lowest threshold (flagged if score >= it) at which at most that share of the reals is flagged."""
    reals = np.sort(scores[labels == 0])[::-1]
    if not len(reals):
        return float("nan")
    allowed = int(np.floor(false_positive_rate * len(reals) + _ROUNDING))
    if allowed >= len(reals):
        return float(reals[-1])
    return float(np.nextafter(reals[allowed], np.inf))


@dataclass(frozen=True, slots=True)
class Confusion:
    """Decisions at a threshold, as counts or as sums of weights."""

    true_positives: float
    false_positives: float
    true_negatives: float
    false_negatives: float

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        right = self.true_positives + self.true_negatives
        return _share(right, self.false_positives + self.false_negatives + right)

    @property
    def recall(self) -> float:
        """Share of the fakes that are flagged (TPR)."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float:
        """Share of the reals that are flagged."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the shares of both classes that are decided rightly."""
        return (self.recall + 1 - self.false_positive_rate) / 2

    @property
    def precision(self) -> float:
        """Share of the flagged that are fakes."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        wrong = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + wrong)


def confusion(labels: Labels, flagged: NDArray[np.bool_], weights: Scores | None = None) -> Confusion:
    """Counts of decisions [N]."""
    drawn = np.ones(len(labels)) if weights is None else weights
    fake = labels == 1

    def total(held: NDArray[np.bool_]) -> float:
        return float(drawn[held].sum())

    return Confusion(
        true_positives=total(fake & flagged),
        false_positives=total(~fake & flagged),
        true_negatives=total(~fake & ~flagged),
        false_negatives=total(fake & ~flagged),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def sigmoid(logits: Scores) -> Scores:
    """Probabilities of logits, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def log_loss(labels: Labels, logits: Scores, weights: Scores | None = None) -> float:
    """Mean negative log-likelihood, nats."""
    return float(np.average(np.logaddexp(0.0, logits) - labels * logits, weights=weights))


def brier(labels: Labels, probabilities: Scores, weights: Scores | None = None) -> float:
    """Mean squared difference between probability and label."""
    return float(np.average((probabilities - labels) ** 2, weights=weights))


@dataclass(frozen=True, slots=True)
class Bin:
    """Items of neighbouring probabilities."""

    items: int
    mean_p: float
    fakes: float
    """Share."""


def equal_mass_bins(labels: Labels, probabilities: Scores, bins: int = 15) -> list[Bin]:
    """Bins of about as many items each, in the order of their probabilities; fewer where there are few items.

    Items with the same probability share a bin, or the order in which they were given would count.
    """
    count, wanted = len(labels), min(bins, max(1, len(labels) // 2))
    ordered = np.sort(probabilities)
    first = np.searchsorted(ordered, probabilities)
    number = first * wanted // max(1, count)
    return [
        Bin(int(held.sum()), float(probabilities[held].mean()), float(labels[held].mean()))
        for held in (number == one for one in np.unique(number))
    ]


def calibration_error(labels: Labels, probabilities: Scores, bins: int = 15) -> float:
    """Mean gap between probability and share of fakes over equal-mass bins (ECE); never 0 on few items."""
    found = equal_mass_bins(labels, probabilities, bins)
    return float(sum(one.items * abs(one.mean_p - one.fakes) for one in found) / max(1, len(labels)))


def debiased_calibration_error(labels: Labels, probabilities: Scores, bins: int = 15) -> float:
    """Root mean squared gap over equal-mass bins, less what chance alone puts there; 0 for a perfect one.

    The debiased estimator of Kumar, Liang and Ma, "Verified Uncertainty Calibration" (2019, arXiv
    1909.10155), section 5. As a root mean square it is never below the mean gap that it estimates.
    """
    found = equal_mass_bins(labels, probabilities, bins)
    total = sum(
        one.items * ((one.mean_p - one.fakes) ** 2 - one.fakes * (1 - one.fakes) / max(1, one.items - 1))
        for one in found
    )
    return float(np.sqrt(max(0.0, total / max(1, len(labels)))))


def risk_coverage(wrong: NDArray[np.bool_], confidence: Scores) -> Scores:
    """Error rate [N] among the 1, 2, ... N items with the highest confidence (risk-coverage curve).

    Its mean is the area under it, AURC (Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206).
    """
    order = np.argsort(-confidence, kind="stable")
    return np.asarray(np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1), np.float64)
