"""A scan of damaged files as a command, watched from outside: rows, exit code, memory of the driver."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb

from tests.mutants import SEEDS, container_of
from tests.mutations import mutated
from tests.seeded import seeded_weights

_EVERY_S = 0.25
_TIMEOUT_S = 1200
# Rows are counted where they are committed.
_COMMIT_ROWS = 20
_FROM_ROW = 100


class Scanned(NamedTuple):
    """What a scan gave. Memory is the driver's resident set in MB, from its second hundred rows on."""

    rows: int
    videos: int
    outcomes: Mapping[str, int]
    exit_code: int
    least_mb: float
    most_mb: float
    seconds: float

    @property
    def internal_errors(self) -> int:
        """Rows that say that there is a bug."""
        return self.outcomes.get("internal_error", 0)


def scan_of(bodies: Mapping[str, bytes], seeds: range, folder: Path) -> Scanned:
    """Scan the files that those seeds damage, on two cores of this machine through Ray."""
    videos, output, started = folder / "videos", folder / "out", time.monotonic()
    videos.mkdir()
    for seed in seeds:
        name = container_of(seed)
        path = videos / f"{seed:06}.{SEEDS[name].suffix}"
        path.write_bytes(mutated(bodies[name], seed))
    seeded_weights(folder / "seeded.safetensors")
    words = ["scan", str(videos), "--output", str(output), "--weights", str(folder / "seeded.safetensors")]
    sets = ["address=local", "extract_actors=2", f"commit_rows={_COMMIT_ROWS}", "commit_every_s=1"]
    with (folder / "log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "jobs", *words, *(f"--set={one}" for one in sets)],
            stdout=log,
            stderr=log,
        )
        held_mb = _watched(run, output / "summary.json")
    rows = duckdb.read_parquet(f"{output}/results/scan_date=*/*.parquet", hive_partitioning=True)
    found = rows.project("uri, coalesce(reason, status) AS outcome").fetchall()
    return Scanned(
        rows=len(found),
        videos=len({uri for uri, _ in found}),
        outcomes=Counter(outcome for _, outcome in found),
        exit_code=run.returncode,
        least_mb=min(held_mb, default=0.0),
        most_mb=max(held_mb, default=float("inf")),
        seconds=time.monotonic() - started,
    )


def _watched(run: subprocess.Popen[bytes], summary: Path) -> list[float]:
    """Memory of a process in MB, at every look after so many rows and before the end."""
    given_up, held_mb = time.monotonic() + _TIMEOUT_S, []
    while run.poll() is None:
        if time.monotonic() > given_up:
            run.kill()
            run.wait()
            raise TimeoutError(f"the scan was not done after {_TIMEOUT_S} s")
        written = json.loads(summary.read_text())["written"] if summary.exists() else 0
        if written >= _FROM_ROW and (now_mb := _resident_mb(run.pid)):
            held_mb.append(now_mb)
        time.sleep(_EVERY_S)
    return held_mb


def _resident_mb(pid: int) -> float | None:
    """None of a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS")), None)
