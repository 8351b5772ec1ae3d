"""The reference application's network, as its description has it, with seeded weights."""

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnext50_32x4d
from torchvision.transforms.functional import normalize, to_tensor

SIZE = 112
"""Side of its input, px."""


class Theirs(nn.Module):
    """The network as its description has it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(*list(resnext50_32x4d(weights=None).children())[:-2])
        self.lstm = nn.LSTM(2048, 2048, bias=False)
        self.linear1 = nn.Linear(2048, 2)

    def logits(self, frames: np.ndarray, mode: str) -> Tensor:
        """`[T, 112, 112, 3] uint8 RGB` -> logits [2] of fake and real."""
        states = []
        for rgb in frames:
            blue_first = to_tensor(rgb[..., ::-1].copy())
            shown = normalize(blue_first, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            feature = self.model(shown.unsqueeze(0)).mean((2, 3))
            states.append(self.lstm(feature.unsqueeze(0))[0][0, 0])
        decides = states[-1] if mode == "last" else torch.stack(states).mean(0)
        logits: Tensor = self.linear1(decides)
        return logits


def seeded_theirs() -> Theirs:
    """The network with random weights, whose statistics are not all 0 and 1."""
    torch.manual_seed(7)
    net = Theirs()
    with torch.inference_mode():
        net.model.train()(torch.randn(8, 3, SIZE, SIZE))
        net.linear1.weight *= 20
    return net.eval()
