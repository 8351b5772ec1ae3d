"""The shapes and names that the published weights need, and TensorFlow's padding."""

import pytest
import torch

from detector.efficientnet import EfficientNetLite0, load_state


def test_it_has_the_published_size_and_names():
    network = EfficientNetLite0(outputs=1000)
    state = network.state_dict()
    assert len(state) == 296
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    assert state["_blocks.0._project_conv.weight"].shape == (16, 32, 1, 1)
    assert "_blocks.0._expand_conv.weight" not in state
    assert state["_blocks.15._bn2.weight"].shape == (320,)


@pytest.mark.parametrize("size", [64, 100, 112])
def test_maps_have_a_side_of_size_over_stride_rounded_up(size):
    features = EfficientNetLite0().eval().features(torch.zeros(1, 3, size, size))
    assert features.stride8.shape == (1, 40, -(-size // 8), -(-size // 8))
    assert features.stride16.shape == (1, 112, -(-size // 16), -(-size // 16))
    assert features.pooled.shape == (1, 1280)


def test_strided_convolutions_pad_right_and_bottom_first():
    stem = EfficientNetLite0()._conv_stem
    with torch.no_grad():
        stem.weight.fill_(1.0)
    lit = torch.zeros(1, 3, 8, 8)
    lit[..., 2, 2] = 1.0
    seen = stem(lit)[0, 0].detach()
    assert seen[:2, :2].tolist() == [
        [3.0, 3.0],
        [3.0, 3.0],
    ]  # the windows at 0 and at 2; symmetric: only at 1..3
    assert seen.sum() == 12.0


def test_half_precision_weights_of_another_head_load():
    published = {name: value.half() for name, value in EfficientNetLite0(outputs=1000).state_dict().items()}
    network = EfficientNetLite0(outputs=1)
    head = network._fc.weight.clone()
    load_state(network, published)
    assert torch.equal(network._fc.weight, head)
    assert torch.equal(network._conv_stem.weight, published["_conv_stem.weight"].float())
