"""Which videos are to be scanned: all inputs, wherever they lie, as one stream of `Listed`.

Videos are told by suffix; `include` patterns replace that. A file that was named is always taken. What is
passed over is counted in `Listing.skipped`, never silently dropped.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from detector.errors import InputError
from jobs.listed import Listed, Selection
from jobs.local import list_local, scheme_of
from jobs.s3 import list_s3
from jobs.schema import printable

_LISTERS: dict[str | None, Callable[[Selection, str], Iterable[Listed]]] = {
    None: list_local,
    "file": list_local,
    "s3": list_s3,
}


class Listing:
    """The files behind `inputs`; iterate over it once.

    A file that several inputs name comes several times; `plan` takes it once.
    """

    def __init__(self, inputs: Sequence[str], include: Sequence[str] = (), output: str | None = None) -> None:
        self.inputs = tuple(inputs)
        self._selection = Selection(include, _written(output))

    @property
    def skipped(self) -> Counter[str]:
        """After the iteration, how many entries were passed over, by suffix or by what they are."""
        return self._selection.skipped

    def __iter__(self) -> Iterator[Listed]:
        if not self.inputs:
            raise InputError("nothing to scan", hint="Name a folder, a video, or a quoted pattern.")
        for name in self.inputs:
            yield from _lister(name)(self._selection, name)


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
    parts = [f"{output.rstrip('/')}/{name}" for name in ("results", "scans")]
    return frozenset(parts if scheme_of(output) == "s3" else map(os.path.realpath, parts))
