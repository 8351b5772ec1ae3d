"""What a training says when it begins and when it ends."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any, cast

from detector.training.train import Outcome, Training
from jobs.printing import plain

_FEW_GROUPS = 20


def opening(plan: Training) -> str:
    """What is about to be trained, on what, for how long."""
    frames = plan.frames
    fakes = sum(crop.label for crop in frames.train)
    start = frames.init_from or "random weights"
    return (
        f"{frames.architecture.family}, {frames.batches.size} px, from {start}: "
        f"{len(frames.train) - fakes:,} real and {fakes:,} fake crops to learn from, "
        f"{len(frames.validation):,} to validate; {frames.batches.steps:,} steps of {frames.batches.batch}"
    )


def closing(outcome: Outcome) -> str:
    """What was reached, and what to do with it."""
    if outcome.figures is None:
        return f"stopped at step {outcome.end.step:,}; the same command goes on from there"
    figures, heads = outcome.figures, outcome.heads
    # Of one group there is no interval.
    interval = f"{figures.auc_low:.3f} to {figures.auc_high:.3f}; " if isfinite(figures.auc_low) else ""
    text = (
        f"validation AUC {figures.auc:.3f} ({interval}"
        f"{figures.crops:,} crops of {figures.groups:,} groups), after JPEG 40 {figures.auc_jpeg40:.3f}, "
        f"on self-blends of unseen families {figures.auc_unseen_blends:.3f}\n"
    )
    if heads is not None:
        text += (
            f"clips: frames alone {heads.auc_frames:.3f}, "
            f"with {heads.mix:.0%} of the LSTM {heads.auc_by_mix[heads.mix]:.3f}\n"
        )
    if figures.groups < _FEW_GROUPS:
        text += (
            f"warning: thresholds from {figures.groups:,} groups say next to nothing of false alarms; "
            f"have at least {_FEW_GROUPS} people in validation before verdicts mean anything\n"
        )
    return f"{text}Next: deepfake-scan scan VIDEOS --output RESULTS --weights {outcome.path}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The same for programs; what is no number, as the interval of one group, is null."""
    content = {
        "finished": outcome.weights is not None,
        "step": outcome.end.step,
        "weights": None if outcome.path is None else str(outcome.path),
        "weights_id": None if outcome.weights is None else outcome.weights.weights_id,
        "figures": None if outcome.figures is None else asdict(outcome.figures),
        "clips": None if outcome.heads is None else asdict(outcome.heads),
    }
    return cast(dict[str, Any], plain(content))
