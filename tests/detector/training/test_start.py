"""A cycle starts from weights files, and from published checkpoints of the trunk without their classifier."""

import pickle
from pathlib import Path

import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from detector import model
from detector.efficientnet import EfficientNetLite0
from detector.errors import WeightsError
from detector.network import build
from detector.training import start
from detector.training.start import start_from
from detector.weights import Architecture, write
from tests.seeded import seeded_weights

RESNEXT = Architecture(layers=(1, 1, 1, 1), groups=2, width_per_group=4, projection=8, hidden=4)
EFFICIENT = Architecture(family="efficientnet_lite0_lstm", projection=8, hidden=4)


@pytest.mark.parametrize(
    ("architecture", "published", "first"),
    [
        (RESNEXT, ResNet(Bottleneck, [1, 1, 1, 1], groups=2, width_per_group=4), "conv1.weight"),
        (EFFICIENT, EfficientNetLite0(outputs=1000), "_conv_stem.weight"),
    ],
)
def test_a_published_checkpoint_loads_into_the_trunk(architecture, published, first, tmp_path: Path):
    torch.save(published.state_dict(), tmp_path / "imagenet.pth")
    network = start_from(tmp_path / "imagenet.pth", architecture)
    assert torch.equal(network.trunk.state_dict()[first], published.state_dict()[first])


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path):
    torch.save(EfficientNetLite0().state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        start_from(tmp_path / "other.pth", RESNEXT)


def test_a_start_with_fewer_tensors_than_its_header_names_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    devices: list[str] = []

    def watched(architecture: Architecture):
        devices.append(torch.empty(0).device.type)
        return build(architecture)

    for module in (model, start):
        monkeypatch.setattr(module, "build", watched)
    header = seeded_weights(tmp_path / "whole.safetensors", arch=RESNEXT).header
    write(tmp_path / "claims.safetensors", header, {"projection.weight": torch.zeros(2)})
    with pytest.raises(WeightsError, match="the tensors do not fit"):
        start_from(tmp_path / "claims.safetensors", RESNEXT)
    assert devices == ["meta"], "memory was taken for whatever a stranger's header names"


class Canary:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda made, path: path.write_bytes(pickle.dumps(made))])
def test_nothing_in_a_strangers_checkpoint_is_run(save, tmp_path: Path):
    state = {"_conv_stem.weight": torch.zeros(1), "more": Canary(tmp_path / "it was run")}
    save(state, tmp_path / "stranger.pth")
    with pytest.raises(WeightsError, match="not a checkpoint that can be loaded"):
        start_from(tmp_path / "stranger.pth", EFFICIENT)
    assert not (tmp_path / "it was run").exists()


def test_the_canary_of_the_test_above_sings(tmp_path: Path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "it was run")))
    assert (tmp_path / "it was run").exists()
