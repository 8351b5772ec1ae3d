"""Calibration and thresholds: what turns a logit into a score and a verdict."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from detector.evaluation.intervals import (
    Interval,
    effective_items,
    effective_scores,
    rate_at_threshold,
)
from detector.evaluation.metrics import Groups, Labels, Scores, sigmoid, threshold_at
from detector.types import Policy
from detector.verdict import score_of

FLAG_FPR = 0.01
UNCERTAIN_FPR = 0.05
STRICT_FPR = 0.001
STRICT_GROUPS = 3000
"""Independent groups of reals below which nothing can be said of 0.1 % false positives."""

_PRIOR_SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """`logit * slope + bias` is the calibrated logit for a set that is half fakes (Platt scaling)."""

    slope: float
    bias: float

    def apply(self, logits: Scores) -> Scores:
        """Calibrated logits."""
        return logits * self.slope + self.bias

    def scores(self, logits: Scores) -> Scores:
        """p_fake [N], to the last bit as a scan and a query judge it."""
        return np.array([score_of(logit, self.slope, self.bias) for logit in logits.tolist()], np.float64)


def half_and_half(labels: Labels) -> Scores:
    """Weights [N] under which each class makes up one half; they sum to 1."""
    fakes = int(labels.sum())
    return np.asarray(
        np.where(labels == 1, 0.5 / max(1, fakes), 0.5 / max(1, len(labels) - fakes)), np.float64
    )


def calibrate(labels: Labels, logits: Scores, weights: Scores | None = None) -> Calibration:
    """Slope and bias with the least log loss, each class weighted to one half unless weights [N] are given.

    A penalty of some ten samples' weight on how far the slope spreads the logits holds it to 1: a few that
    are told apart without a mistake would otherwise ask for an endless slope, and reals above them score 1.
    """
    prior = _PRIOR_SAMPLES / 2 / max(1, len(labels)) * max(float(np.var(logits)), 1e-6)
    weight = half_and_half(labels) if weights is None else weights / weights.sum()

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        calibrated = logits * parameters[0] + parameters[1]
        error = weight * (sigmoid(calibrated) - labels)
        value = np.sum(weight * (np.logaddexp(0.0, calibrated) - labels * calibrated))
        away = parameters[0] - 1.0
        value += prior * away**2
        return float(value), np.array([np.sum(error * logits) + 2 * prior * away, np.sum(error)])

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, 1e3), (None, None)]
    )
    return Calibration(float(found.x[0]), float(found.x[1]))


def cross_fitted(
    labels: Labels, logits: Scores, groups: Groups, *, balanced: bool, folds: int = 5, seed: int = 0
) -> Scores | None:
    """Calibrated logits [N], each by a calibration that was fitted without its group.

    Args:
        labels: [N].
        logits: [N].
        groups: [N].
        balanced: Weight each class to one half; else the share of fakes is that of the data.
        folds: How many calibrations are fitted.
        seed: Of the draw of groups.

    Returns:
        None where one of them would be fitted without one of the classes.
    """
    names, index = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[index] % min(folds, len(names))
    fitted = np.full(len(logits), np.nan)
    for number in np.unique(fold):
        held = fold == number
        others = labels[~held]
        if len(set(others.tolist())) < 2:
            return None
        weights = None if balanced else np.ones(len(others))
        fitted[held] = calibrate(others, logits[~held], weights).apply(logits[held])
    return fitted


def fit_policy(labels: Labels, logits: Scores, groups: Groups, data: str) -> Policy:
    """Calibration and thresholds from the logits of crops that were not trained on.

    Args:
        labels: [N].
        logits: [N], of clips of one frame.
        groups: [N], people.
        data: In words, what was measured on.
    """
    calibration = calibrate(labels, logits)
    scores = calibration.scores(logits)
    reals = labels == 0
    independent = len(set(groups[reals].tolist()))
    # Below one half a score speaks for real; few reals, told apart easily, would put the threshold there.
    flag, uncertain, strict = (
        min(1.0, max(0.5, threshold_at(labels, scores, rate)))
        for rate in (FLAG_FPR, UNCERTAIN_FPR, STRICT_FPR)
    )
    return named(
        Policy(
            policy_id="",
            slope=calibration.slope,
            bias=calibration.bias,
            flag=flag,
            flag_fpr=FLAG_FPR,
            uncertain=uncertain,
            uncertain_fpr=UNCERTAIN_FPR,
            level="crop",
            flag_interval=_rate(scores[reals], groups[reals], flag),
            uncertain_interval=_rate(scores[reals], groups[reals], uncertain),
            groups=independent,
            data=data,
            strict=strict if independent >= STRICT_GROUPS else None,
        )
    )


def set_thresholds(
    policy: Policy, logits: Scores, groups: Groups, data: str, *, flag_fpr: float, uncertain_fpr: float
) -> Policy:
    """The policy with thresholds at video level, from videos that are real.

    The expected false-positive rate of each is at most the one that was asked for; its interval is that of
    the true rate on videos such as these.

    Args:
        policy: Its calibration is kept.
        logits: [N], of the videos.
        groups: [N], accounts or people; a name of its own for each where nothing is known.
        data: In words, what was measured on.
        flag_fpr: False-positive rate of `flagged`.
        uncertain_fpr: Of `uncertain` and above.

    Raises:
        TooFewRealsError: There are fewer videos than a rate needs.
    """
    scores = Calibration(policy.slope, policy.bias).scores(logits)
    flag, uncertain = (_threshold(scores, groups, rate) for rate in (flag_fpr, uncertain_fpr))
    uncertain = min(flag, uncertain)  # groups may tell less about the higher rate than about the lower
    strict = None
    if len(set(groups.tolist())) >= STRICT_GROUPS:
        strict = _threshold(scores, groups, STRICT_FPR)
    return named(
        replace(
            policy,
            flag=flag,
            flag_fpr=flag_fpr,
            flag_interval=_rate(scores, groups, flag),
            uncertain=uncertain,
            uncertain_fpr=uncertain_fpr,
            uncertain_interval=_rate(scores, groups, uncertain),
            strict=strict,
            level="video",
            groups=len(set(groups.tolist())),
            data=data,
        )
    )


class TooFewRealsError(ValueError):
    """There are fewer real videos than a false-positive rate needs; the message says how many would do."""

    def __init__(self, rate: float, there: int, needed: int) -> None:
        super().__init__(
            f"a threshold at {rate:.2%} false positives needs at least {needed:,} real videos; "
            f"{there:,} are there"
        )


def reals_needed(rate: float) -> int:
    """Independent real videos without which no threshold has that expected false-positive rate.

    The highest of n reals is passed by 1 in n + 1 further ones on average.
    """
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def named(policy: Policy) -> Policy:
    """The policy under the id that its content has."""
    digest = hashlib.sha256(msgspec.json.encode(replace(policy, policy_id=""))).hexdigest()
    return replace(policy, policy_id=digest[:12])


def _threshold(scores: Scores, groups: Groups, rate: float) -> float:
    """Lowest threshold whose expected false-positive rate is at most that, as few reals as there may be."""
    count, labels = len(scores), np.zeros(len(scores), np.int64)
    if not count:
        raise TooFewRealsError(rate, 0, reals_needed(rate))
    effective = _effective(scores, groups, threshold_at(labels, scores, rate))
    each = effective / count
    allowed = math.floor((rate * (effective + 1) - 1) / each + 1e-9)
    if allowed < 0:
        raise TooFewRealsError(rate, count, math.ceil(reals_needed(rate) / each - 1e-9))
    return min(1.0, threshold_at(labels, scores, allowed / count))


def _rate(scores: Scores, groups: Groups, threshold: float) -> Interval:
    """Interval of the true false-positive rate of a threshold that was set on these reals."""
    effective = _effective(scores, groups, threshold)
    return rate_at_threshold(float((scores >= threshold).mean()) * effective, effective)


def _effective(scores: Scores, groups: Groups, threshold: float) -> float:
    """Independent reals that these are worth: by the scores, or by what is above the threshold, if fewer."""
    return min(effective_scores(scores, groups), effective_items(scores >= threshold, groups))
