"""MesoNet as published: weights files of Keras, read as data into two small torch networks.

Afchar et al. 2018, "MesoNet: a Compact Facial Video Forgery Detection Network" (arXiv 1809.00888), which has
the order of the layers. The files are those of github.com/DariusAf/MesoNet, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.evaluation.metrics import Scores

SIZE = 256
FILES = ("Meso4_DF.h5", "Meso4_F2F.h5", "MesoInception_DF.h5", "MesoInception_F2F.h5")
"""What was trained on Deepfakes, and on Face2Face."""

_FRAMES_PER_CALL = 32
_EPSILON = 1e-3  # Keras'; torch has 1e-5
_TENSORS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "conv2d": (nn.Conv2d, ("weight", "bias")),
    "batch_normalization": (nn.BatchNorm2d, ("weight", "bias", "running_mean", "running_var")),
    "dense": (nn.Linear, ("weight", "bias")),
}
"""Kind of layer in a file -> ours, and our names of its tensors in the order in which they are stored."""


class MesoNet(nn.Module):
    """Four times convolution, ReLU, batch normalisation and pooling, then two dense layers."""

    def __init__(self, first: nn.Module, second: nn.Module, channels: tuple[int, int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *_block(first, channels[0], pool=2),
            *_block(second, channels[1], pool=2),
            *_block(nn.Conv2d(channels[1], 16, 5, padding="same"), 16, pool=2),
            *_block(nn.Conv2d(16, 16, 5, padding="same"), 16, pool=4),
        )
        self.dense = nn.Sequential(nn.Linear(1024, 16), nn.LeakyReLU(0.1), nn.Linear(16, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, 3, 256, 256]` RGB in [0, 1] -> `[B]`, positive = fake; as published near 1 is real."""
        flat = self.blocks(frames).permute(0, 2, 3, 1).flatten(1)  # Keras has the channels last
        real: Tensor = self.dense(flat).squeeze(1)
        return -real

    def frame_logits(self, pixels: NDArray[np.uint8]) -> Scores:
        """`[B, 256, 256, 3] uint8 RGB` -> `[B]`, positive = fake."""
        with torch.inference_mode():
            calls = torch.split(torch.from_numpy(pixels).permute(0, 3, 1, 2), _FRAMES_PER_CALL)
            return np.concatenate([self(frames / 255).double().numpy() for frames in calls])


class _Inception(nn.Module):
    """Four branches, concatenated: 1x1, and 1x1 before a 3x3 with dilation 1, 2 and 3."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(channels, widths[0], 1)])
        for dilation, width in enumerate(widths[1:], start=1):
            wide = nn.Conv2d(width, width, 3, padding="same", dilation=dilation)
            self.branches.append(nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(), wide))

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([branch(frames) for branch in self.branches], 1)


def _block(convolution: nn.Module, channels: int, pool: int) -> list[nn.Module]:
    return [convolution, nn.ReLU(), nn.BatchNorm2d(channels, eps=_EPSILON), nn.MaxPool2d(pool)]


def load(path: Path) -> MesoNet:
    """The network of a file, ready to score.

    Raises:
        ValueError: The file holds more or fewer layers than the network has.
        RuntimeError: A layer has another shape.
    """
    if "Inception" in path.name:
        network = MesoNet(_Inception(3, (1, 4, 4, 2)), _Inception(11, (2, 4, 4, 2)), (11, 12))
    else:
        convolutions = nn.Conv2d(3, 8, 3, padding="same"), nn.Conv2d(8, 8, 5, padding="same")
        network = MesoNet(*convolutions, (8, 8))
    network.load_state_dict(dict(_state(path, network)))
    return network.eval()


def _state(path: Path, network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors under our names: layers of a kind are numbered in the order in which they were made."""
    with h5py.File(path) as file:
        stored = [name for name in file if len(file[name].attrs["weight_names"])]
        made = sorted(stored, key=lambda name: int(name.rpartition("_")[2]))
        if unknown := {name.rpartition("_")[0] for name in made} - set(_TENSORS):
            raise ValueError(f"{path.name} holds layers of kind {unknown}")
        for kind, (ours, tensors) in _TENSORS.items():
            modules = [name for name, module in network.named_modules() if isinstance(module, ours)]
            layers = [file[name] for name in made if name.rpartition("_")[0] == kind]
            for module, layer in zip(modules, layers, strict=True):
                for tensor, weight in zip(tensors, layer.attrs["weight_names"], strict=True):
                    yield f"{module}.{tensor}", _turned(torch.from_numpy(layer[weight][()]))


def _turned(stored: Tensor) -> Tensor:
    """Keras puts the outputs last, torch first."""
    if stored.dim() == 4:
        return stored.permute(3, 2, 0, 1)
    return stored.T if stored.dim() == 2 else stored
