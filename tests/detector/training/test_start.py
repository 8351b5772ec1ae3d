"""A cycle starts from published checkpoints of the trunk, without their classifier."""

from pathlib import Path

import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from detector.efficientnet import EfficientNetLite0
from detector.errors import WeightsError
from detector.network import build
from detector.training.start import start_from
from detector.weights import Architecture

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
    network = build(architecture)
    start_from(network, tmp_path / "imagenet.pth", architecture)
    assert torch.equal(network.trunk.state_dict()[first], published.state_dict()[first])


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path):
    torch.save(EfficientNetLite0().state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        start_from(build(RESNEXT), tmp_path / "other.pth", RESNEXT)
