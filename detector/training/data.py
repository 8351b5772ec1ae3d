"""Labelled crops: the CSV that names them, the store that reads them, batches made of pairs.

The CSV has the columns `uri,label,group` and, where known, `split`, `pair` and `donor`:

* `uri`: a picture (PNG, JPEG, WebP or BMP), relative to the CSV, or `archive.tar!member` for one inside an
  uncompressed tar;
* `label`: 0 or `real`, 1 or `fake`;
* `group`: the person on view, as far as known; `donor`: the person whose face was put in;
* `pair`: what a fake shares with the real picture that it was made from; the group where it is not given;
* `clip`: what the crops of one clip share, which then stand in the order of time; `reach`: the side of the
  stored picture over that of the crop that inference would cut, 1 where it is not given.

In place of `uri` there may be `file`, a member of the tar that lies beside the CSV under its name. Whatever
else a line holds, such as the kind of manipulation, are the sample's facets.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import struct
import tarfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detector.crops import resize
from detector.degrade import Look, Picture, Window, degrade, draw_look, draw_window
from detector.errors import InputError
from detector.training.selfblend import Families, self_blend

SPLITS = ("", "train", "val", "test")
_LABELS = {"0": 0, "real": 0, "1": 1, "fake": 1}
_REQUIRED = ("uri", "label", "group")
_TAR_SEPARATOR = ".tar!"
_MAX_REACH = 4.0
_LEAST_PX = 16
_MOST_BYTES = 1 << 26
# What tarfile means to raise, and what it gives for numbers beyond 64 bits and for headers without end.
_UNREADABLE = (OSError, ValueError, OverflowError, MemoryError, RecursionError, tarfile.TarError)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_NO_HEADER = (OSError, SyntaxError, ValueError, struct.error)
"""What Pillow raises for a header that makes no sense."""
_MOST_PX = 1 << 25  # 300 MB while it is decoded
LOOK_OF_BLENDS = 0.35
"""Strength of what blends go through: degraded as often as face swaps, their borders could not be seen."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled crop."""

    uri: str
    label: int
    """0 = real, 1 = fake."""
    group: str
    split: str = ""
    pair: str = ""
    donor: str = ""
    clip: str = ""
    reach: float = 1.0
    facets: tuple[tuple[str, str], ...] = ()
    """Further columns and their values, by which figures can be sliced."""


def read_samples(path: Path) -> list[Sample]:
    """Samples of a CSV, their URIs made absolute.

    Raises:
        InputError: A column is missing, or a line has no known label.
    """
    try:
        # Spreadsheets write a mark in front; names of files need not be UTF-8.
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            columns, archive = set(reader.fieldnames or ()), path.with_suffix(".tar")
            in_tar = "file" in columns and "uri" not in columns and archive.is_file()
            missing = [
                column for column in _REQUIRED if column not in columns | ({"uri"} if in_tar else set())
            ]
            if missing:
                raise InputError(f"{path}: column {', '.join(missing)} is missing; it needs uri,label,group")
            return [_sample(path, reader.line_num, _named(row, archive) if in_tar else row) for row in reader]
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error


def _named(row: dict[str, str | None], archive: Path) -> dict[str, str | None]:
    """The row under the name that its picture has in the tar."""
    file = row.pop("file")
    return row | {"uri": f"{archive.name}!{file}" if file else None}


def _sample(path: Path, line: int, row: dict[str, str | None]) -> Sample:
    uri, label, group = (row[name] or "" for name in _REQUIRED)
    found = _LABELS.get(label.strip().lower())
    if found is None:
        raise InputError(f"{path}:{line}: label {label!r} is neither of {', '.join(_LABELS)}")
    if not uri or not group:
        raise InputError(f"{path}:{line}: uri and group must not be empty")
    optional = {key: row.get(key) or "" for key in ("split", "pair", "donor", "clip")}
    optional["pair"] = optional["pair"] or group
    if optional["split"] not in SPLITS:
        raise InputError(f"{path}:{line}: split {optional['split']!r} is neither of {', '.join(SPLITS[1:])}")
    try:
        reach = float(row.get("reach") or 1.0)
    except ValueError:
        reach = 0.0
    if not 1.0 <= reach <= _MAX_REACH:
        raise InputError(
            f"{path}:{line}: reach {row.get('reach')!r} is not a number from 1 to {_MAX_REACH:g}"
        )
    own = (*_REQUIRED, *optional, "reach")
    facets = tuple((name, value or "") for name, value in row.items() if name and name not in own)
    where = uri if "://" in uri else str(path.parent / uri)
    return Sample(where, found, group, reach=reach, facets=facets, **optional)


