"""Stage B: what only the order of frames tells is learned; where it tells nothing the mix is 0."""

import numpy as np
import pytest
import torch

from detector.network import ClipNetwork, build
from detector.training.heads import ClipSet, HeadOptions, _hide, clip_features, train_heads
from detector.types import Clips
from detector.weights import Architecture

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=4, projection=8, hidden=16)
OPTIONS = HeadOptions(epochs=25, learning_rate=1e-2, dropped_frames=0.0)


@pytest.fixture
def network() -> ClipNetwork:
    torch.manual_seed(0)
    return build(ARCHITECTURE)


def _clips(seed: int, rising: bool, count: int = 200) -> ClipSet:
    """Fakes rise over time and reals fall, or both are noise; the set of values is the same."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    ramp = np.linspace(0, 1, 6)
    values = np.where(labels[:, None] == 1, ramp, ramp[::-1]) if rising else np.ones((count, 6))
    features = rng.normal(0, 0.1, (count, 6, 8)) + values[..., None]
    return ClipSet(
        torch.from_numpy(np.maximum(features, 0)).float(),
        torch.ones(count, 6, dtype=torch.bool),
        torch.from_numpy(labels).float(),
        np.arange(count).astype(str),
    )


def test_order_in_time_is_learned(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    end = train_heads(network, _clips(0, rising=True), _clips(1, rising=True), OPTIONS)
    assert end.auc_frames < 0.65
    assert end.auc_by_mix[1.0] > 0.98
    assert end.mix > 0
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"lstm", "sequence_head"}


def test_without_a_gain_the_mix_is_zero(network):
    options = HeadOptions(epochs=2, least_gain=0.2)
    assert train_heads(network, _clips(0, rising=False), _clips(1, rising=False), options).mix == 0.0


def test_a_gain_that_may_be_chance_gives_no_share(network):
    few = _clips(1, rising=False, count=8)
    assert train_heads(network, _clips(0, rising=False), few, HeadOptions(epochs=2)).mix == 0.0


def test_the_same_seed_gives_the_same_heads(network):
    torch.manual_seed(0)
    twin = build(ARCHITECTURE)
    for one in (network, twin):
        train_heads(one, _clips(0, rising=True), _clips(1, rising=True), HeadOptions(epochs=2))
    assert torch.equal(network.lstm.weight_ih_l0, twin.lstm.weight_ih_l0)


def test_features_are_those_of_the_network_and_zero_where_there_is_no_frame(network):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    mask = np.array([[True, True, True], [True, False, False]])
    features = clip_features(network, Clips(pixels, mask))
    assert features.shape == (2, 3, 8)
    assert not features[1, 1:].any()
    alone = clip_features(network, Clips(pixels[1:, :1], mask[1:, :1]))
    assert torch.allclose(features[1, 0], alone[0, 0], atol=1e-5)
    assert clip_features(network, Clips.none(3, 32)).shape == (0, 3, 8)


def test_hidden_frames_leave_the_rest_in_front_and_in_order():
    features = torch.arange(24.0).view(2, 6, 2)
    mask = torch.tensor([[True] * 6, [True] + [False] * 5])
    moved, kept = _hide(features, mask, 0.5, torch.Generator().manual_seed(1))
    assert kept.sum(1).min() >= 1
    for clip, held in zip(moved, kept, strict=True):
        count = int(held.sum())
        assert held[:count].all()
        assert (clip[:count, 0].diff() > 0).all()
    _, all_hidden = _hide(features, mask, 1.0, torch.Generator().manual_seed(1))
    assert all_hidden.sum(1).tolist() == [1, 1]
