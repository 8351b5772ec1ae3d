"""What a frame network is trained for: the labels, a teacher's probabilities, and the teacher's features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.network import ResNeXtLSTM
from detector.training.data import Batch
from detector.training.distil import FeatureMatcher, StudentFeatures, Targets, normalised


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveOptions:
    """Weights of the parts of the loss."""

    teacher: float = 0.7
    """Share of the teacher's probability in the target; the label has the rest."""
    features: float = 1.0
    """Weight of the feature matching."""
    smoothing: float = 0.04
    """A label is this far from 0 or 1."""


class FrameObjective(nn.Module):
    """Losses of a network's frame head on single crops; the LSTM is not touched (stage A).

    Args:
        network: What is trained.
        options: Weights of the parts.
        targets: A teacher's answers by sample; None trains on labels alone.
    """

    def __init__(
        self, network: ResNeXtLSTM, options: ObjectiveOptions, targets: Targets | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self._options = options
        self._targets = targets
        self.matcher = FeatureMatcher(*_channels(network)) if targets is not None else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses by name: float32 scalars, already weighted."""
        features = trunk_features(self.network, normalised(batch.frames))
        logits = frame_logits(self.network, features.pooled).float()
        labels = batch.labels * (1 - 2 * self._options.smoothing) + self._options.smoothing
        if self._targets is None or self.matcher is None:
            return {"label": functional.binary_cross_entropy_with_logits(logits, labels)}
        rows = batch.rows.clamp_min(0).cpu().numpy()
        known = (batch.rows >= 0).float()
        share = self._options.teacher * known
        answers = torch.from_numpy(self._targets.logits[rows]).sigmoid().to(labels.device)
        goal = labels * (1 - share) + answers * share
        maps = self._targets.maps(rows)
        return {
            "label": functional.binary_cross_entropy_with_logits(logits, goal),
            "features": self._options.features * self.matcher(features, maps, batch.windows, known),
        }


def trunk_features(network: ResNeXtLSTM, frames: Tensor) -> StudentFeatures:
    """Maps at strides 8 and 16 and the pooled vector of the trunk; `frames` as `normalised` gives them."""
    trunk = network.trunk
    stem = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(frames))))
    stride8 = trunk.layer2(trunk.layer1(stem))
    stride16 = trunk.layer3(stride8)
    return StudentFeatures(stride8, stride16, trunk.layer4(stride16).mean(dim=(2, 3)))


def frame_logits(network: ResNeXtLSTM, pooled: Tensor) -> Tensor:
    """Frame logits [B] from the trunk's pooled features [B, C]."""
    logits: Tensor = network.frame_head(torch.relu(network.projection(pooled)))
    return logits.squeeze(-1)


def _channels(network: ResNeXtLSTM) -> tuple[int, int, int]:
    """Widths of the three places that are matched."""
    widths = [layer[-1].bn3.num_features for layer in (network.trunk.layer2, network.trunk.layer3)]
    return widths[0], widths[1], network.projection.in_features
