"""A whole training: stage A on crops, stage B on clips, and the weights file that they end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from detector.network import ClipNetwork, build
from detector.training.clips import ClipOptions, clip_set, one_per_clip
from detector.training.data import Sample
from detector.training.finish import Draft, Figures, export
from detector.training.frames import FrameCycle, train_frames
from detector.training.heads import ClipSet, HeadOptions, HeadsEnd, train_heads
from detector.training.loop import CycleEnd
from detector.weights import Input, WeightsFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything that decides what the weights will be, beside the machine."""

    name: str
    """Of the weights, and of their file in the folder of `frames`."""
    frames: FrameCycle
    clips: ClipOptions | None = field(default_factory=ClipOptions)
    """None leaves the LSTM as it was, with the share in the clip logit that the architecture says."""
    heads: HeadOptions = field(default_factory=HeadOptions)
    provenance: Mapping[str, str] = field(default_factory=dict)
    validation_data: str = ""
    """In words, what the thresholds are measured on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training left; no weights while it is not finished."""

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
    if done.state is None:
        return Outcome(done.end)
    architecture, heads = plan.frames.architecture, None
    network = build(architecture)
    network.load_state_dict(done.state)
    if plan.clips is not None:
        heads = _train_on_clips(network, plan, plan.clips)
        architecture = msgspec.structs.replace(architecture, mix=heads.mix)
    path = plan.frames.folder / f"{plan.name}.safetensors"
    draft = Draft(
        name=plan.name,
        architecture=architecture,
        input=Input(size=plan.frames.batches.size),
        provenance=plan.provenance,
    )
    validation = one_per_clip(plan.frames.validation)
    weights, figures = export(path, draft, network.state_dict(), validation, plan.validation_data)
    return Outcome(done.end, heads, path, weights, figures)


def _train_on_clips(network: ClipNetwork, plan: Training, options: ClipOptions) -> HeadsEnd:
    size, folder = plan.frames.batches.size, plan.frames.folder / "clips"
    network.eval()

    def features(samples: list[Sample], *, training: bool) -> ClipSet:
        return clip_set(network, samples, options, folder, size=size, training=training)

    train, validation = (
        features(list(samples), training=training)
        for samples, training in ((plan.frames.train, True), (plan.frames.validation, False))
    )
    return train_heads(network, train, validation, plan.heads)
