"""Scores of labelled data as a report: a dict for programs, and words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from detector.errors import InputError
from detector.evaluation import figures
from detector.evaluation.calibration import Calibration, cross_fitted
from detector.evaluation.figures import Items
from detector.evaluation.metrics import Ranking, debiased_calibration_error, equal_mass_bins, sigmoid
from detector.training.data import Sample
from detector.types import Policy
from detector.weights import WeightsFile
from jobs.dataset import is_video
from jobs.evaluate import FACE_PX, Scores
from jobs.schema import printable

SCHEMA = 1
SLICED_BY = ("source", "manipulation", "compression", FACE_PX)
_BINS = 40
_POINTS = 400
_FOLDS = 5


def check_columns(samples: Sequence[Sample], slice_by: Sequence[str]) -> None:
    """Before anything is scored.

    Raises:
        InputError: There is no such column.
    """
    known = {name: None for sample in samples for name, _ in sample.facets}
    if any(map(is_video, samples)):
        known[FACE_PX] = None
    if missing := [column for column in slice_by if column not in known]:
        raise InputError(
            f"no column {', '.join(missing)} to slice by", hint=f"There are: {', '.join(known) or 'none'}."
        )


def report(
    scores: Scores, weights: WeightsFile, policy: Policy, slice_by: Sequence[str], **about: Any
) -> dict[str, Any]:
    """Everything that `evaluate` has to say; docs/evaluate.md describes each key.

    Args:
        scores: From `evaluate`.
        weights: That were evaluated.
        policy: Calibration and thresholds that they were judged by.
        slice_by: Columns, beside the usual ones; one that nothing has a value of makes no slices.
        about: What else is to be known of the run.
    """
    items = scores.frame if scores.video is None else scores.video
    columns = [name for name in dict.fromkeys((*SLICED_BY, *slice_by)) if name in items.facets]
    return {
        "schema": SCHEMA,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("deepfake-scan"),
        "weights": {"name": weights.header.name, "weights_id": weights.weights_id, "sha256": weights.sha256},
        "policy": asdict(policy),
        **about,
        "outcomes": scores.outcomes,
        "unit": "frame" if scores.video is None else "video",
        "video": None if scores.video is None else figures.figures(scores.video, policy),
        "frame": figures.figures(scores.frame, policy),
        "calibration": _calibration(items, policy),
        "slices": figures.slices(items, policy, columns),
        "robustness": [
            {"condition": name} | figures.change(items, after, policy)
            for name, after in scores.changed.items()
        ],
        "curves": _curves(items, policy),
    }


def _calibration(items: Items, policy: Policy) -> dict[str, Any]:
    """Whether probabilities can be believed: as shipped, and as a calibration on these very data would be."""
    covered = items.only(items.covered)
    groups = len(set(covered.groups.tolist()))
    if len(set(covered.labels.tolist())) < 2 or groups < _FOLDS:
        return {"shipped": None, "cross_fitted": None}
    shipped = Calibration(policy.slope, policy.bias).apply(covered.logits)
    fitted = cross_fitted(covered.labels, covered.logits, covered.groups, balanced=False, folds=_FOLDS)
    return {
        name: None if logits is None else debiased_calibration_error(covered.labels, sigmoid(logits))
        for name, logits in (("shipped", shipped), ("cross_fitted", fitted))
    }


def _curves(items: Items, policy: Policy) -> dict[str, Any]:
    """What the page draws: ROC, reliability, histogram of p_fake by class."""
    covered = items.only(items.covered)
    p = Calibration(policy.slope, policy.bias).scores(covered.logits)
    false, true = Ranking(covered.labels, covered.logits).curve().roc()
    kept = np.unique(np.linspace(0, len(false) - 1, min(_POINTS, len(false))).astype(int))
    edges = np.linspace(0, 1, _BINS + 1)
    return {
        "roc": {"false_positive_rate": false[kept].tolist(), "true_positive_rate": true[kept].tolist()},
        "reliability": [asdict(one) for one in equal_mass_bins(covered.labels, p)],
        "histogram": {
            "edges": edges.tolist(),
            "reals": np.histogram(p[covered.labels == 0], edges)[0].tolist(),
            "fakes": np.histogram(p[covered.labels == 1], edges)[0].tolist(),
        },
    }


def in_words(found: Mapping[str, Any]) -> str:
    """For a terminal."""
    unit = found["unit"]
    lines = [
        f"{printable(found['weights']['name'])} ({found['weights']['weights_id']})",
        *_block(unit, found[unit]),
    ]
    if unit == "video":
        lines += _block("frame", found["frame"])
    if (shipped := found["calibration"]["shipped"]) is not None:
        fitted = found["calibration"]["cross_fitted"]
        lines.append(
            f"calibration error, debiased: {shipped:.3f}"
            + ("" if fitted is None else f"; fitted on such data: {fitted:.3f}")
        )
    for name, title in (("slices", "slices"), ("robustness", "after a change of the pictures")):
        if found[name]:
            lines += ["", f"{title}:", *map(_sliced if name == "slices" else _changed, found[name])]
    return "\n".join(lines)


SHOWN = {
    "auc": "AUC",
    "average_precision": "average precision",
    "equal_error_rate": "equal error rate",
    "tpr_at_fpr_5": "fakes found at 5 % false positives",
    "tpr_at_fpr_1": "fakes found at 1 % false positives",
    "recall": "fakes flagged",
    "false_positive_rate": "reals flagged",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
}


def _block(unit: str, held: Mapping[str, Any]) -> list[str]:
    abstained = held["abstained_reals"] + held["abstained_fakes"]
    lines = [
        f"{held['reals']:,} real and {held['fakes']:,} fake {unit}s of {held['groups']:,} groups"
        + (f", {abstained:,} of them without a score" if abstained else "")
    ]
    for name, title in SHOWN.items():
        if held.get(name) is not None:
            lines.append(f"  {title:36} {held[name]:.3f}{_in_brackets(held['intervals'].get(name))}")
    if abstained and held["all"] and held["all"]["auc"] is not None:
        lines.append(f"  {'AUC, no score counted as wrong':36} {held['all']['auc']:.3f}")
    return lines


def _sliced(one: Mapping[str, Any]) -> str:
    parts = [f"{one['reals']:,} real", f"{one['fakes']:,} fake"]
    if one.get("auc") is not None:
        parts.append(f"AUC {one['auc']:.3f}{_in_brackets(one['intervals'].get('auc'))}")
    for name, title in (("false_positive_rate", "reals flagged"), ("recall", "fakes flagged")):
        if one.get(name) is not None and not (
            name == "false_positive_rate" and one["against"] == "all reals"
        ):
            parts.append(f"{title} {one[name]:.3f}{_in_brackets(one['intervals'].get(name))}")
    return f"  {printable(one['column'])} {printable(one['value'])}: {', '.join(parts)}"


def _changed(one: Mapping[str, Any]) -> str:
    if one["auc"] is None:
        rate = one["false_positive_rate"]
        return f"  {one['condition']:16} " + ("-" if rate is None else f"reals flagged {rate:.3f}")
    change = f"{one['auc_change']:+.3f}{_in_brackets(one['auc_change_interval'])}"
    return f"  {one['condition']:16} AUC {one['auc']:.3f}, {change}"


def _in_brackets(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({interval_text(interval)})"


def interval_text(interval: Sequence[float] | None) -> str:
    """An interval for people; nothing where there is none."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def without_curves(found: Mapping[str, Any]) -> dict[str, Any]:
    """The report for `--json`."""
    return {name: value for name, value in found.items() if name != "curves"}
