"""Thresholds and calibration from a user's own videos: what is not in the table yet is scanned, then counted.

Raw logits stand in the table, so nothing is scanned again for a new policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from detector.errors import InputError
from detector.evaluation.calibration import (
    STRICT_GROUPS,
    Calibration,
    TooFewRealsError,
    calibrate,
    cross_fitted,
    half_and_half,
    named,
    set_thresholds,
)
from detector.evaluation.metrics import Groups, Labels, Scores, log_loss
from detector.training.data import Sample, read_samples
from detector.types import Policy
from jobs import policies, query, scan
from jobs.config import ScanSettings
from jobs.listing import Listing
from jobs.local import scheme_of, uri_of
from jobs.manifests import is_manifest
from jobs.preparation import prepare
from jobs.schema import printable
from jobs.units import format_percent

_LEAST_OF_A_CLASS = 10

# The newest answer to each video under these settings; those of trials count as well.
_ROWS = """
SELECT uri, logit, extra['group'] AS account
FROM results WHERE settings_id = $settings_id
QUALIFY row_number() OVER (PARTITION BY uri ORDER BY scanned_at DESC, attempt DESC) = 1
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be calibrated on, and to which rates."""

    reals: Sequence[str]
    """Inputs of videos that are assumed real, lists of them included."""
    labels: str | None
    """CSV of labelled videos: uri,label,group."""
    flag_fpr: float
    uncertain_fpr: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A policy, and what it was made from."""

    policy: Policy
    before: Policy
    reals: int
    fakes: int
    unscored: int
    known_fakes: int
    """Videos among those that were to be assumed real that the labels call fakes; they were left out."""
    flagged_before: float
    """Share of the reals that the policy of before flags."""
    loss_before: float | None
    """Mean log loss with each class weighted to one half, as it is fitted."""
    loss_after: float | None
    """The same, each video judged by a calibration that was fitted without its group."""

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def in_words(self, path: str) -> str:
        """For a terminal."""
        policy = self.policy
        lines = [
            f"{self.reals:,} real videos of {policy.groups:,} groups"
            + (f" and {self.fakes:,} fakes" if self.fakes else "")
            + (f"; {self.unscored:,} more have no score" if self.unscored else "")
            + (f"; {self.known_fakes:,} that the labels call fake are left out" if self.known_fakes else "")
        ]
        if self.loss_before is not None and self.loss_after is not None:
            lines.append(
                f"log loss, half of them taken for fakes: {self.loss_before:.3f} as shipped, "
                f"{self.loss_after:.3f} calibrated (on other groups than it is judged on)"
            )
        for name, threshold, rate, interval in (
            ("flagged", policy.flag, policy.flag_fpr, policy.flag_interval),
            ("uncertain", policy.uncertain, policy.uncertain_fpr, policy.uncertain_interval),
        ):
            low, high = interval or (0.0, 1.0)
            lines.append(
                f"{name:9} from p_fake {threshold:.4f}: at most {format_percent(rate)} false positives on "
                f"average, 95 % sure of {low:.2%} to {high:.2%}"
            )
        if policy.strict is None:
            lines.append(f"strict, 0.1 % false positives: no threshold; that needs {STRICT_GROUPS:,} groups")
        else:
            lines.append(f"strict, 0.1 % false positives: from p_fake {policy.strict:.4f}")
        lines.append(f"the policy of before flags {self.flagged_before:.2%} of these reals")
        lines.append(f"{path}: use it as `scan --policy` or `query flagged --policy`")
        return "\n".join(lines)


def run(settings: ScanSettings, wish: Wish, path: Path, *, quiet: bool = False) -> Calibrated:
    """Scans what the table does not hold yet, sets the thresholds, and writes the policy file.

    Args:
        settings: Of the scan; its output is the table that is read, and its inputs are replaced.
        wish: Which videos, which rates.
        path: Of the policy file.
        quiet: Say nothing of the scan.

    Raises:
        InputError: There are too few videos, or labels of one class only.
        DeepfakeScanError: As `scan`.
    """
    labelled = _labelled(wish.labels)
    lists = [name for name in wish.reals if is_manifest(name)]
    videos = [name for name in wish.reals if name not in lists]
    job = prepare(settings.model_copy(update={"inputs": [*videos, *labelled], "manifests": lists}))
    summary = scan.run(job.settings, quiet=quiet)
    if summary.done and summary.exit_code not in (0, 3):
        raise InputError(f"the scan did not finish: exit code {summary.exit_code}", hint="Run it again.")
    with query.connect(job.output) as connection:
        rows = connection.sql(_ROWS, params={"settings_id": job.settings_id}).to_arrow_table()
    listing = Listing(videos, settings.include, job.output, manifests=lists) if wish.reals else ()
    accounts = {item.uri: dict(item.extra or ()).get("group") for item in listing}
    fakes = {uri for uri in accounts if uri in labelled and labelled[uri].label == 1}
    reals = _held(rows, {uri: account for uri, account in accounts.items() if uri not in fakes})
    weights = job.scoring.weights
    found = _calibrated(weights.header.policy, reals, _with_labels(rows, labelled), wish, len(fakes))
    policies.write(path, found.policy, weights.header.name, weights.weights_id, job.settings_id)
    return found


