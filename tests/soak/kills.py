"""`make soak BAR=kills ARGS=disk` and `ARGS=s3`: SIGKILL at random moments loses no video and doubles none.

200 small videos. In each trial the driver is killed with its children at a random moment between the first
sign of the table and the end, then the same command runs to its end; five readers have to count the same. 17
trials with canned extraction in one process, 3 with the real stages on Ray.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
from deltalake import DeltaTable

from jobs.output import open_output
from jobs.table import ResultsTable
from tests.film import moving_face
from tests.media import write_video
from tests.s3 import server
from tests.seeded import seeded_weights
from tests.soak.counts import counts
from tests.soak.report import write_report

_VIDEOS = 200
_SEED = 16
_TIMEOUT_S = 600
# The command with canned extraction in place of the real one.
_COMMAND = """
import functools, sys
import jobs.scan
from jobs.cli import main
from tests.canned import Canned
jobs.scan.run = functools.partial(jobs.scan.run, extract=Canned)
main()
"""


def main(store: str = "disk", canned: int = 17, on_ray: int = 3) -> int:
    """Run the bar on `disk` or `s3` with so many trials of each kind; 0 if it holds."""
    chance, started = random.Random(_SEED), time.monotonic()
    lines: list[str] = []
    kept: list[int] = []
    span_s = 0.0
    with tempfile.TemporaryDirectory() as made, opened_store(store, Path(made)) as top:
        videos = _videos(Path(made))
        for number in range(canned + on_ray):
            real = number >= canned
            output = f"{top}/{number}"
            command = _command(videos, output, Path(made), real=real)
            if number in (0, canned):
                span_s = _span(command, f"{top}/whole-{real}", output)
            _kill(command, output, chance.uniform(0.0, 1.0) * span_s)
            kept.append(_rows_now(output))
            end = subprocess.run(command, check=False, capture_output=True, timeout=_TIMEOUT_S)
            found = counts(output)
            if end.returncode or set(found.values()) != {_VIDEOS}:
                lines.append(f"trial {number}: exit {end.returncode}, {found}, {end.stderr[-300:]!r}")
            print(number, kept[-1], found, f"{time.monotonic() - started:.0f} s", flush=True)
    write_report(
        f"kills-{store}",
        not lines,
        {
            "videos": _VIDEOS,
            "trials with canned extraction, in one process": canned,
            "trials with the real stages on Ray": on_ray,
            "rows in the table after each kill": ", ".join(map(str, kept)),
            "trials that did not end in every video once, the same by all readers": len(lines),
            "readers": "deltalake; DuckDB, pandas, polars, pyarrow over scan_date=*/*.parquet",
            "seconds": round(time.monotonic() - started),
        },
        lines,
    )
    return 1 if lines else 0


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


def _videos(folder: Path) -> Path:
    (folder / "videos").mkdir()
    seeded_weights(folder / "seeded.safetensors")
    first = write_video(folder / "videos" / "000.mp4", moving_face(14, (160, 160), face_px=64))
    for index in range(1, _VIDEOS):
        os.link(first, folder / "videos" / f"{index:03}.mp4")
    return folder / "videos"


def _command(videos: Path, output: str, folder: Path, *, real: bool) -> list[str]:
    start = ["-m", "jobs"] if real else ["-c", _COMMAND]
    words = ["scan", str(videos), "--output", output, "--weights", str(folder / "seeded.safetensors")]
    sets = [f"address={'local' if real else 'in-process'}", "commit_rows=10", "commit_every_s=1"]
    return [sys.executable, *start, *words, *(f"--set={one}" for one in sets)]


def _span(command: list[str], output: str, other: str) -> float:
    """Seconds from the first sign of the table to the end of an undisturbed run."""
    run = _started([output if word == other else word for word in command], output)
    began = time.monotonic()
    if run.wait(_TIMEOUT_S):
        raise RuntimeError(f"the undisturbed scan ended with {run.returncode}")
    return time.monotonic() - began


def _kill(command: list[str], output: str, after_s: float) -> None:
    run = _started(command, output)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def _started(command: list[str], output: str) -> subprocess.Popen[bytes]:
    """The command at the moment at which its table begins to be there."""
    run = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while run.poll() is None and not ResultsTable.exists(output):
        time.sleep(0.05)
    return run


def _rows_now(output: str) -> int:
    """Rows that are committed."""
    root = open_output(output)
    options = root.storage_options
    return len(DeltaTable(root.at("results"), storage_options=options).to_pyarrow_table(columns=["uri"]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2], *map(int, sys.argv[2:4])))
