"""Stage A: the trunk and the frame head on single crops, from a weights file to a weights file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from detector.crops import resize
from detector.degrade import Picture
from detector.evaluation.metrics import Scores, auc
from detector.model import load_network
from detector.network import ClipNetwork, build
from detector.training.batches import BatchOptions, PairedCrops
from detector.training.clips import one_per_clip
from detector.training.crop_store import CropStore
from detector.training.curves import draw_curves
from detector.training.data import Sample
from detector.training.distil import Targets, cache_targets, normalised
from detector.training.finish import labels_of, unseen_blend
from detector.training.folding import fold, unfolded
from detector.training.loop import Cycle, CycleEnd, CycleOptions, Evaluate
from detector.training.objective import FrameObjective, ObjectiveOptions, frame_logits
from detector.training.start import start_from
from detector.weights import Architecture, read

_NETWORK = "network."
_CROPS_PER_CALL = 64
_BLENDED_REALS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCycle:
    """One cycle of stage A."""

    train: Sequence[Sample]
    validation: Sequence[Sample]
    folder: Path
    """State of the cycle, the teacher's answers, and at the end `curves.png`."""
    batches: BatchOptions = field(default_factory=BatchOptions)
    cycle: CycleOptions = field(default_factory=CycleOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    architecture: Architecture = field(default_factory=Architecture)
    init_from: Path | None = None
    """Weights or an ImageNet checkpoint, see `start_from`; None starts from the seed."""
    folded: bool = False
    """Train with batch normalisation folded into the convolutions: for a start that is trained already."""
    teacher: Path | None = None
    """Weights file of an `efficientnet_lite0_lstm`; for a ResNeXt only."""


@dataclass(frozen=True, slots=True)
class FramesEnd:
    """How stage A ended; the state of the network is None while the cycle is not finished."""

    end: CycleEnd
    state: dict[str, Tensor] | None = None


def train_frames(plan: FrameCycle) -> FramesEnd:
    """Runs a cycle, or goes on with one that was stopped; the same call again after a stop.

    Raises:
        InputError: The samples do not make pairs.
        WeightsError: `init_from` has another architecture, or the teacher's tensors are not its header's.
    """
    torch.manual_seed(plan.batches.seed)
    start = plan.init_from
    network = build(plan.architecture) if start is None else start_from(start, plan.architecture)
    if plan.folded:
        fold(network)
    objective = FrameObjective(network, plan.objective, _targets(plan))
    batches = PairedCrops(plan.train, plan.batches)
    evaluate = _evaluate(one_per_clip(plan.validation), plan.batches.size)
    cycle = Cycle(objective, batches, plan.folder, plan.cycle, evaluate)
    end = cycle.run()
    draw_curves(plan.folder)
    if not end.finished:
        return FramesEnd(end)
    state = network_state(cycle.averaged_state())
    return FramesEnd(end, unfolded(state, build(plan.architecture)) if plan.folded else state)


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of the state of a `FrameObjective`."""
    return {name.removeprefix(_NETWORK): value for name, value in state.items() if name.startswith(_NETWORK)}


def _targets(plan: FrameCycle) -> Targets | None:
    if plan.teacher is None:
        return None
    weights = read(plan.teacher)
    size, workers = weights.header.input.size, plan.cycle.workers
    return cache_targets(load_network(weights), plan.train, plan.folder / "teacher", size, workers)


def _evaluate(samples: Sequence[Sample], size: int) -> Evaluate:
    """AUC of the frame head on whole, undegraded crops, and on blends of families that are not trained on."""
    store = CropStore()
    crops = _pixels((store.crop(sample) for sample in samples), size)
    labels = labels_of(samples)
    reals = [sample for sample in samples if sample.label == 0][:_BLENDED_REALS]
    blends = _pixels(
        (picture for number, real in enumerate(reals) for picture in unseen_blend(store, real, number)), size
    )
    blend_labels = np.tile(np.array([0, 1]), len(reals))

    def evaluate(module: nn.Module) -> dict[str, float]:
        network = cast(ClipNetwork, module.get_submodule("network"))
        return {
            "auc": auc(labels, _logits_of(network, crops)),
            "auc_unseen_blends": auc(blend_labels, _logits_of(network, blends)),
        }

    return evaluate


def _pixels(pictures: Iterable[Picture], size: int) -> Tensor:
    """[N, size, size, 3] uint8."""
    return torch.from_numpy(np.stack([resize(picture, size) for picture in pictures]))


def _logits_of(network: ClipNetwork, pixels: Tensor) -> Scores:
    """Frame logits [N] of pixels [N, S, S, 3] uint8."""
    device = next(network.parameters()).device
    parts = [
        frame_logits(network, normalised(part.to(device))) for part in torch.split(pixels, _CROPS_PER_CALL)
    ]
    return torch.cat(parts).double().cpu().numpy()
