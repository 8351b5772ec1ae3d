"""`make bench BAR=hardening`: what the walls around the decoding child cost.

A made clip (720p, 10 s) is extracted by two sandboxes in turn, one with the walls and one without them;
counted is the CPU time of the child and of its helper. Scoring, which has no walls, comes on top in a scan.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from detector.confinement import TEST_LACKING
from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from tests.bench.clips import made_clip

_MOST = 0.05


def main() -> int:
    """Prints both costs and their ratio; 1 if it is over the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=25)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder, Sandbox() as walled, _without_walls() as open_:
        clip = made_clip(Path(folder), "720p")
        pairs = [(_cost(walled, clip), _cost(open_, clip)) for _ in range(repeats + 1)][1:]
        print(f"with {walled.isolation.in_words()}; without: {open_.isolation.in_words()}")
    on, off = (statistics.median(side) for side in zip(*pairs, strict=True))
    more = statistics.median(on / off for on, off in pairs) - 1
    print(f"{repeats} pairs: {on:.3f} CPU s with walls, {off:.3f} without; median of the ratios {more:+.1%}")
    print(f"{'holds' if more <= _MOST else 'DOES NOT HOLD'}: at most {_MOST:.0%} more")
    return int(more > _MOST)


def _without_walls() -> Sandbox:
    os.environ[TEST_LACKING] = "landlock,seccomp"
    try:
        return Sandbox()
    finally:
        del os.environ[TEST_LACKING]


def _cost(sandbox: Sandbox, clip: Path) -> float:
    """CPU seconds of one extraction: the child's and what its helper spent meanwhile."""
    before = _cpu_s(sandbox.helper_pid)
    with clip.open("rb") as file:
        extraction = sandbox.extract(file, ExtractOptions())
    assert extraction.facts.failure is None, extraction.facts.message
    return extraction.cpu_s + _cpu_s(sandbox.helper_pid) - before


def _cpu_s(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
