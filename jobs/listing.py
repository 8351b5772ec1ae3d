"""Which videos are to be scanned: all inputs, wherever they lie, as one stream of `Listed`.

Videos are told by suffix; `include` patterns replace that. A file that was named is always taken. What is
passed over is counted in `Listing.skipped`, never silently dropped.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from detector.errors import InputError
from jobs.listed import NOT_FOUND, Listed, Selection
from jobs.local import list_local, scheme_of
from jobs.manifests import list_manifest
from jobs.s3 import list_s3
from jobs.schema import printable

_LISTERS: dict[str | None, Callable[[Selection, str], Iterable[Listed]]] = {
    None: list_local,
    "file": list_local,
    "s3": list_s3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """What is left out of what the inputs hold."""

    exclude: Sequence[str] = ()
    """Patterns of names."""
    min_bytes: int = 0
    """What is smaller."""
    changed_before: datetime | None = None
    """What changed since; what has no known time is kept."""
    sample: float = 1.0
    """All but this share of the videos, told by their names alone, so that it is the same in every run."""


class Listing:
    """The files behind `inputs`; iterate over it once.

    A file that several inputs name comes several times; `plan` takes it once.

    Args:
        inputs: Folders, files, prefixes and patterns.
        include: Patterns of names in place of the list of suffixes.
        output: Of the scan, which may lie among the videos.
        manifests: Lists of videos.
        narrowed: What of all that is left out.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        include: Sequence[str] = (),
        output: str | None = None,
        *,
        manifests: Sequence[str] = (),
        narrowed: Narrowed | None = None,
    ) -> None:
        self.inputs, self.manifests = tuple(inputs), tuple(manifests)
        self._narrowed = narrowed or Narrowed()
        self._selection = Selection(include, _written(output), self._narrowed.exclude)

    @property
    def skipped(self) -> Counter[str]:
        """After the iteration, how many entries were passed over, by suffix or by what they are."""
        return self._selection.skipped

    def __iter__(self) -> Iterator[Listed]:
        if not self.inputs and not self.manifests:
            raise InputError("nothing to scan", hint="Name a folder, a video, or a quoted pattern.")
        before = self._narrowed.changed_before
        for item in self._all():
            if item.size < self._narrowed.min_bytes and item.version != NOT_FOUND:
                self.skipped["smaller than min_bytes"] += 1
            elif before and item.modified_at and item.modified_at > before:
                self.skipped["younger than min_age"] += 1
            elif _drawn(item.uri) < self._narrowed.sample:
                yield item
            else:
                self.skipped["outside the sample"] += 1

    def _all(self) -> Iterator[Listed]:
        for name in self.inputs:
            yield from _lister(name)(self._selection, name)
        for name in self.manifests:
            yield from list_manifest(self._selection, name)


def _drawn(uri: str) -> float:
    """A number in [0, 1) that a name has."""
    return int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "big") / (1 << 64)


def _lister(name: str) -> Callable[[Selection, str], Iterable[Listed]]:
    scheme = scheme_of(name)
    if scheme not in _LISTERS:
        raise InputError(
            f"{printable(name)}: {scheme}:// cannot be scanned by this release",
            hint="Name a folder, a video or a quoted pattern on a disk, or s3://bucket/prefix/.",
        )
    return _LISTERS[scheme]


def _written(output: str | None) -> frozenset[str]:
    """What a scan writes below its output, which may lie among the videos."""
    if output is None:
        return frozenset()
    parts = [f"{output.rstrip('/')}/{name}" for name in ("results", "scans", "summary.json")]
    return frozenset(parts if scheme_of(output) == "s3" else map(os.path.realpath, parts))
