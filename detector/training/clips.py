"""Clips for stage B: labelled ones as they were cut, self-blended ones, and stills that are set in motion."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.crops import resize
from detector.degrade import Window, degrade_clip, draw_look, draw_window
from detector.network import ClipNetwork
from detector.training.batches import LOOK_OF_BLENDS
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.heads import ClipSet, clip_features
from detector.training.motion import moving_still
from detector.training.selfblend import Families, blend_clip
from detector.types import Clips

_CHUNK = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """Which clips stage B sees."""

    frames: int = 10
    per_class: int = 500
    """Clips of each class at most, drawn by the seed."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Item:
    """One clip to be made: `crops` in the order of time; `blended`: a member of a self-blended pair."""

    crops: tuple[Sample, ...]
    label: int
    seed: int
    blended: bool = False


def one_per_clip(samples: Sequence[Sample]) -> list[Sample]:
    """The middle crop of each clip; crops without a clip as they are."""
    return [crops[len(crops) // 2] for crops in _clips(samples)]


def clip_set(
    network: ClipNetwork,
    samples: Sequence[Sample],
    options: ClipOptions,
    folder: Path,
    *,
    size: int,
    training: bool,
) -> ClipSet:
    """Features of clips of both classes; those that `folder` holds already are not computed again.

    Args:
        network: Its trunk and projection are used as they are.
        samples: Crops; those that share `clip` form one, any other crop is a still that is set in motion.
        options: Which and how many.
        folder: For the features, one file per 32 clips.
        size: Side of the network's input, px.
        training: Degrades, and adds a self-blended pair to every real: the fake, and the real that has the
            same change of colour or sharpness, which so does not tell them apart. For validation clips stay
            as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = _items(samples, options, training=training)
    key = _digest(network, options, items, size)
    store, parts = CropStore(), []
    for start in range(0, len(items), _CHUNK):
        path = folder / f"{key}-{start:06d}.npy"
        chunk = items[start : start + _CHUNK]
        if not path.exists():
            pixels = [_pixels(item, store, options.frames, size, training=training) for item in chunk]
            _write(path, clip_features(network, _padded(pixels, options.frames)).numpy())
        parts.append(torch.from_numpy(np.load(path)))
    lengths = torch.tensor([_length(item, options.frames) for item in items])
    return ClipSet(
        torch.cat(parts),
        torch.arange(options.frames) < lengths[:, None],
        torch.tensor([float(item.label) for item in items]),
        np.array([item.crops[0].group for item in items], np.str_),
    )


def _clips(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    held: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        held[sample.clip or sample.uri, sample.split].append(sample)
    return [tuple(crops) for crops in held.values()]


def _items(samples: Sequence[Sample], options: ClipOptions, *, training: bool) -> list[_Item]:
    rng = np.random.default_rng(options.seed)
    items: list[_Item] = []
    for label in (0, 1):
        clips = [crops for crops in _clips(samples) if crops[0].label == label]
        chosen = rng.permutation(len(clips))[: options.per_class]
        items += [_Item(clips[index], label, int(rng.integers(1 << 31))) for index in chosen]
    if training:
        reals = [item for item in items if item.label == 0]
        items += [_Item(real.crops, label, real.seed, blended=True) for real in reals for label in (0, 1)]
    return items


def _pixels(item: _Item, store: CropStore, frames: int, size: int, *, training: bool) -> NDArray[np.uint8]:
    """Frames [T, size, size, 3] uint8 of one clip; both members of a pair get the same draws."""
    rng = np.random.default_rng(item.seed)
    window = draw_window(rng) if training else Window()
    look = draw_look(rng, LOOK_OF_BLENDS if item.blended else 1.0)
    if len(item.crops) == 1:
        clip = moving_still(store.crop(item.crops[0]), frames, rng)
    else:
        cuts = [store.crop(sample) for sample in item.crops[:frames]]
        side = max(len(cut) for cut in cuts)
        clip = np.stack([resize(cut, side) for cut in cuts])
    if item.blended:
        real, fake, _ = blend_clip(clip, Families.training(), rng)
        clip = fake if item.label else real
    if training:
        noise_seed = item.seed + item.label
        clip = degrade_clip(np.stack([window.cut(frame) for frame in clip]), look, noise_seed)
    return np.stack([resize(frame, size) for frame in clip])


def _padded(clips: Sequence[NDArray[np.uint8]], frames: int) -> Clips:
    pixels = np.zeros((len(clips), frames, *clips[0].shape[1:]), np.uint8)
    mask = np.zeros((len(clips), frames), np.bool_)
    for row, clip in enumerate(clips):
        pixels[row, : len(clip)], mask[row, : len(clip)] = clip, True
    return Clips(pixels, mask)


def _length(item: _Item, frames: int) -> int:
    return frames if len(item.crops) == 1 else min(frames, len(item.crops))


def _digest(network: ClipNetwork, options: ClipOptions, items: Sequence[_Item], size: int) -> str:
    """What the features depend on, so that those of another network or another choice are not taken."""
    digest = hashlib.sha256(f"{options}{size}".encode())
    for item in items:
        digest.update(f"{item}".encode())
    for module in (network.trunk, network.projection):
        for value in module.state_dict().values():
            digest.update(_bytes(value))
    return digest.hexdigest()[:16]


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()


def _write(path: Path, features: NDArray[np.float32]) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        np.save(file, features)
    temporary.replace(path)