def split_by_component(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Samples with `split` set to `train` or `val`, so that no person, on view or put in, is on two sides.

    Groups that share a sample as `group` and `donor` form one component. A component's side is drawn from its
    name, so that data which come later do not move it, unless a class would be missing from one side: then as
    few as possible change sides, those that were drawn nearest to the share.

    Args:
        samples: Their own `split` is overwritten.
        share: Of the components, for `val`.
        seed: Of the draw.
    """
    component = _components(samples)
    labels: dict[str, set[int]] = defaultdict(set)
    for sample in samples:
        labels[component[sample.group]].add(sample.label)
    chosen = _validation_side(labels, {name: _draw(name, seed) for name in labels}, share)
    return [
        replace(sample, split="val" if component[sample.group] in chosen else "train") for sample in samples
    ]


def _validation_side(labels: Mapping[str, set[int]], drawn: Mapping[str, float], share: float) -> set[str]:
    """The components drawn below the share, but for the fewest moves that give both sides all classes.

    Components with the same classes replace each other, so of each kind only the one next to the share on
    either side comes into question, and no side needs more than one of a kind.
    """
    kinds: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in sorted(labels, key=drawn.__getitem__):
        kinds[tuple(sorted(labels[name]))].append(name)
    below = [sum(drawn[name] < share for name in names) for names in kinds.values()]
    every = {label for kind in kinds for label in kind}

    def cost(counts: tuple[int, ...]) -> tuple[float, ...]:
        sides = list(zip(kinds.items(), below, counts, strict=True))
        in_val = {label for (kind, _), _, count in sides if count for label in kind}
        in_train = {label for (kind, names), _, count in sides if count < len(names) for label in kind}
        moved = [name for (_, names), was, is_ in sides for name in names[min(was, is_) : max(was, is_)]]
        lacking = len(every - in_val), len(every - in_train)
        return sum(lacking), lacking[0], len(moved), sum(abs(drawn[name] - share) for name in moved)

    nearby = [
        range(max(0, count - 1), min(len(names), count + 1) + 1)
        for names, count in zip(kinds.values(), below, strict=True)
    ]
    best = min(itertools.product(*nearby), key=cost)
    return {name for names, count in zip(kinds.values(), best, strict=True) for name in names[:count]}


def _draw(name: str, seed: int) -> float:
    """A number in [0, 1) that a name has."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / (1 << 64)


def _components(samples: Iterable[Sample]) -> dict[str, str]:
    """Name of the connected component of every group and donor."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for sample in samples:
        first, second = root(sample.group), root(sample.donor or sample.group)
        parent[max(first, second)] = min(first, second)
    return {name: root(name) for name in list(parent)}


class CropStore:
    """Reads pictures by URI; every tar's index is read once. Safe to hand to a worker process."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, tuple[int, int]]] = {}

    def read(self, uri: str) -> Picture:
        """The picture, RGB.

        Raises:
            InputError: There is none, it is no PNG, JPEG, WebP or BMP that can be decoded, it is smaller than
                16 px, or it has more than 33 million px.
        """
        data = self._bytes(uri)
        pixels = _pixels(data)
        if pixels > _MOST_PX:
            raise InputError(f"{uri}: larger than {_MOST_PX:,} px")
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if pixels else None
        except cv2.error as error:  # a side that it does not allow
            raise InputError(f"{uri}: not a picture that can be decoded: {error.err}") from error
        if picture is None:
            raise InputError(f"{uri}: not a picture that can be decoded")
        if min(picture.shape[:2]) < _LEAST_PX:
            raise InputError(f"{uri}: smaller than {_LEAST_PX} px")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def crop(self, sample: Sample) -> Picture:
        """What inference would cut: the square in the middle, without the margin that training may use."""
        return Window().within(sample.reach).cut(self.read(sample.uri))

    def _bytes(self, uri: str) -> bytes:
        archive, separator, member = uri.partition(_TAR_SEPARATOR)
        try:
            if not separator:
                return _regular(Path(uri))
            return self._member(f"{archive}.tar", member)
        except _UNREADABLE as error:
            raise InputError(f"{uri}: cannot be read: {error}") from error

    def _member(self, archive: str, member: str) -> bytes:
        if not Path(archive).is_file():
            raise InputError(f"{archive}: not a regular file")
        if archive not in self._members:
            self._members[archive] = _index(archive)
        if member not in self._members[archive]:
            raise InputError(f"{archive} holds no {member}")
        offset, size = self._members[archive][member]
        if size > _MOST_BYTES:
            raise InputError(f"{archive}!{member}: larger than {_MOST_BYTES:,} bytes")
        with Path(archive).open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _pixels(data: bytes) -> float:
    """How many a picture will have, from its header: 160 kB may ask for gigabytes. 0 if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the limit is ours
        try:
            with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                return picture.width * picture.height
        except PIL.Image.DecompressionBombError:
            return math.inf
        except _NO_HEADER:
            return 0


def _index(archive: str) -> dict[str, tuple[int, int]]:
    """Offset and size of every member of a tar."""
    members: dict[str, tuple[int, int]] = {}
    last = -1
    with tarfile.open(archive, "r:") as tar:
        for entry in tar:
            # A size below 0 leads back to an earlier member, and from there round and round.
            if entry.size < 0 or entry.offset <= last:
                raise tarfile.ReadError(f"{entry.name} has a size below 0")
            last = entry.offset
            members[entry.name] = entry.offset_data, entry.size
    return members


def _regular(path: Path) -> bytes:
    """What a file holds; a pipe would be waited for, a device never ends."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES:,} bytes")
    return path.read_bytes()


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
