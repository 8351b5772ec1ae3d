"""ResNeXt features per frame, an LSTM over them, and a frame head beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from detector.weights import Architecture


class ResNeXtLSTM(nn.Module):
    """Two logits per clip from one pass of the trunk: of the sequence, and of each frame on its own.

    ResNeXt after Xie et al. 2017 (arXiv 1611.05431) by torchvision; LSTM over time, batch first; the
    sequence logit is a linear layer on the mean of the LSTM's outputs over the frames that the mask holds.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.trunk = ResNet(
            Bottleneck, list(arch.layers), groups=arch.groups, width_per_group=arch.width_per_group
        )
        features = self.trunk.fc.in_features
        self.trunk.fc = nn.Identity()
        self.projection = nn.Linear(features, arch.projection)
        self.lstm = nn.LSTM(
            input_size=arch.projection, hidden_size=arch.hidden, batch_first=True, bias=arch.lstm_bias
        )
        self.sequence_head = nn.Linear(arch.hidden, 1)
        self.frame_head = nn.Linear(arch.projection, 1)

    def features(self, frames: Tensor) -> Tensor:
        """Features of single frames.

        Args:
            frames: `[B, 3, H, W]` float, normalised as the weights' header says.

        Returns:
            `[B, projection]`.
        """
        projected: Tensor = self.projection(self.trunk(frames))
        return torch.relu(projected)

    def heads(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits from features.

        Args:
            features: `[N, T, projection]`; values where the mask is False are ignored.
            mask: `[N, T] bool`. The frames that it holds come first in each clip.

        Returns:
            Sequence logits `[N]` and frame logits `[N, T]`.
        """
        features = features * mask.unsqueeze(-1)
        states, _ = self.lstm(features)
        weight = mask.to(states.dtype)
        pooled = (states * weight.unsqueeze(-1)).sum(1) / weight.sum(1).clamp(min=1).unsqueeze(-1)
        return self.sequence_head(pooled).squeeze(-1), self.frame_head(features).squeeze(-1)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`heads` of `features`: frames `[N, T, 3, H, W]`, mask `[N, T] bool`."""
        features = self.features(frames.flatten(0, 1))
        return self.heads(features.view(*mask.shape, -1), mask)
