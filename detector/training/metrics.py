"""Figures that say what a score is worth: ranking, thresholds, calibration, intervals.

Scores are logits or probabilities, higher = more likely fake; labels are 0 = real, 1 = fake. Groups are
people: items of one group are not independent, so intervals draw whole groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata

Scores = NDArray[np.float64]
"""[N] float64."""
Labels = NDArray[np.int64]
"""[N] int64, 0 or 1."""
Groups = NDArray[np.str_]
"""[N] names."""

_PRIOR_SAMPLES = 10


def auc(labels: Labels, scores: Scores) -> float:
    """Probability that a fake scores higher than a real, ties counted half; nan where a class is missing."""
    fakes = int(labels.sum())
    reals = len(labels) - fakes
    if not fakes or not reals:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[labels == 1].sum() - fakes * (fakes + 1) / 2) / (fakes * reals))


def threshold_at(labels: Labels, scores: Scores, false_positive_rate: float) -> float:
    """Lowest threshold (flagged if score >= it) at which at most that share of the reals is flagged."""
    reals = np.sort(scores[labels == 0])[::-1]
    if not len(reals):
        return float("nan")
    allowed = int(np.floor(false_positive_rate * len(reals) + 1e-9))
    if allowed >= len(reals):
        return float(reals[-1])
    return float(np.nextafter(reals[allowed], np.inf))


def recall_at(labels: Labels, scores: Scores, false_positive_rate: float) -> float:
    """Share of the fakes at or above the threshold of that false-positive rate."""
    return float((scores[labels == 1] >= threshold_at(labels, scores, false_positive_rate)).mean())


def equal_error_rate(labels: Labels, scores: Scores) -> float:
    """Mean of the two error rates at the threshold where they are closest."""
    reals, fakes = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    thresholds = np.unique(scores)
    false_positives = 1 - np.searchsorted(reals, thresholds) / len(reals)
    misses = np.searchsorted(fakes, thresholds) / len(fakes)
    closest = np.argmin(np.abs(false_positives - misses))
    return float((false_positives[closest] + misses[closest]) / 2)


def sigmoid(logits: Scores) -> Scores:
    """Probabilities of logits, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def log_loss(labels: Labels, logits: Scores) -> float:
    """Mean negative log-likelihood, nats."""
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def brier(labels: Labels, probabilities: Scores) -> float:
    """Mean squared difference between probability and label."""
    return float(np.mean((probabilities - labels) ** 2))


def calibration_error(labels: Labels, probabilities: Scores, bins: int = 15) -> float:
    """Mean gap between probability and share of fakes over equal-width bins, weighted by their size (ECE)."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = [
        abs(probabilities[index == number].sum() - labels[index == number].sum())
        for number in np.unique(index)
    ]
    return float(sum(gaps) / len(labels))


@dataclass(frozen=True, slots=True)
class Calibration:
    """`logit * slope + bias` is the calibrated logit for a set that is half fakes."""

    slope: float
    bias: float

    def apply(self, logits: Scores) -> Scores:
        """Calibrated logits."""
        return logits * self.slope + self.bias


def calibrate(labels: Labels, logits: Scores) -> Calibration:
    """Slope and bias with the least log loss, each class weighted to one half.

    A penalty of some ten samples' weight holds them to 1 and 0: a few that are told apart without a mistake
    would otherwise ask for an endless slope, and every real above them would score 1.
    """
    prior = _PRIOR_SAMPLES / 2 / max(1, len(labels))
    weight = np.where(labels == 1, 0.5 / max(1, labels.sum()), 0.5 / max(1, (1 - labels).sum()))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        calibrated = logits * parameters[0] + parameters[1]
        error = weight * (sigmoid(calibrated) - labels)
        value = np.sum(weight * (np.logaddexp(0.0, calibrated) - labels * calibrated))
        away = parameters - (1.0, 0.0)
        value += prior * np.sum(away**2)
        return float(value), np.array([np.sum(error * logits), np.sum(error)]) + 2 * prior * away

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), (None, None)]
    )
    return Calibration(float(found.x[0]), float(found.x[1]))


def interval(
    figure: Callable[[Labels, Scores], float],
    labels: Labels,
    scores: Scores,
    groups: Groups,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a figure: whole groups drawn with replacement; draws without a value left out."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))])
        values.append(figure(labels[rows], scores[rows]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def false_positive_interval(
    labels: Labels, scores: Scores, groups: Groups, threshold: float, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the share of reals at or above a fixed threshold."""
    reals = labels == 0

    def rate(_: Labels, drawn: Scores) -> float:
        return float((drawn >= threshold).mean())

    return interval(rate, labels[reals], scores[reals], groups[reals], draws, seed)
