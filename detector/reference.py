"""A published checkpoint of the reference application becomes a weights file of ours.

It is a bare state dict of 322 tensors: ResNeXt-50 32x4d as `model`, an LSTM without bias as `lstm`, two
classes as `linear1`, fake first. What it was shown stands nowhere in it: that is set here, as the application
did it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from msgspec import structs
from torch import Tensor

from detector.checkpoints import state_dict
from detector.errors import WeightsError
from detector.model import golden_logit
from detector.network import ClipNetwork, build
from detector.weights import UNMEASURED, Architecture, Detector, Header, Input, WeightsFile, write

HeadMode = Literal["last", "mean"]

LICENCE = (
    "the reference application is published under the GPL-3.0; the terms of the data that a checkpoint "
    "learned from (FaceForensics++, DFDC, Celeb-DF) hold as well, and allow research only"
)
_ARCHITECTURE = Architecture(
    family="resnext_lstm_cell",
    layers=(3, 4, 6, 3),
    groups=32,
    width_per_group=4,
    projection=2048,
    hidden=2048,
    lstm_bias=False,
    lstm_axis="batch",
    classes=2,
    labels="zero_is_fake",
    mix=1.0,
)
_INPUT = Input(
    fit="squash",
    scale=1.0,
    shift_y=0.0,
    colour="bgr",
    mean=(0.485, 0.456, 0.406),  # ImageNet's of red, green, blue, but blue comes first: so it was trained
    std=(0.229, 0.224, 0.225),
    policy="first",
)
_DETECTOR = Detector(name="hog", version="20", rasters=(), colour="bgr")
# The trunk is a Sequential of ResNet's children; 2 and 3, ReLU and pooling, hold no tensors.
_CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
_GATES = (0, 2, 3)  # of input, forget, cell, output: from a zero state there is nothing to forget
_MOST_FAULTS = 20

_USUAL_FRAMES = 20
_PUBLISHED = re.compile(r"model_\d+_acc_([1-9]\d?|[12]\d\d|300)_frames_.+")


def frames_of(stem: str) -> int:
    """The frames that a published checkpoint was trained with, told by its name, where it is one; else 20."""
    found = _PUBLISHED.fullmatch(stem)
    return int(found[1]) if found else _USUAL_FRAMES


def convert(source: Path, target: Path, *, mode: HeadMode, frames: int) -> WeightsFile:
    """Write a weights file of a checkpoint.

    Args:
        source: the checkpoint; nothing in it is run.
        target: path of the weights file, which must not be there yet.
        mode: what decides: the last frame, as in the application, or the mean of all, as in its training.
        frames: how many of a video's first frames are looked at.

    Raises:
        WeightsError: it is no such checkpoint, or the file cannot be written; every wrong tensor is named.
    """
    if target.exists():
        raise WeightsError(f"weights {target}: the file is there already", hint="Name another with --output.")
    architecture = structs.replace(_ARCHITECTURE, head_mode=mode)
    net = _network(source, architecture)
    header = Header(
        name=re.sub(r"[^A-Za-z0-9._-]+", "_", source.stem)[:100],
        architecture=architecture,
        input=structs.replace(_INPUT, frames=frames),
        detector=_DETECTOR,
        policy=UNMEASURED,
        golden_logit=0.0,
        provenance={
            "origin": "a checkpoint of the reference application, imported",
            "sha256": _sha256(source),
            "licence": LICENCE,
        },
    )
    logit = golden_logit(net, header)
    if not math.isfinite(logit):
        raise WeightsError(f"{source}: its answer to the golden clip is {logit}", hint="The file is damaged.")
    try:
        return write(target, structs.replace(header, golden_logit=logit), net.state_dict())
    except OSError as error:
        raise WeightsError(f"weights {target}: {error.strerror}") from error


def _network(source: Path, architecture: Architecture) -> ClipNetwork:
    """The network with the tensors of a checkpoint."""
    with torch.device("meta"):
        net = build(architecture)
    trunk = {name: _published(name) for name in net.state_dict() if name.startswith("trunk.")}
    found = state_dict(source)
    _check(source, found, _expected(net, trunk, architecture.hidden))
    four = found["lstm.weight_ih_l0"].chunk(4)
    state = {ours: found[theirs].clone() for ours, theirs in trunk.items()} | {
        "gates.weight": torch.cat([four[gate] for gate in _GATES]),
        "classifier.weight": found["linear1.weight"].clone(),
        "classifier.bias": found["linear1.bias"].clone(),
    }
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def _published(name: str) -> str:
    """The name that a tensor of our trunk has in a checkpoint: `trunk.layer1.0.x` is `model.4.0.x`."""
    child, rest = name.removeprefix("trunk.").split(".", 1)
    return f"model.{_CHILDREN[child]}.{rest}"


def _expected(net: ClipNetwork, trunk: Mapping[str, str], hidden: int) -> dict[str, str]:
    """By name, what each tensor of a checkpoint has to be."""
    ours = net.state_dict()
    width = ours["gates.weight"].shape[1]
    return {theirs: _kind(ours[name]) for name, theirs in trunk.items()} | {
        "lstm.weight_ih_l0": f"float32 [{4 * hidden}, {width}]",
        "lstm.weight_hh_l0": f"float32 [{4 * hidden}, {hidden}]",
        "linear1.weight": _kind(ours["classifier.weight"]),
        "linear1.bias": _kind(ours["classifier.bias"]),
    }


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check(source: Path, found: Mapping[str, Tensor], expected: Mapping[str, str]) -> None:
    faults = list(_faults(found, expected))
    if not faults:
        return
    more = [f"and {len(faults) - _MOST_FAULTS:,} more"] if len(faults) > _MOST_FAULTS else []
    lines = "".join(f"\n  {line}" for line in [*faults[:_MOST_FAULTS], *more])
    raise WeightsError(
        f"{source} is not a checkpoint of the reference application:{lines}",
        hint=f"That has {len(expected)} tensors: ResNeXt-50 32x4d, an LSTM without bias, two classes.",
    )


def _faults(found: Mapping[str, Tensor], expected: Mapping[str, str]) -> Iterator[str]:
    """What is wrong, a line each: missing, other and surplus tensors."""
    for name, kind in expected.items():
        if name not in found:
            yield f"missing: {name}, {kind}"
        elif _kind(found[name]) != kind:
            yield f"{name}: {_kind(found[name])}, not {kind}"
        elif not torch.isfinite(found[name]).all():
            yield f"{name}: has numbers that are not finite"
    for name, tensor in found.items():
        if name not in expected:
            yield f"surplus: {name[:100]}, {_kind(tensor)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
