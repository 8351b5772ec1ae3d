"""`make soak BAR=kills`: SIGKILL of any process of a scan loses no video, doubles none and leaves nothing.

Driver, extraction helper, child and scoring actor die 12 times each, one of two nodes 3 times, at moments
that a seed draws, in scans from S3 into S3 and from disk onto disk in turn. A kill counts only if its victim
was alive. What was done is kept in `.bench/`: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import boto3

from tests.s3 import server
from tests.soak.kill_trials import SEED, Part, Site, Trial, trial
from tests.soak.report import write_report

_VIDEOS = 60
_STATE = Path(__file__).resolve().parents[2] / ".bench" / "kills.json"
_PARTS = (
    Part(("driver",), "in-process", 9),
    Part(("driver",), "local", 3),
    Part(("child", "helper"), "in-process", 6, per_scan=6),
    Part(("child", "helper"), "local", 6, per_scan=6),
    Part(("scoring actor",), "local", 12, per_scan=6),
    Part(("raylet",), "nodes", 3),
)
# Of scans in which a victim was gone when its moment came.
_SPARE_SCANS = 4


def main() -> int:
    """Run the bar; 0 if it holds."""
    started = time.monotonic()
    done: dict[str, list[Trial]] = {part.name: [] for part in _PARTS}
    before_s = _resumed(done)
    with tempfile.TemporaryDirectory(prefix="k") as made, contextlib.ExitStack() as stack:
        tops = {name: stack.enter_context(opened_store(name, Path(made))) for name in ("s3", "disk")}
        site = Site(Path(made), tops, _VIDEOS)
        for part in _PARTS:
            trials = done[part.name]
            scans = part.kills * len(part.victims) // part.per_scan + _SPARE_SCANS
            while (wanted := _wanted(part, trials)) and len(trials) < scans:
                trials.append(trial(site, part, len(trials), wanted))
                seconds = before_s + time.monotonic() - started
                _STATE.parent.mkdir(exist_ok=True)
                kept = {name: [asdict(one) for one in some] for name, some in done.items()}
                _STATE.write_text(json.dumps({"trials": kept, "seconds": seconds}))
                print(f"{part.name} {len(trials) - 1}: {trials[-1]}, {seconds:.0f} s", flush=True)
    holds = _report(done, before_s + time.monotonic() - started)
    _STATE.unlink()
    return 0 if holds else 1


def _resumed(done: dict[str, list[Trial]]) -> float:
    """Take the trials of a run that was stopped; the seconds that they took."""
    if not _STATE.exists():
        return 0.0
    kept = json.loads(_STATE.read_text())
    for name, trials in kept["trials"].items():
        done[name] += [Trial(**one) for one in trials]
    return float(kept["seconds"])


def _killed(trials: list[Trial]) -> Counter[str]:
    return sum((Counter(one.kills) for one in trials), Counter())


def _wanted(part: Part, trials: list[Trial]) -> dict[str, int]:
    """How many kills of each victim are still to be made, without those of which none is."""
    killed = _killed(trials)
    return {victim: left for victim in part.victims if (left := part.kills - killed[victim]) > 0}


def _report(done: dict[str, list[Trial]], seconds: float) -> bool:
    everything = [one for trials in done.values() for one in trials]
    complaints = [text for one in everything for text in one.complaints]
    complaints += [
        f"{part.name}: kills that were not made: {wanted}"
        for part in _PARTS
        if (wanted := _wanted(part, done[part.name]))
    ]
    killed = {
        f"killed: {part.name}": ", ".join(
            f"{count} {victim}" for victim, count in _killed(done[part.name]).items()
        )
        + f", in {len(done[part.name])} scans"
        for part in _PARTS
    }
    drivers = [str(one.kept) for one in everything if "driver" in one.kills]
    write_report(
        "kills",
        not complaints,
        {
            "videos of each scan": _VIDEOS,
            **killed,
            "victims that had ended by themselves, which do not count": sum(one.missed for one in everything),
            "rows in the table when the driver was dead": ", ".join(drivers),
            "scans that had to be run again": sum(one.again for one in everything),
            "rows `lost`, which a second scan made good": sum(one.lost for one in everything),
            "seconds until the last process was gone, at most": f"{max(t.gone_s for t in everything):.1f}",
            "videos lost or doubled, rows unlike those of an undisturbed scan, leftovers": len(complaints),
            "readers": "`latest`; deltalake; DuckDB, pandas, polars, pyarrow over scan_date=*/*.parquet",
            "seed": SEED,
            "seconds": round(seconds),
        },
        [
            "Looked for after each scan: processes, files in TMPDIR (what Ray spilled is one), /dev/shm.",
            *complaints,
        ],
    )
    return not complaints


@contextlib.contextmanager
def opened_store(store: str, folder: Path) -> Iterator[str]:
    """Where outputs go: a folder, or a bucket of a server that runs as long."""
    if store == "disk":
        yield str(folder / "out")
        return
    with server(folder / "server") as reached:
        os.environ.update(reached)
        boto3.client("s3").create_bucket(Bucket="soak")
        yield "s3://soak/out"


if __name__ == "__main__":
    sys.exit(main())
