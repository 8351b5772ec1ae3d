"""A weights file made ready to score: the network on its device, and the batches that it is fed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.errors import SettingsError, WeightsError
from detector.memory import keep_freed_memory
from detector.network import ClipNetwork, build
from detector.types import Clips, ClipScore
from detector.weights import Header, WeightsFile

Dtype = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]

# Frames per network call: on a CPU 20 already saturate a core, a GPU wants more.
_FRAMES_PER_CALL = {"cpu": 32, "cuda": 512}
_GOLDEN_TOLERANCE = 1e-3


class Model:
    """Scores clips with one weights file; frames of several clips and videos share network batches.

    Attributes:
        header: the weights' header.
        weights_id: of the file.
        dtype, device: what it runs in and on.
    """

    def __init__(self, weights: WeightsFile, *, dtype: Dtype = "float32", device: Device = "cpu") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                "device: cuda, but PyTorch finds no GPU on this machine",
                hint="Use `device: auto` or `cpu`; `deepfake-scan doctor` says what is there.",
            )
        self.header = weights.header
        self.weights_id = weights.weights_id
        self.dtype, self.device = dtype, device
        self._net = load_network(weights)
        self._net.eval().requires_grad_(False)
        self._check_golden()
        self._net.to(device).to(memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        self._mean = (255 * torch.tensor(weights.header.input.mean)).view(shape).to(device)
        self._std = (255 * torch.tensor(weights.header.input.std)).view(shape).to(device)

    def score(self, clips: Clips) -> list[ClipScore]:
        """Score clips of one video or of several.

        Args:
            clips: `[N, T, H, W, 3] uint8 RGB` of the header's size.

        Returns:
            One score per clip, in order. On a GPU that runs out of memory the batch is halved and tried
            again, down to one frame.
        """
        if not len(clips):
            return []
        with torch.inference_mode():
            features = self._features(clips)
            mask = torch.from_numpy(clips.mask).to(self.device)
            sequence, frames = self._net.heads(features, mask)
            return self._scores(sequence.float().cpu(), frames.float().cpu(), clips.mask)

    @property
    def last_block(self) -> nn.Module:
        """The trunk's last block: the smallest maps that still have a height and a width."""
        return self._net.last_block

    def normalised(self, frames: NDArray[np.uint8]) -> Tensor:
        """`[T, H, W, 3] uint8 RGB` -> `[T, 3, H, W] float32` as the network takes it."""
        return self._normalised(torch.from_numpy(np.ascontiguousarray(self._in_order(frames))))

    def clip_logit(self, frames: Tensor) -> Tensor:
        """The logit `[1]` of one clip of normalised frames `[T, 3, H, W]`, in float32, differentiable."""
        mask = torch.ones(1, len(frames), dtype=torch.bool, device=frames.device)
        sequence, each = self._net(frames.unsqueeze(0), mask)
        mix = self.header.architecture.mix
        logit: Tensor = mix * sequence + (1 - mix) * each.mean(1)
        return logit

    def _features(self, clips: Clips) -> Tensor:
        """`[N, T, projection]` float32; zeros where the mask is False."""
        pixels = self._in_order(clips.pixels[clips.mask])
        step = _FRAMES_PER_CALL[self.device]
        parts: list[Tensor] = []
        start = 0
        while start < len(pixels):
            batch = np.ascontiguousarray(pixels[start : start + step])
            try:
                parts.append(self._frame_features(torch.from_numpy(batch)))
            except torch.cuda.OutOfMemoryError:
                if step == 1:
                    raise
                torch.cuda.empty_cache()
                step //= 2
                continue
            start += len(batch)
        found = torch.cat(parts)
        features = found.new_zeros((*clips.mask.shape, found.shape[-1]))
        features[torch.from_numpy(clips.mask).to(self.device)] = found
        return features

    def _in_order(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB in the order of colours that the network was trained with."""
        return pixels[..., ::-1] if self.header.input.colour == "bgr" else pixels

    def _normalised(self, batch: Tensor) -> Tensor:
        """`[B, H, W, 3] uint8` -> `[B, 3, H, W] float32`."""
        frames = batch.to(self.device).permute(0, 3, 1, 2).float()  # already channels_last in memory
        return (frames - self._mean) / self._std

    def _frame_features(self, batch: Tensor) -> Tensor:
        """`[B, H, W, 3] uint8` -> `[B, projection] float32`."""
        frames = self._normalised(batch)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            return self._net.features(frames).float()

    def _scores(self, sequence: Tensor, frames: Tensor, mask: NDArray[np.bool_]) -> list[ClipScore]:
        mix = self.header.architecture.mix
        scores = []
        for whole, each, held in zip(sequence.tolist(), frames.numpy(), mask, strict=True):
            mean = float(each[held].mean()) if held.any() else math.nan
            kept = tuple(float(x) if k else math.nan for x, k in zip(each, held, strict=True))
            scores.append(ClipScore(mix * whole + (1 - mix) * mean, whole, kept))
        return scores

    def _check_golden(self) -> None:
        """Refuse weights whose answer to the golden clip moved: a flipped bit, a wrong header."""
        logit = golden_logit(self._net, self.header)
        if not abs(logit - self.header.golden_logit) <= _GOLDEN_TOLERANCE * max(1.0, abs(logit)):
            raise WeightsError(
                f"weights {self.header.name}: the golden clip gives {logit:.5f}, "
                f"the header says {self.header.golden_logit:.5f}",
                hint="The file is damaged, or this torch computes something else.",
            )


def load_network(weights: WeightsFile) -> ClipNetwork:
    """The network of the header with the tensors of the file, if they fit: a header may ask for terabytes.

    Raises:
        WeightsError: The tensors are not those of the header's architecture; told before any are made.
    """
    tensors, architecture = weights.tensors(), weights.header.architecture
    try:
        with torch.device("meta"):
            build(architecture).load_state_dict({name: t.to("meta") for name, t in tensors.items()})
        net = build(architecture)
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"weights {weights.header.name}: the tensors do not fit: {error}") from error
    return net


def golden_clip(frames: int, size: int) -> Tensor:
    """A fixed clip `[1, T, 3, size, size]` float32 in [-1, 1]: waves of several lengths, nothing random."""
    t, y, x = torch.meshgrid(
        torch.arange(frames) / frames,
        torch.arange(size) / size,
        torch.arange(size) / size,
        indexing="ij",
    )
    channels = [torch.sin(2 * math.pi * (k * x + (k + 1) * y + t)) for k in (1.0, 2.5, 7.0)]
    return torch.stack(channels, 1).unsqueeze(0)


def golden_logit(net: ClipNetwork, header: Header) -> float:
    """The clip logit of the golden clip, on the CPU in float32; `net` must be in evaluation mode."""
    frames = min(header.input.frames, 4)
    with torch.inference_mode():
        clip = golden_clip(frames, header.input.size)
        sequence, each = net(clip, torch.ones(1, frames, dtype=torch.bool))
        mix = header.architecture.mix
        return float(mix * sequence[0] + (1 - mix) * each[0].mean())


def default_dtype(device: Device) -> Dtype:
    """bfloat16 on a GPU and on processors that have it, else float32."""
    if device == "cuda":
        return "bfloat16"
    flags = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def settle_process() -> None:
    """One thread, since on shared cores a second one makes the network slower; freed memory is kept."""
    torch.set_num_threads(1)
    keep_freed_memory()


def stack(batches: Sequence[Clips]) -> Clips:
    """The clips of several videos as one; all must be of one length and size."""
    held = [clips for clips in batches if len(clips)]
    if not held:
        return Clips.none()
    return Clips(np.concatenate([c.pixels for c in held]), np.concatenate([c.mask for c in held]))
