"""Features per frame, an LSTM over them, and a frame head beside it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from detector.efficientnet import FEATURES, EfficientNetLite0
from detector.weights import Architecture


class ClipNetwork(nn.Module):
    """Two logits per clip from one pass of a trunk: of the sequence, and of each frame on its own.

    An LSTM over time, batch first; the sequence logit is a linear layer on the mean of the LSTM's outputs
    over the frames that the mask holds. Subclasses bring the trunk: `[B, 3, H, W]` -> `[B, width]`.
    """

    def __init__(self, trunk: nn.Module, width: int, arch: Architecture) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = nn.Linear(width, arch.projection)
        self.lstm = nn.LSTM(
            input_size=arch.projection, hidden_size=arch.hidden, batch_first=True, bias=arch.lstm_bias
        )
        self.sequence_head = nn.Linear(arch.hidden, 1)
        self.frame_head = nn.Linear(arch.projection, 1)

    @property
    def last_block(self) -> nn.Module:
        """The trunk's last block of convolutions, whose maps `[B, C, H', W']` it averages."""
        trunk = self.trunk
        return trunk.last_block if isinstance(trunk, EfficientNetLite0) else cast(ResNet, trunk).layer4

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


class ResNeXtLSTM(ClipNetwork):
    """The trunk is a ResNeXt (Xie et al. 2017, arXiv 1611.05431) by torchvision."""

    trunk: ResNet

    def __init__(self, arch: Architecture) -> None:
        super().__init__(*_resnext(arch), arch)


class ResNeXtLSTMCell(ClipNetwork):
    """The reference application's network: an LSTM step per frame from a zero state, two classes, fake first.

    Its LSTM took the frames of a clip for a batch, so each is a sequence of one step. Then order counts for
    nothing, and neither the recurrent weights nor the forget gate have an effect: they are left out.
    """

    trunk: ResNet

    def __init__(self, arch: Architecture) -> None:
        nn.Module.__init__(self)  # of the parts of a ClipNetwork it has the trunk alone
        self.trunk, width = _resnext(arch)
        self.gates = nn.Linear(width, 3 * arch.hidden, bias=False)
        self.classifier = nn.Linear(arch.hidden, arch.classes)
        self._last = arch.head_mode == "last"

    def features(self, frames: Tensor) -> Tensor:
        """`[B, 3, H, W]` -> `[B, width]`: the trunk's, averaged over the picture."""
        found: Tensor = self.trunk(frames)
        return found

    def heads(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As `ClipNetwork.heads`; the logit of a clip is that of its last frame, or of its mean state."""
        into, new, out = self.gates(features).chunk(3, dim=-1)
        states = torch.sigmoid(out) * torch.tanh(torch.sigmoid(into) * torch.tanh(new))
        fake, real = self.classifier(states).unbind(-1)
        each, held = fake - real, mask.sum(1).clamp(min=1)
        if self._last:
            return each.gather(1, held.unsqueeze(1) - 1).squeeze(1), each
        return (each * mask).sum(1) / held, each  # the classifier is linear: the mean's logit


class EfficientNetLite0LSTM(ClipNetwork):
    """The trunk is EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946); it can start pretrained."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__(EfficientNetLite0(outputs=0), FEATURES, arch)


def _resnext(arch: Architecture) -> tuple[ResNet, int]:
    """A ResNeXt without its classifier, and the width of its features."""
    trunk = ResNet(Bottleneck, list(arch.layers), groups=arch.groups, width_per_group=arch.width_per_group)
    width: int = trunk.fc.in_features
    trunk.fc = nn.Identity()
    return trunk, width


def build(arch: Architecture) -> ClipNetwork:
    """The network that a weights file's header describes, with random weights."""
    families = {
        "resnext_lstm": ResNeXtLSTM,
        "efficientnet_lite0_lstm": EfficientNetLite0LSTM,
        "resnext_lstm_cell": ResNeXtLSTMCell,
    }
    return families[arch.family](arch)
