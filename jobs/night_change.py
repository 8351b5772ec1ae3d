"""What one scan found against the one before: counts, kinds of failure, and how far scores moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from detector.types import Status, Verdict

PSI_LOOK, PSI_CHANGED = 0.1, 0.25
"""The usual rule of thumb: below the first steady, above the second changed."""
_PSI_BINS = 10
PSI_LEAST = 200
"""Scored videos of each scan: with fewer, chance alone gives 0.09 or more (`chance`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Videos of one scan: all, by status, by verdict of today, failed ones by reason."""

    videos: int
    statuses: Mapping[str, int]
    verdicts: Mapping[str, int]
    reasons: Mapping[str, int]

    @property
    def scored(self) -> int:
        """Scored videos."""
        return self.statuses[Status.SCORED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The scan before, and how far scores moved since.

    Attributes:
        scan_id: Of the one before.
        started_at: Of the one before.
        same_settings: True if scores are comparable one by one.
        same_weights: True if the same network gave them.
        before: Its counts.
        new_reasons: Kinds of failure that it had none of.
        psi: How far the distribution of scores moved; None where `psi_missing` says why not.
        psi_missing: `few` scored videos in one of the scans, or other `weights`.
        chance: What `psi` is on average if nothing changed.
    """

    scan_id: str
    started_at: datetime
    same_settings: bool
    same_weights: bool
    before: Counted
    new_reasons: tuple[str, ...]
    psi: float | None = None
    psi_missing: Literal["few", "weights"] | None = None
    chance: float | None = None

    @property
    def reading(self) -> Literal["steady", "look", "changed"] | None:
        """The rule of thumb."""
        if self.psi is None:
            return None
        return "steady" if self.psi < PSI_LOOK else "changed" if self.psi > PSI_CHANGED else "look"


def counted(connection: duckdb.DuckDBPyConnection, scan: str) -> Counted:
    """Counts over the table `night`, which `jobs.night` makes of the rows of two scans."""
    question = (
        "SELECT status, verdict_today, reason, count(*) AS videos FROM night WHERE scan_id = $scan "
        "GROUP BY ALL ORDER BY videos DESC, reason"
    )
    rows = connection.execute(question, {"scan": scan}).fetchall()
    statuses = {str(status): 0 for status in Status}
    verdicts = {str(verdict): 0 for verdict in Verdict}
    reasons: dict[str, int] = {}
    for status, verdict, reason, videos in rows:
        statuses[status] = statuses.get(status, 0) + videos  # a newer release may know more of them
        verdicts[verdict] = verdicts.get(verdict, 0) + videos
        if reason is not None:
            reasons[reason] = reasons.get(reason, 0) + videos
    return Counted(
        videos=sum(videos for *_, videos in rows), statuses=statuses, verdicts=verdicts, reasons=reasons
    )


def moved(connection: duckdb.DuckDBPyConnection, before: str, now: str) -> tuple[float, float] | None:
    """`psi` of the scores of two scans in the table `night`, and `chance`; None where they are too few."""
    one, two = _logits(connection, before), _logits(connection, now)
    if min(len(one), len(two)) < PSI_LEAST:
        return None
    return psi(one, two), chance(len(one), len(two))


def psi(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Population stability index of scores, over ten bins that hold a tenth of `before` each.

    An empty bin counts as half a video: its logarithm would be infinite.
    """
    edges = np.unique(np.quantile(before, np.arange(1, _PSI_BINS) / _PSI_BINS))
    one, two = (
        np.maximum(np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1), 0.5) / len(scores)
        for scores in (before, now)
    )
    return float(np.sum((two - one) * np.log(two / one)))


def chance(before: int, now: int) -> float:
    """What `psi` is on average where so many scores come from one distribution."""
    return (_PSI_BINS - 1) * (1 / before + 1 / now)


def _logits(connection: duckdb.DuckDBPyConnection, scan: str) -> NDArray[np.float64]:
    """Raw, because another calibration between two scans moves p_fake and is no news of the videos."""
    question = "SELECT logit FROM night WHERE scan_id = $scan AND logit IS NOT NULL"
    return np.asarray(connection.execute(question, {"scan": scan}).fetchnumpy()["logit"], np.float64)
