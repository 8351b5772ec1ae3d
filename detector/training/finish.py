"""From trained weights to a weights file: figures on validation, calibration, thresholds, header."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import structs
from torch import Tensor

from detector.crops import resize
from detector.degrade import Look, Picture, Window, degrade
from detector.evaluation.calibration import FLAG_FPR, UNCERTAIN_FPR, fit_policy
from detector.evaluation.intervals import auc_interval
from detector.evaluation.metrics import Groups, Labels, Scores, auc, recall_at
from detector.model import Model, golden_logit
from detector.network import ClipNetwork, build
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.selfblend import Families, self_blend
from detector.types import Clips, Policy
from detector.weights import UNMEASURED, Architecture, Header, Input, WeightsFile, write

_CROPS_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """What a weights file is worth on labelled crops, each scored as a clip of one frame."""

    crops: int
    groups: int
    auc: float
    auc_low: float
    """Lower end of the 95 % interval, groups drawn."""
    auc_high: float
    auc_jpeg40: float
    auc_tighter: float
    """Margin 20 % smaller."""
    auc_wider: float
    """Margin 20 % larger, the crop mirrored at its border."""
    auc_unseen_blends: float
    """Reals against self-blended fakes of families that were not trained on."""
    recall_fpr5: float
    recall_fpr1: float


def measure(model: Model, samples: Sequence[Sample]) -> tuple[Figures, Scores]:
    """Figures of a model, and the logits [N] of the undegraded crops; takes five passes over the crops."""
    labels, groups = labels_of(samples), groups_of(samples)
    logits = logits_of(model, samples)
    low, high = auc_interval(labels, logits, groups)
    figures = Figures(
        crops=len(samples),
        groups=len(set(groups.tolist())),
        auc=auc(labels, logits),
        auc_low=low,
        auc_high=high,
        auc_jpeg40=auc(labels, logits_of(model, samples, _degraded(Look(jpeg=40)))),
        auc_tighter=auc(labels, logits_of(model, samples, Window(side=0.8).cut)),
        auc_wider=auc(labels, logits_of(model, samples, Window(side=1.2).cut)),
        auc_unseen_blends=_auc_on_blends(model, [sample for sample in samples if sample.label == 0]),
        recall_fpr5=recall_at(labels, logits, UNCERTAIN_FPR),
        recall_fpr1=recall_at(labels, logits, FLAG_FPR),
    )
    return figures, logits


def labels_of(samples: Sequence[Sample]) -> Labels:
    """Labels [N]."""
    return np.array([sample.label for sample in samples], np.int64)


def groups_of(samples: Sequence[Sample]) -> Groups:
    """Groups [N]."""
    return np.array([sample.group for sample in samples], np.str_)


def logits_of(
    model: Model, samples: Sequence[Sample], change: Callable[[Picture], Picture] | None = None
) -> Scores:
    """Clip logits [N] of crops, each a clip of one frame, after an optional change of the stored picture."""
    store = CropStore()

    def pictures(part: Sequence[Sample]) -> list[Picture]:
        read = [store.crop(sample) for sample in part]
        return [change(picture) for picture in read] if change else read

    parts = [
        score_pictures(model, pictures(samples[start : start + _CROPS_PER_CALL]))
        for start in range(0, len(samples), _CROPS_PER_CALL)
    ]
    return np.concatenate(parts)


def score_pictures(model: Model, pictures: Sequence[Picture]) -> Scores:
    """Clip logits [N] of square pictures of any size, each a clip of one frame."""
    size = model.header.input.size
    pixels = np.stack([resize(picture, size) for picture in pictures])[:, None]
    scores = model.score(Clips(pixels, np.ones((len(pixels), 1), np.bool_)))
    return np.array([score.logit for score in scores])


def _degraded(look: Look) -> Callable[[Picture], Picture]:
    return lambda picture: degrade(picture, look)


def unseen_blend(store: CropStore, real: Sample, number: int) -> tuple[Picture, Picture]:
    """A real and a blend of families that are not trained on; the number is the seed."""
    return self_blend(store.crop(real), Families.held_out(), np.random.default_rng(number))


def _auc_on_blends(model: Model, reals: Sequence[Sample]) -> float:
    store = CropStore()
    scores = [
        score_pictures(model, unseen_blend(store, sample, number)) for number, sample in enumerate(reals)
    ]
    return auc(np.tile(np.array([0, 1]), len(reals)), np.concatenate(scores))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a header says that figures do not."""

    name: str
    architecture: Architecture
    input: Input
    prior: float = 0.5
    provenance: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a policy is fitted on."""

    labels: Labels
    logits: Scores
    groups: Groups


def export(
    path: Path,
    draft: Draft,
    tensors: Mapping[str, Tensor],
    validation: Sequence[Sample],
    data: str,
    clips: Scored | None = None,
) -> tuple[WeightsFile, Figures]:
    """Writes a float16 weights file with policy and golden output, and measures the very file.

    Args:
        path: Of the file; its folder exists.
        draft: The rest of the header.
        tensors: State of a network of the draft's architecture, float32.
        validation: Crops that nothing was trained on.
        data: In words, what they are.
        clips: Validation clips where the LSTM has a share: single crops, which have no order, would give it
            thresholds of something else.
    """
    network = _rounded(draft.architecture, tensors)
    state = network.state_dict()
    # Not under its name before it has a policy: a training that is killed here must not look finished.
    draft_path = path.with_suffix(".unmeasured")
    first = write(draft_path, _header(draft, UNMEASURED, network), state)
    draft_path.unlink()
    figures, logits = measure(Model(first), validation)
    on = clips or Scored(labels_of(validation), logits, groups_of(validation))
    policy = fit_policy(on.labels, on.logits, on.groups, data)
    return write(path, _header(draft, policy, network), state), figures


def _rounded(architecture: Architecture, tensors: Mapping[str, Tensor]) -> ClipNetwork:
    """The network with the weights that a float16 file gives back: its golden output is that of the file."""
    network = build(architecture)
    rounded = {name: t.half().float() if t.is_floating_point() else t for name, t in tensors.items()}
    network.load_state_dict(rounded)
    return network.eval()


def _header(draft: Draft, policy: Policy, network: ClipNetwork) -> Header:
    header = Header(
        name=draft.name,
        architecture=draft.architecture,
        input=draft.input,
        storage="float16",
        prior=draft.prior,
        policy=policy,
        golden_logit=0.0,
        provenance=dict(draft.provenance),
    )
    return structs.replace(header, golden_logit=golden_logit(network, header))
