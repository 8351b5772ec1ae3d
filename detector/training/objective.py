"""What a frame network is trained for: the labels, a teacher's probabilities, and the teacher's features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import ResNet

from detector.errors import SettingsError
from detector.network import ClipNetwork
from detector.training.batches import Batch
from detector.training.distil import FeatureMatcher, Maps, StudentFeatures, Targets, normalised


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
        network: What is trained; a `ResNeXtLSTM` where there is a teacher.
        options: Weights of the parts.
        targets: A teacher's answers by sample; None trains on labels alone.
    """

    def __init__(
        self, network: ClipNetwork, options: ObjectiveOptions, targets: Targets | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self._options = options
        self._targets = targets
        self.matcher = FeatureMatcher(*_channels(_resnext(network))) if targets is not None else None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses by name: float32 scalars, already weighted."""
        frames = normalised(batch.frames)
        labels = batch.labels * (1 - 2 * self._options.smoothing) + self._options.smoothing
        if self._targets is None or self.matcher is None:
            logits = frame_logits(self.network, frames).float()
            return {"label": functional.binary_cross_entropy_with_logits(logits, labels)}
        features = trunk_features(_resnext(self.network), frames)
        logits = _logits(self.network, self.network.projection(features.pooled)).float()
        rows = batch.rows.clamp_min(0).cpu().numpy()
        known = (batch.rows >= 0).float()
        share = self._options.teacher * known
        answers = torch.from_numpy(self._targets.logits[rows]).sigmoid().to(labels.device)
        goal = labels * (1 - share) + answers * share
        maps = Maps(*(part.to(labels.device) for part in self._targets.maps(rows)))
        return {
            "label": functional.binary_cross_entropy_with_logits(logits, goal),
            "features": self._options.features * self.matcher(features, maps, batch.windows, known),
        }


def frame_logits(network: ClipNetwork, frames: Tensor) -> Tensor:
    """Frame logits [B] of frames [B, 3, S, S] as `normalised` gives them."""
    return _logits(network, network.projection(network.trunk(frames)))


def _logits(network: ClipNetwork, projected: Tensor) -> Tensor:
    logits: Tensor = network.frame_head(torch.relu(projected))
    return logits.squeeze(-1)


def trunk_features(trunk: ResNet, frames: Tensor) -> StudentFeatures:
    """Maps at strides 8 and 16 and the pooled vector of a trunk; `frames` as `normalised` gives them."""
    stem = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(frames))))
    stride8 = trunk.layer2(trunk.layer1(stem))
    stride16 = trunk.layer3(stride8)
    return StudentFeatures(stride8, stride16, trunk.layer4(stride16).mean(dim=(2, 3)))


def _resnext(network: ClipNetwork) -> ResNet:
    if not isinstance(network.trunk, ResNet):
        raise SettingsError("only a ResNeXt learns from a teacher: leave `teacher` out")
    return network.trunk


def _channels(trunk: ResNet) -> tuple[int, int, int]:
    """Widths of the three places that are matched."""
    stride8, stride16, last = (
        layer[-1].conv3.out_channels for layer in (trunk.layer2, trunk.layer3, trunk.layer4)
    )
    return stride8, stride16, last
