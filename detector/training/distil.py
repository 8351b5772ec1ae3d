"""Learning from a teacher: its answers are computed once, its features matched wherever the student looks.

The teacher sees every stored crop whole, undegraded; its maps are kept as int8. The student sees a degraded
part of it, and has to find there what the teacher found: the cached maps are sampled under the same window.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from detector.crops import resize
from detector.efficientnet import FEATURES, STRIDE8_CHANNELS, STRIDE16_CHANNELS, EfficientNetLite0
from detector.errors import SettingsError
from detector.network import ClipNetwork
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.workers import Worker

_INT8_PER_SIGMA = 16.0
_BATCH = 32


class Maps(NamedTuple):
    """Standardised teacher features of a batch, float32."""

    stride8: Tensor
    """[B, 40, h, w]"""
    stride16: Tensor
    """[B, 112, h, w]"""
    pooled: Tensor
    """[B, 1280]"""


@dataclass(frozen=True, slots=True)
class Targets:
    """A teacher's answers to a list of samples, memory-mapped."""

    logits: NDArray[np.float32]
    """[N]"""
    stride8: NDArray[np.int8]
    stride16: NDArray[np.int8]
    pooled: NDArray[np.int8]

    def maps(self, rows: NDArray[np.int64]) -> Maps:
        """Features of those rows, in standard deviations from the channel's mean."""
        parts = (torch.from_numpy(stored[rows]).float() / _INT8_PER_SIGMA for stored in self._stored())
        return Maps(*parts)

    def _stored(self) -> tuple[NDArray[np.int8], ...]:
        return self.stride8, self.stride16, self.pooled


class _WholeCrops(Dataset[Tensor]):
    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self._samples, self._size, self._store = samples, size, CropStore()

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(resize(self._store.crop(self._samples[row]), self._size))


