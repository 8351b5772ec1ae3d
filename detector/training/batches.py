"""Batches made of pairs: each real with a fake of it, cut, mirrored and degraded alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detector.crops import resize
from detector.degrade import Look, Picture, Window, degrade, draw_look, draw_window
from detector.errors import InputError
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.selfblend import Families, self_blend

LOOK_OF_BLENDS = 0.35
"""Strength of what blends go through: degraded as often as face swaps, their borders could not be seen."""


class Batch(NamedTuple):
    """One step's crops: the first half are reals, the second their fakes in the same order."""

    frames: Tensor
    """[B, S, S, 3] uint8, RGB, CPU."""
    labels: Tensor
    """[B] float32, 1 = fake."""
    windows: Tensor
    """[B, 4] float32: centre x, centre y, side as fractions of the crop; -1 where mirrored, else 1."""
    rows: Tensor
    """[B] int64: index into the samples; -1 for a self-blended fake, which no file holds."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How batches are drawn."""

    size: int = 112
    """Side of the network's input, px."""
    batch: int = 64
    """Crops in a batch, an even number."""
    steps: int = 1000
    """Batches in the cycle."""
    seed: int = 0
    blended: float = 0.0
    """Share of the fakes that are self-blended from their real instead of read."""


class PairedCrops(Dataset[Batch]):
    """Item i is the batch of step i: a function of samples, options and i alone, so a cycle can be resumed.

    Reals are drawn evenly; each brings one of its fakes (same `pair`; any fake where it has none). Both
    members of a pair are cut, mirrored and degraded alike, so that none of this tells the classes apart.
    """

    def __init__(
        self, samples: Sequence[Sample], options: BatchOptions, families: Families | None = None
    ) -> None:
        """Raises InputError without at least one real, and one fake unless all fakes are self-blended."""
        self._samples = list(samples)
        self._options = options
        self._families = families or Families.training()
        self._store = CropStore()
        self._reals = [row for row, sample in enumerate(self._samples) if sample.label == 0]
        self._fakes = [row for row, sample in enumerate(self._samples) if sample.label == 1]
        if not self._reals or not (self._fakes or options.blended >= 1.0):
            raise InputError(f"{len(self._reals)} reals and {len(self._fakes)} fakes: training needs both")
        self._fakes_of: dict[str, list[int]] = defaultdict(list)
        for row in self._fakes:
            self._fakes_of[self._samples[row].pair].append(row)

    def __len__(self) -> int:
        return self._options.steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((self._options.seed, step))
        half = self._options.batch // 2
        reals = rng.choice(len(self._reals), half, replace=len(self._reals) < half)
        pairs = [self._pair(self._reals[index], rng) for index in reals]
        members = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
        return Batch(
            frames=torch.from_numpy(np.stack([member.frame for member in members])),
            labels=torch.tensor([0.0] * half + [1.0] * half),
            windows=torch.tensor([member.window.as_row() for member in members], dtype=torch.float32),
            rows=torch.tensor([member.row for member in members], dtype=torch.int64),
        )

    def _pair(self, real_row: int, rng: np.random.Generator) -> tuple[_Member, _Member]:
        shown, reach = self._samples[real_row], self._samples[real_row].reach
        fakes = self._fakes_of.get(shown.pair) or self._fakes
        blends = rng.random() < self._options.blended or not fakes
        if blends:
            # Outlines know where a face lies in a crop, not in what is stored around it.
            real, fake = self_blend(self._store.crop(shown), self._families, rng)
            fake_row, reach = -1, 1.0
            fake_reach = reach
        else:
            fake_row = int(rng.choice(fakes))
            real, fake = self._store.read(shown.uri), self._store.read(self._samples[fake_row].uri)
            fake_reach = self._samples[fake_row].reach
        look = draw_look(rng, LOOK_OF_BLENDS if blends else 1.0)
        window, noise_seed = draw_window(rng), int(rng.integers(1 << 31))
        return (
            self._finish(_Member(real, window, real_row), reach, look, noise_seed),
            self._finish(_Member(fake, window, fake_row), fake_reach, look, noise_seed + 1),
        )

    def _finish(self, stored: _Member, reach: float, look: Look, noise_seed: int) -> _Member:
        degraded = degrade(stored.window.within(reach).cut(stored.frame), look, noise_seed)
        return stored._replace(frame=resize(degraded, self._options.size))


class _Member(NamedTuple):
    frame: Picture
    window: Window
    row: int
