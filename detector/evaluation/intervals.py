"""Intervals at 95 %: figures of re-drawn groups, rates of rare events, rates at a threshold that was set.

Items of one group (a person, an account) resemble each other, so what is drawn is whole groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, rankdata, t

from detector.evaluation.metrics import Groups, Labels, Ranking, Scores

Interval = tuple[float, float]
"""Lower and upper end."""

_OUTSIDE = 0.05
_DRAWS = 1000


def bootstrap(
    figures: Callable[[Scores], Mapping[str, float]], groups: Groups, draws: int = _DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of figures: groups are drawn with replacement, and their items weigh as often as drawn.

    Percentiles are widened for the number of groups, without which intervals of a few groups are too
    narrow (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.2). What comes out the
    same in every draw, such as an AUC of 1, tells nothing of further groups, and has no interval.

    Args:
        figures: Takes weights [N] of the items; what it cannot say is nan.
        groups: [N].
        draws: How often.
        seed: Of the draws.

    Returns:
        The interval of every figure; nan where fewer than half of the draws gave one, or all the same.
    """
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        nothing = float("nan"), float("nan")
        return dict.fromkeys(figures(np.ones(len(groups))), nothing)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    found = [figures(drawn[index].astype(np.float64)) for drawn in counts]
    return {name: _percentiles([one[name] for one in found], len(names)) for name in found[0]}


def _percentiles(values: list[float], groups: int) -> Interval:
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) < max(2, len(values) / 2) or np.ptp(finite) == 0:
        return float("nan"), float("nan")
    widened = t.ppf(_OUTSIDE / 2, groups - 1) * math.sqrt(groups / (groups - 1))
    low, high = np.quantile(finite, [norm.cdf(widened), norm.sf(widened)])
    return float(low), float(high)


def auc_interval(
    labels: Labels, scores: Scores, groups: Groups, draws: int = _DRAWS, seed: int = 0
) -> Interval:
    """Interval of the AUC."""
    ranking = Ranking(labels, scores)
    return bootstrap(lambda weights: {"auc": ranking.curve(weights).auc}, groups, draws, seed)["auc"]


def auc_change_interval(
    labels: Labels, before: Scores, after: Scores, groups: Groups, draws: int = _DRAWS, seed: int = 0
) -> Interval:
    """Interval of how much the AUC changes between two scores of the same items (paired)."""
    one, two = Ranking(labels, before), Ranking(labels, after)

    def change(weights: Scores) -> dict[str, float]:
        return {"change": two.curve(weights).auc - one.curve(weights).auc}

    return bootstrap(change, groups, draws, seed)["change"]


def rate_interval(hit: NDArray[np.bool_], groups: Groups) -> Interval:
    """Interval of a share, right also where next to nothing is hit.

    Clopper-Pearson with the effective number of items (Korn and Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data").
    """
    count = len(hit)
    if not count:
        return float("nan"), float("nan")
    share = float(hit.mean())
    effective = effective_items(hit, groups)
    low = beta.ppf(_OUTSIDE / 2, share * effective, (1 - share) * effective + 1) if share > 0 else 0.0
    high = beta.ppf(1 - _OUTSIDE / 2, share * effective + 1, (1 - share) * effective) if share < 1 else 1.0
    return float(low), float(high)


def effective_items(hit: NDArray[np.bool_], groups: Groups) -> float:
    """How many independent items say as much about a share as these grouped ones; all, if none is grouped.

    Where all are hit, or none, the groups tell nothing of each other and each counts as one item.
    """
    names, index = np.unique(groups, return_inverse=True)
    count, share = len(hit), float(hit.mean())
    if len(names) == count:
        return float(count)
    if share in (0.0, 1.0) or len(names) < 2:
        return float(len(names))
    away = np.bincount(index, hit - share)
    variance = len(names) / (len(names) - 1) * float(np.sum(away**2)) / count**2
    effective = min(float(count), share * (1 - share) / max(variance, 1e-300))
    fewer = (t.ppf(_OUTSIDE / 2, count - 1) / t.ppf(_OUTSIDE / 2, len(names) - 1)) ** 2
    return max(1.0, effective * fewer)


def effective_scores(scores: Scores, groups: Groups) -> float:
    """How many independent items say as much about a quantile of scores as these grouped ones.

    By the intraclass correlation of their normal ranks. What few items above a high threshold show of their
    groups is too little to go by; correlation at a threshold is mostly below that of the scores (Kish 1965,
    "Survey Sampling", section 5.4, for the design effect).
    """
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count = len(scores)
    if len(names) in (1, count):
        return float(len(names))
    ranks = norm.ppf((rankdata(scores) - 0.5) / count)
    means = np.bincount(index, ranks) / sizes
    within = float(np.sum((ranks - means[index]) ** 2)) / (count - len(names))
    between = float(np.sum(sizes * (means - ranks.mean()) ** 2)) / (len(names) - 1)
    typical = (count - float(np.sum(sizes**2)) / count) / (len(names) - 1)
    spread = between + (typical - 1) * within
    alike = min(1.0, max(0.0, (between - within) / spread)) if spread > 0 else 1.0
    return count / (1 + (float(np.sum(sizes**2)) / count - 1) * alike)


def rate_at_threshold(flagged: float, effective: float) -> Interval:
    """Interval of the true false-positive rate of a threshold that was set by counting.

    A threshold just above the (k+1)-th highest of n reals flags a share of all reals whose distribution is
    Beta(k + 1, n - k), whatever that of the scores (Wilks 1941, "Determination of sample sizes for setting
    tolerance limits").

    Args:
        flagged: k, of the reals that it was set on.
        effective: n, independent reals.
    """
    shape = flagged + 1, max(1e-9, effective - flagged)
    return float(beta.ppf(_OUTSIDE / 2, *shape)), float(beta.ppf(1 - _OUTSIDE / 2, *shape))