def normalised(frames: Tensor) -> Tensor:
    """[N, S, S, 3] uint8 to [N, 3, S, S] float32, (x / 255 - 0.5) / 0.5, channels last in memory."""
    return frames.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def cache_targets(
    teacher: ClipNetwork, samples: Sequence[Sample], folder: Path, size: int, workers: int = 1
) -> Targets:
    """The teacher's answers to every sample, computed unless `folder` already holds them; resumable by batch.

    Args:
        teacher: An `EfficientNetLite0LSTM`; its frame head is what is asked.
        samples: In the order that `Targets` is indexed by.
        folder: Four arrays and the state are kept here, in a folder for each teacher and choice of samples;
            18.7 kB a sample at 128 px, 28.5 at 160, 40.5 at 192.
        size: Side of the teacher's input, px.
        workers: Processes that read pictures; 0 = this one.
    """
    folder = folder / _digest(teacher, samples, size)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(len(samples), size)
    arrays = {name: _open(folder / f"{name}.npy", shape, dtype) for name, (shape, dtype) in shapes.items()}
    state_file = folder / "state.json"
    state: dict[str, Any] = json.loads(state_file.read_text()) if state_file.exists() else {"done": 0}
    trunk = teacher.eval().trunk
    if not isinstance(trunk, EfficientNetLite0):
        raise SettingsError("only an efficientnet_lite0_lstm can be a teacher")
    for start, frames in _batches(samples, size, state["done"], workers):
        with torch.inference_mode():
            features = trunk.features(normalised(frames))
            logits = teacher.frame_head(torch.relu(teacher.projection(features.pooled)))[:, 0]
        if "scales" not in state:
            state["scales"] = [_channel_scale(part) for part in features]
        stop = start + len(frames)
        arrays["logits"][start:stop] = logits.float().numpy()
        for name, part, scale in zip(
            ("stride8", "stride16", "pooled"), features, state["scales"], strict=True
        ):
            arrays[name][start:stop] = _as_int8(part, scale)
        state["done"] = stop
        if (start // _BATCH) % 50 == 49 or stop == len(samples):
            _flush(arrays, state_file, state)
    return Targets(**arrays)


def _digest(teacher: ClipNetwork, samples: Sequence[Sample], size: int) -> str:
    """What the answers depend on, so that those of another teacher or to other samples are not taken."""
    digest = hashlib.sha256(f"{size}".encode())
    for sample in samples:
        digest.update(f"{sample.uri!r} {sample.reach}\n".encode())
    for value in teacher.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _shapes(count: int, size: int) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    side8, side16 = -(-size // 8), -(-size // 16)  # "same" padding rounds up
    return {
        "logits": ((count,), np.float32),
        "stride8": ((count, STRIDE8_CHANNELS, side8, side8), np.int8),
        "stride16": ((count, STRIDE16_CHANNELS, side16, side16), np.int8),
        "pooled": ((count, FEATURES), np.int8),
    }


def _open(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    mode = "r+" if path.exists() else "w+"
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=shape)
    return array


def _batches(samples: Sequence[Sample], size: int, done: int, workers: int) -> Iterator[tuple[int, Tensor]]:
    remaining = _WholeCrops(samples[done:], size)
    loader = DataLoader(remaining, batch_size=_BATCH, num_workers=workers, worker_init_fn=Worker())
    for number, frames in enumerate(loader):
        yield done + number * _BATCH, frames


def _channel_scale(part: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every channel, from the first batch: a unit, not a statistic."""
    others = [axis for axis in range(part.ndim) if axis != 1]
    return part.mean(others).tolist(), part.std(others).clamp_min(1e-6).tolist()


def _as_int8(part: Tensor, scale: tuple[list[float], list[float]]) -> NDArray[np.int8]:
    shape = (1, -1) + (1,) * (part.ndim - 2)
    mean, deviation = (torch.tensor(values).view(shape) for values in scale)
    sigmas = (part - mean) / deviation * _INT8_PER_SIGMA
    return sigmas.round().clamp(-127, 127).to(torch.int8).numpy()


def _flush(arrays: dict[str, NDArray[Any]], state_file: Path, state: dict[str, Any]) -> None:
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    temporary = state_file.with_suffix(".part")
    temporary.write_text(json.dumps(state))
    temporary.replace(state_file)


def under_window(maps: Tensor, windows: Tensor, size: int) -> Tensor:
    """Maps [B, C, h, w] of whole crops as seen through the windows [B, 4] of a batch: [B, C, size, size]."""
    x, y, side, mirror = windows.unbind(1)
    zero = torch.zeros_like(x)
    theta = torch.stack(
        [torch.stack([side * mirror, zero, 2 * x - 1], 1), torch.stack([zero, side, 2 * y - 1], 1)], dim=1
    )
    grid = functional.affine_grid(theta, [len(maps), maps.shape[1], size, size], align_corners=False)
    return functional.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)


class StudentFeatures(NamedTuple):
    """What the student's trunk offers for matching."""

    stride8: Tensor
    stride16: Tensor
    pooled: Tensor


class FeatureMatcher(nn.Module):
    """Adapters from the student's channels to the teacher's; the loss is a squared error in deviations.

    Args:
        stride8: Student channels at stride 8.
        stride16: Student channels at stride 16.
        pooled: Width of the student's pooled vector.
    """

    def __init__(self, stride8: int, stride16: int, pooled: int) -> None:
        super().__init__()
        self.stride8 = nn.Conv2d(stride8, STRIDE8_CHANNELS, 1)
        self.stride16 = nn.Conv2d(stride16, STRIDE16_CHANNELS, 1)
        self.pooled = nn.Linear(pooled, FEATURES)

    def forward(self, student: StudentFeatures, teacher: Maps, windows: Tensor, known: Tensor) -> Tensor:
        """Mean over the three places; scalar.

        Args:
            student: Of the degraded part under the window.
            teacher: Of the whole crops.
            windows: [B, 4], as in `Batch`; the pooled target is the whole crop's, whatever the window.
            known: [B] float, 1 where there is a teacher's answer, else 0.
        """
        goal8 = under_window(teacher.stride8, windows, student.stride8.shape[-1])
        goal16 = under_window(teacher.stride16, windows, student.stride16.shape[-1])
        errors = [
            _error(self.stride8(student.stride8), goal8),
            _error(self.stride16(student.stride16), goal16),
            _error(self.pooled(student.pooled), teacher.pooled),
        ]
        return (torch.stack(errors).mean(dim=0) * known).sum() / known.sum().clamp_min(1)


def _error(found: Tensor, goal: Tensor) -> Tensor:
    """Mean squared error of every member of a batch: [B]."""
    return functional.mse_loss(found.float(), goal, reduction="none").flatten(1).mean(dim=1)
