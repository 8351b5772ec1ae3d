"""A folded network computes the same, has no normalisation left, and comes back as it was."""

import pytest
import torch
from torch import nn

from detector.errors import SettingsError
from detector.network import ClipNetwork, build
from detector.training.folding import fold, unfolded
from detector.weights import Architecture

RESNEXT = Architecture(layers=(1, 1, 1, 1), groups=2, width_per_group=4, projection=16, hidden=8)
EFFICIENTNET = Architecture(family="efficientnet_lite0_lstm", projection=16, hidden=8)


def _used(architecture: Architecture) -> ClipNetwork:
    """A network whose normalisations have statistics and weights of their own."""
    torch.manual_seed(0)
    network = build(architecture)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
        network.train()
        network.features(torch.randn(16, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize("architecture", [RESNEXT, EFFICIENTNET], ids=["resnext", "efficientnet"])
def test_folding_changes_nothing_but_the_layers(architecture):
    network, frames = _used(architecture), torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        before = network.features(frames)
    original = network.state_dict()
    fold(network)
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.inference_mode():
        assert torch.allclose(network.features(frames), before, atol=1e-4)
    back = build(architecture)
    back.load_state_dict(unfolded(network.state_dict(), back))
    with torch.inference_mode():
        assert torch.allclose(back.eval().features(frames), before, atol=1e-4)
    assert back.state_dict().keys() == original.keys()


def test_a_normalisation_on_its_own_is_refused():
    with pytest.raises(SettingsError, match="convolution of its own"):
        fold(
            nn.Sequential(
                nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            )
        )
