"""`make soak BAR=races ARGS=disk` and `ARGS=s3`: two scans of one table at a time double nothing.

Twenty times two scans start together; every fourth time both were told to wait. Then a scan is paused for
longer than its claim lives, another runs to its end, and the first wakes up. Canned extraction, one process
each.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.scans import touch
from tests.seeded import seeded_weights
from tests.soak.counts import counts
from tests.soak.kills import opened_store
from tests.soak.report import write_report

_VIDEOS, _RACES, _PAUSES = 60, 20, 3
_SEED = 16
_CLAIM_S = 4
_TIMEOUT_S = 300
# The command with canned extraction, slow enough to be met in the middle, and a claim that is soon forgotten.
_COMMAND = f"""
import functools, sys
import jobs.scan, jobs.table
from jobs.cli import main
from tests.canned import Slow
jobs.table.CLAIM_S = {_CLAIM_S}
jobs.table.RENEW_S = 1
jobs.scan.run = functools.partial(jobs.scan.run, extract=Slow)
main()
"""


def main(store: str = "disk", races: int = _RACES, pauses: int = _PAUSES) -> int:
    """Run the bar on `disk` or `s3` with so many trials; 0 if it holds."""
    chance, started = random.Random(_SEED), time.monotonic()
    lines: list[str] = []
    codes: list[tuple[int, ...]] = []
    with tempfile.TemporaryDirectory() as made, opened_store(store, Path(made)) as top:
        seeded_weights(Path(made) / "seeded.safetensors")
        touch(Path(made) / "videos", *(f"{number:03}.mp4" for number in range(_VIDEOS)))
        for number in range(races):
            wait = number % 4 == 3
            output = f"{top}/race-{number}"
            codes.append(_race(_command(Path(made), output, "--wait" if wait else ""), chance))
            lines += _judged(f"race {number}", output, codes[-1], {(0, 0)} if wait else {(0, 5), (0, 0)})
            print(number, codes[-1], f"{time.monotonic() - started:.0f} s", flush=True)
        for number in range(pauses):
            output = f"{top}/pause-{number}"
            codes.append(_paused(_command(Path(made), output)))
            lines += _judged(f"pause {number}", output, codes[-1], {(0, 5)})
            print("pause", number, codes[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    write_report(
        f"races-{store}",
        not lines,
        {
            "videos": _VIDEOS,
            "pairs of scans started together": races,
            "of these told to wait": sum(number % 4 == 3 for number in range(races)),
            "holders paused beyond their claim and woken": pauses,
            "exit codes": ", ".join(sorted({f"{one} and {two}" for one, two in codes})),
            "tables without every video once, the same by all readers, or with other exit codes": len(lines),
            "seconds": round(time.monotonic() - started),
        },
        lines,
    )
    return 1 if lines else 0


def _command(folder: Path, output: str, *more: str) -> list[str]:
    words = ["scan", str(folder / "videos"), "--output", output]
    words += ["--weights", str(folder / "seeded.safetensors"), "--address", "in-process"]
    words += ["--set", "commit_rows=5", *(word for word in more if word)]
    return [sys.executable, "-c", _COMMAND, *words]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _race(command: list[str], chance: random.Random) -> tuple[int, ...]:
    """Exit codes of two scans that start within a second; both 0 where one came after the other's end."""
    first = _start(command)
    time.sleep(chance.uniform(0, 1))
    second = _start(command)
    return tuple(sorted(run.wait(_TIMEOUT_S) for run in (first, second)))


def _paused(command: list[str]) -> tuple[int, ...]:
    """Exit codes of a scan that ran meanwhile, and of the one that slept."""
    output = command[command.index("--output") + 1]
    sleeper = _start(command)
    while _rows(output) < 10:
        time.sleep(0.1)
    os.kill(sleeper.pid, signal.SIGSTOP)
    time.sleep(_CLAIM_S + 2)
    other = _start(command).wait(_TIMEOUT_S)
    os.kill(sleeper.pid, signal.SIGCONT)
    return other, sleeper.wait(_TIMEOUT_S)


def _rows(output: str) -> int:
    try:
        return counts(output)["deltalake"]
    except Exception:  # noqa: BLE001  # the table is not there yet, or a file half written
        return 0


def _judged(name: str, output: str, codes: tuple[int, ...], right: set[tuple[int, ...]]) -> list[str]:
    # A scan that is fenced off leaves files that nobody committed; the next claim removes them.
    found = counts(output)
    held = codes in right and found["deltalake"] == found["videos"] == _VIDEOS
    return [] if held else [f"{name}: exit codes {codes}, {found}"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2], *map(int, sys.argv[2:4])))
