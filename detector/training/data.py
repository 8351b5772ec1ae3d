"""Labelled crops: the CSV that names them, and their split by people.

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
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detector.errors import InputError

SPLITS = ("", "train", "val", "test")
_LABELS = {"0": 0, "real": 0, "1": 1, "fake": 1}
_REQUIRED = ("uri", "label", "group")
_MAX_REACH = 4.0


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
