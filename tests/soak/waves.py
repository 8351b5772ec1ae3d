"""`make soak BAR=waves`: the driver's memory stays flat over waves, and no row of many gets lost or doubled.

20,000 videos in 5 waves through the Ray graph. Extraction is canned (`tests.canned.Canned`: one clip of
noise, 2 frames of 32 px), the network is real but small and untrained, the table is real.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from jobs import scan
from jobs.config import load
from jobs.preparation import Preparation
from tests.canned import Canned
from tests.seeded import seeded_weights
from tests.soak.report import write_report

_WAVES = 5
_WAVE = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
_ALLOWED_MIB = 50


def main() -> int:
    """Run the bar; 0 if it holds."""
    after: list[float] = []
    ended: list[float] = []
    original = scan._waves

    def measured(plan: pa.Table, job: Preparation) -> Iterator[pa.Table]:
        for wave in original(plan, job):
            yield wave
            after.append(_resident_mib())
            ended.append(time.monotonic())
            print(f"wave {len(after)}: {after[-1]:.0f} MiB, {ended[-1] - started:.0f} s", flush=True)

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder, "videos")
        videos.mkdir()
        for index in range(_WAVES * _WAVE):
            (videos / f"{index:05}.mp4").touch()
        seeded_weights(Path(folder, "seeded.safetensors"), size=32)
        flags = {
            "inputs": [str(videos)],
            "output": f"{folder}/out",
            "weights": f"{folder}/seeded.safetensors",
            "wave_size": _WAVE,
            "score_batch": 64,
        }
        scan._waves = measured
        started = time.monotonic()
        try:
            summary = scan.run(load(overrides=flags).settings, quiet=True, extract=Canned)
        finally:
            scan._waves = original
        rows, videos_in_table, scored = (
            duckdb.read_parquet(f"{folder}/out/results/*/*.parquet")
            .aggregate("count(*), count(DISTINCT uri), count(*) FILTER (status = 'scored')")
            .fetchall()[0]
        )
    growth = after[-1] - after[1]
    total = _WAVES * _WAVE
    holds = rows == videos_in_table == scored == total and growth <= _ALLOWED_MIB
    write_report(
        "waves",
        holds,
        {
            "videos": f"{total:,} in {_WAVES} waves of {_WAVE:,}",
            "rows in the table": f"{rows:,}",
            "different videos in it": f"{videos_in_table:,}",
            "of these scored": f"{scored:,}",
            **{f"memory of the driver after wave {i}, MiB": f"{mib:.0f}" for i, mib in enumerate(after, 1)},
            f"growth from wave 2 to wave {_WAVES}, MiB (at most {_ALLOWED_MIB})": f"{growth:.1f}",
            "seconds": round(time.monotonic() - started),
            "exit code": summary.exit_code,
        },
        [
            "Memory is the resident set of the scanning process (VmRSS), read between two waves.",
            (
                "Extraction is canned: one clip of noise per video, 2 frames of 32 px. The network is a real "
                "one, small and untrained. Everything else is what a scan does."
            ),
        ],
    )
    return 0 if holds else 1


def _resident_mib() -> float:
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