@dataclass(frozen=True, slots=True)
class _Videos:
    labels: Labels
    logits: Scores
    groups: Groups
    unscored: int


def _labelled(path: str | None) -> dict[str, Sample]:
    """Labelled videos by their uri."""
    samples = read_samples(Path(path)) if path else []
    return {sample.uri if scheme_of(sample.uri) else uri_of(sample.uri): sample for sample in samples}


def _held(rows: pa.Table, accounts: dict[str, str | None]) -> _Videos:
    """Videos that are assumed real; their group is the account that the list names, or that of their scan."""
    found = [row for row in rows.to_pylist() if row["uri"] in accounts]
    return _videos([(row, 0, accounts[row["uri"]] or row["account"] or row["uri"]) for row in found])


def _with_labels(rows: pa.Table, labelled: dict[str, Sample]) -> _Videos:
    pairs = [(row, labelled[row["uri"]]) for row in rows.to_pylist() if row["uri"] in labelled]
    return _videos([(row, sample.label, sample.group) for row, sample in pairs])


def _videos(found: Sequence[tuple[dict[str, Any], int, str]]) -> _Videos:
    scored = [one for one in found if one[0]["logit"] is not None]
    return _Videos(
        np.array([label for _, label, _ in scored], np.int64),
        np.array([row["logit"] for row, _, _ in scored], np.float64),
        np.array([group for _, _, group in scored], np.str_),
        len(found) - len(scored),
    )


def _calibrated(
    shipped: Policy, reals: _Videos, labelled: _Videos, wish: Wish, known_fakes: int
) -> Calibrated:
    policy = shipped
    losses: tuple[float | None, float | None] = (None, None)
    if wish.labels is not None:
        policy, losses = _refitted(shipped, labelled, wish.labels)
    own = reals if wish.reals else _only_reals(labelled)
    data = f"{len(own.logits):,} videos of {', '.join(wish.reals) or wish.labels}, assumed real"
    try:
        policy = set_thresholds(
            policy,
            own.logits,
            own.groups,
            printable(data),
            flag_fpr=wish.flag_fpr,
            uncertain_fpr=wish.uncertain_fpr,
        )
    except TooFewRealsError as error:
        raise InputError(
            str(error), hint="Name more videos, or ask for a higher rate: --flag-fpr, --uncertain-fpr."
        ) from error
    return Calibrated(
        policy=policy,
        before=shipped,
        reals=len(own.logits),
        fakes=int(labelled.labels.sum()),
        unscored=own.unscored + (labelled.unscored if wish.reals else 0),
        known_fakes=known_fakes,
        flagged_before=float((_shipped(shipped).scores(own.logits) >= shipped.flag).mean()),
        loss_before=losses[0],
        loss_after=losses[1],
    )


def _refitted(shipped: Policy, videos: _Videos, name: str) -> tuple[Policy, tuple[float, float | None]]:
    """The policy with slope and bias of these labels, and the log loss before and after."""
    counts = np.bincount(videos.labels, minlength=2)
    if counts.min() < _LEAST_OF_A_CLASS:
        raise InputError(
            f"{printable(name)}: {counts[0]:,} reals and {counts[1]:,} fakes have a score; a calibration "
            f"needs at least {_LEAST_OF_A_CLASS} of each"
        )
    fitted = calibrate(videos.labels, videos.logits)
    before, weights = _shipped(shipped).apply(videos.logits), half_and_half(videos.labels)
    after = cross_fitted(videos.labels, videos.logits, videos.groups, balanced=True)
    losses = (
        log_loss(videos.labels, before, weights),
        None if after is None else log_loss(videos.labels, after, weights),
    )
    return named(replace(shipped, slope=fitted.slope, bias=fitted.bias)), losses


def _only_reals(videos: _Videos) -> _Videos:
    held = videos.labels == 0
    return _Videos(videos.labels[held], videos.logits[held], videos.groups[held], videos.unscored)


def _shipped(policy: Policy) -> Calibration:
    return Calibration(policy.slope, policy.bias)
