"""One version of one video as a listing finds it, and which names are taken for videos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch

SUFFIXES = frozenset(
    f".{s}"
    for s in "mp4 m4v mov mkv webm avi ts mts m2ts flv wmv asf 3gp 3g2 mpg mpeg ogv gif".split()  # noqa: SIM905
)


NOT_FOUND = "not-found"
"""Version of what a manifest names and is not there: the scan then says so in its row."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One version of one video. `size` in bytes, `modified_at` in UTC, None where no calendar holds it."""

    uri: str
    size: int
    version: str
    modified_at: datetime | None
    storage_class: str | None = None
    version_id: str | None = None
    extra: tuple[tuple[str, str], ...] | None = None
    """Further columns of a manifest, by name."""


class Selection:
    """Which entries of folders and prefixes are scanned; the others are counted.

    Args:
        include: Patterns in place of the list of suffixes.
        exclude: Patterns that leave out what would be taken.
        own: What the scan itself writes, files and folders or prefixes.

    Attributes:
        skipped: How many entries were passed over, by suffix or by what they are.
    """

    def __init__(
        self,
        include: Sequence[str] = (),
        own: frozenset[str] = frozenset(),
        exclude: Sequence[str] = (),
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self.own = own
        self._include, self._exclude = (tuple(map(str.lower, patterns)) for patterns in (include, exclude))

    def takes(self, name: str, inside: str, *, spelled_out: bool = False) -> bool:
        """True if the file, at `inside` below its input, looks like a video; else it is counted.

        With `spelled_out` a pattern named its suffix, and it is taken for one unless it is excluded.
        """
        if _matches(self._exclude, name, inside):
            self.skipped["excluded"] += 1
            return False
        if spelled_out:
            return True
        taken = _matches(self._include, name, inside) if self._include else suffix(name) in SUFFIXES
        if not taken:
            self.skipped[_kind(name)] += 1
        return taken


def _matches(patterns: Sequence[str], name: str, inside: str) -> bool:
    return any(fnmatch(name.lower(), p) or fnmatch(inside.lower(), p) for p in patterns)


def suffix(name: str) -> str:
    """The suffix of a file name, lower case with its dot, "" where it has none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a Path would normalise the name


def _kind(name: str) -> str:
    ending = suffix(name)
    if not ending:
        return "no suffix"
    # Dates and hashes behind a dot would make the count endless.
    return ending if len(ending) <= 8 and ending[1:].isalnum() and ending.isascii() else "other suffix"
