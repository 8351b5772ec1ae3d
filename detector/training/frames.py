"""Stage A: the trunk and the frame head on single crops, from a weights file to a weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from detector.crops import resize
from detector.efficientnet import EfficientNetLite0, load_state
from detector.network import ClipNetwork, build
from detector.training.curves import draw_curves
from detector.training.data import BatchOptions, CropStore, PairedCrops, Sample
from detector.training.distil import Targets, cache_targets, normalised
from detector.training.finish import Draft, Figures, export, labels_of
from detector.training.loop import Cycle, CycleEnd, CycleOptions, Evaluate
from detector.training.metrics import auc
from detector.training.objective import FrameObjective, ObjectiveOptions, frame_logits
from detector.training.start import start_from
from detector.weights import Architecture, Input, WeightsFile

_NETWORK = "network."
_CROPS_PER_CALL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCycle:
    """One cycle of stage A."""

    name: str
    """Of the weights file."""
    train: Sequence[Sample]
    validation: Sequence[Sample]
    folder: Path
    """State of the cycle, the teacher's answers, and at the end `curves.png` and `NAME.safetensors`."""
    batches: BatchOptions = field(default_factory=BatchOptions)
    cycle: CycleOptions = field(default_factory=CycleOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    architecture: Architecture = field(default_factory=Architecture)
    init_from: Path | None = None
    """Weights or an ImageNet checkpoint, see `start_from`; None starts from the seed."""
    teacher: Path | None = None
    """State dict of an `EfficientNetLite0` with one logit, as safetensors; for a ResNeXt only."""
    teacher_size: int = 128
    """Side of the teacher's input, px."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    validation_data: str = ""
    """In words, what the thresholds are measured on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle left; no weights while it is not finished."""

    end: CycleEnd
    weights: WeightsFile | None = None
    figures: Figures | None = None


def run(plan: FrameCycle) -> Outcome:
    """Runs a cycle, or goes on with one that was stopped; the same call again after a stop.

    Raises:
        InputError: The samples do not make pairs.
        WeightsError: `init_from` has another architecture.
    """
    torch.manual_seed(plan.batches.seed)
    network = build(plan.architecture)
    if plan.init_from is not None:
        start_from(network, plan.init_from, plan.architecture)
    objective = FrameObjective(network, plan.objective, _targets(plan))
    batches = PairedCrops(plan.train, plan.batches)
    evaluate = _evaluate(plan.validation, plan.batches.size)
    cycle = Cycle(objective, batches, plan.folder, plan.cycle, evaluate)
    end = cycle.run()
    if not end.finished:
        return Outcome(end)
    draw_curves(plan.folder)
    weights, figures = export(
        plan.folder / f"{plan.name}.safetensors",
        draft_of(plan),
        network_state(cycle.averaged_state()),
        plan.validation,
        plan.validation_data,
    )
    return Outcome(end, weights, figures)


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of the state of a `FrameObjective`."""
    return {name.removeprefix(_NETWORK): value for name, value in state.items() if name.startswith(_NETWORK)}


def draft_of(plan: FrameCycle) -> Draft:
    """The header of the weights that a cycle ends in."""
    return Draft(
        name=plan.name,
        architecture=plan.architecture,
        input=Input(size=plan.batches.size),
        provenance=plan.provenance,
    )


def _targets(plan: FrameCycle) -> Targets | None:
    if plan.teacher is None:
        return None
    from safetensors.torch import load_file

    teacher = EfficientNetLite0()
    load_state(teacher, load_file(plan.teacher))
    return cache_targets(teacher, plan.train, plan.folder / "teacher", plan.teacher_size, plan.cycle.workers)


def _evaluate(samples: Sequence[Sample], size: int) -> Evaluate:
    """AUC of the frame head on whole, undegraded crops, which are read once."""
    store = CropStore()
    pixels = torch.from_numpy(np.stack([resize(store.read(sample.uri), size) for sample in samples]))
    labels = labels_of(samples)

    def evaluate(module: nn.Module) -> dict[str, float]:
        network = cast(ClipNetwork, module.get_submodule("network"))
        device = next(network.parameters()).device
        parts = [
            frame_logits(network, normalised(part.to(device)))
            for part in torch.split(pixels, _CROPS_PER_CALL)
        ]
        return {"auc": auc(labels, torch.cat(parts).double().cpu().numpy())}

    return evaluate
