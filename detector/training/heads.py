"""Stage B: the LSTM and its head on cached features of clips, and their share in the clip logit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.evaluation.intervals import auc_change_interval
from detector.evaluation.metrics import Groups, Scores, auc
from detector.network import ClipNetwork
from detector.training.distil import normalised
from detector.types import Clips

_FRAMES_PER_CALL = 64
_MIXES = tuple(step / 10 for step in range(11))


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Features of labelled clips; what stage B is trained and chosen on."""

    features: Tensor
    """[N, T, P] float32, CPU; zeros where the mask is False."""
    mask: Tensor
    """[N, T] bool; the frames that it holds come first."""
    labels: Tensor
    """[N] float32, 1 = fake."""
    groups: Groups
    """[N] people."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOptions:
    """How stage B runs; it takes seconds to minutes, so it starts over rather than goes on."""

    epochs: int = 30
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropped_frames: float = 0.2
    """Chance that a frame is hidden in training, so that short clips are known."""
    least_gain: float = 0.002
    """AUC that the sequence has to add on validation; below it the mix is 0."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class HeadsEnd:
    """What validation says of the sequence."""

    mix: float
    """Share of the sequence logit in the clip logit."""
    auc_frames: float
    """Of the mean frame logit alone: the baseline."""
    auc_by_mix: dict[float, float]


def clip_features(network: ClipNetwork, clips: Clips) -> Tensor:
    """Features [N, T, P] float32 of clips, zeros where the mask is False; the network is put in eval mode."""
    network.eval()
    frames = torch.from_numpy(clips.pixels[clips.mask])
    with torch.inference_mode():
        parts = [network.features(normalised(part)) for part in torch.split(frames, _FRAMES_PER_CALL)]
    width = network.projection.out_features
    features = torch.zeros(*clips.mask.shape, width)
    if parts:
        features[torch.from_numpy(clips.mask)] = torch.cat(parts)
    return features


def train_heads(
    network: ClipNetwork, train: ClipSet, validation: ClipSet, options: HeadOptions | None = None
) -> HeadsEnd:
    """Trains `lstm` and `sequence_head` in place, the rest stays as it is; then chooses the mix.

    The epoch that is kept is the last: choosing one by validation would flatter the sequence.
    """
    options = options or HeadOptions()
    rng = torch.Generator().manual_seed(options.seed)
    trained = nn.ModuleList([network.lstm, network.sequence_head])
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    weight = _class_weights(train.labels)
    for _ in range(options.epochs):
        order = torch.randperm(len(train), generator=rng)
        for rows in torch.split(order, options.batch):
            features, mask = _hide(train.features[rows], train.mask[rows], options.dropped_frames, rng)
            logits, _ = network.heads(features, mask)
            loss = functional.binary_cross_entropy_with_logits(logits, train.labels[rows], weight[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it bare
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    return choose_mix(network, validation, options.least_gain)


def choose_mix(network: ClipNetwork, validation: ClipSet, least_gain: float) -> HeadsEnd:
    """The mix with the highest AUC; 0 where its gain is small, or may be none (95 % interval over groups)."""
    labels = validation.labels.long().numpy()
    scores = {mix: clip_logits(network, validation, mix) for mix in _MIXES}
    by_mix = {mix: auc(labels, score) for mix, score in scores.items()}
    best = max(by_mix, key=lambda mix: (by_mix[mix], -mix))
    gains = (
        by_mix[best] >= by_mix[0.0] + least_gain
        and auc_change_interval(labels, scores[0.0], scores[best], validation.groups)[0] > 0
    )
    return HeadsEnd(best if gains else 0.0, by_mix[0.0], by_mix)


def clip_logits(network: ClipNetwork, clips: ClipSet, mix: float) -> Scores:
    """Clip logits [N], as inference mixes them."""
    with torch.inference_mode():
        sequence, frames = network.heads(clips.features, clips.mask)
        held = clips.mask.float()
        mean = (frames * held).sum(1) / held.sum(1).clamp_min(1)
        return (mix * sequence + (1 - mix) * mean).double().numpy()


def _class_weights(labels: Tensor) -> Tensor:
    """Weights [N] that give both classes half of the loss."""
    share = labels.mean().clamp(1e-3, 1 - 1e-3)
    return torch.where(labels == 1, 0.5 / share, 0.5 / (1 - share))


def _hide(features: Tensor, mask: Tensor, share: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features and mask without some frames; the kept ones move to the front, and one always stays."""
    kept = mask & (torch.rand(mask.shape, generator=rng) >= share)
    kept[:, 0] |= ~kept.any(dim=1)
    order = torch.from_numpy(np.argsort(~kept.numpy(), axis=1, kind="stable"))
    moved = torch.gather(features, 1, order.unsqueeze(-1).expand_as(features))
    return moved, torch.gather(kept, 1, order)
