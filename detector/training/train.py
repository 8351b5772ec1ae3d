"""A whole training: stage A on crops, stage B on clips, and the weights file that they end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from detector.network import ClipNetwork, build
from detector.training.clips import ClipOptions, clip_set, one_per_clip
from detector.training.data import Sample
from detector.training.finish import Draft, Figures, Scored, export
from detector.training.frames import FrameCycle, train_frames
from detector.training.heads import ClipSet, HeadOptions, HeadsEnd, clip_logits, train_heads
from detector.training.loop import CycleEnd
from detector.weights import Input, WeightsFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything that decides what the weights will be, beside the machine."""

    name: str
    """Of the weights, and of their file in the folder of `frames`."""
    frames: FrameCycle
    input: Input
    """Of the weights' header: how inference will cut what it is shown."""
    clips: ClipOptions | None = field(default_factory=ClipOptions)
    """None leaves the LSTM as it was, and gives it no share in the clip logit."""
    heads: HeadOptions = field(default_factory=HeadOptions)
    provenance: Mapping[str, str] = field(default_factory=dict)
    validation_data: str = ""
    """In words, what the thresholds are measured on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training left; no weights where it was asked to stop."""

    end: CycleEnd
    heads: HeadsEnd | None = None
    path: Path | None = None
    weights: WeightsFile | None = None
    figures: Figures | None = None


def train(plan: Training) -> Outcome:
    """Trains, or goes on where an earlier call was stopped or killed.

    Raises:
        InputError: The samples do not make pairs.
        WeightsError: `init_from` has another architecture.
    """
    done = train_frames(plan.frames)
    if done.state is None or done.end.signal is not None:
        return Outcome(done.end)
    network = build(plan.frames.architecture)
    network.load_state_dict(done.state)
    heads, scored = _train_on_clips(network, plan, plan.clips) if plan.clips else (None, None)
    draft = Draft(
        name=plan.name,
        architecture=msgspec.structs.replace(plan.frames.architecture, mix=heads.mix if heads else 0.0),
        input=plan.input,
        provenance=plan.provenance,
    )
    path = plan.frames.folder / f"{plan.name}.safetensors"
    validation = one_per_clip(plan.frames.validation)
    weights, figures = export(path, draft, network.state_dict(), validation, plan.validation_data, scored)
    return Outcome(done.end, heads, path, weights, figures)


def _train_on_clips(
    network: ClipNetwork, plan: Training, options: ClipOptions
) -> tuple[HeadsEnd, Scored | None]:
    """Trains the LSTM in place; where it gets a share, also what the policy is to be fitted on."""
    size, folder = plan.frames.batches.size, plan.frames.folder / "clips"
    network.eval()

    def features(samples: list[Sample], *, training: bool) -> ClipSet:
        return clip_set(network, samples, options, folder, size=size, training=training)

    train, validation = (
        features(list(samples), training=training)
        for samples, training in ((plan.frames.train, True), (plan.frames.validation, False))
    )
    heads = train_heads(network, train, validation, plan.heads)
    if not heads.mix:
        return heads, None
    logits = clip_logits(network, validation, heads.mix)
    return heads, Scored(validation.labels.long().numpy(), logits, validation.groups)
