"""`make soak BAR=planning`: planning over large tables, and listing a large bucket, within time and memory.

1,000,000 listed videos against tables of 1,000,000 and of 10,000,000 rows, each in a process of its own; half
of the listed are new. Then 100,000 keys of a real S3 server, beside boto3's bare paginator.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pyarrow as pa

from jobs import s3
from jobs.listed import Listed
from jobs.listing import Listing
from jobs.plan import collect, plan
from jobs.schema import to_arrow
from jobs.table import ResultsTable
from tests.jobs.samples import sample_row
from tests.s3 import server
from tests.soak.report import write_report

_LISTED = 1_000_000
_TABLES = {1_000_000: (30.0, 1.5), 10_000_000: (60.0, 2.0)}
"""Rows: seconds and GB (10^9 bytes) at most."""
_KEYS, _KEYS_PER_FOLDER = 100_000, 5_000
_LISTING_RUNS, _LISTING_RATIO = 5, 1.3
_CHUNK = 50_000
_SETTINGS = "a" * 12


def main() -> int:
    """Run the bar; 0 if it holds."""
    started, figures, holds = time.monotonic(), {}, True
    with tempfile.TemporaryDirectory() as made:
        for rows, (most_s, most_gb) in _TABLES.items():
            output = f"{made}/{rows}"
            _write_table(output, rows)
            words = [sys.executable, "-m", "tests.soak.planning", "plan", output]
            found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
            holds &= found["seconds"] <= most_s and found["gb"] <= most_gb and found["due"] == _LISTED // 2
            figures[f"planning {_LISTED:,} listed against {rows:,} rows"] = (
                f"{found['seconds']:.1f} s (at most {most_s:g}), {found['gb']:.2f} GB (at most {most_gb:g}), "
                f"{found['due']:,} due"
            )
        with server(Path(made) / "server") as reached:
            os.environ.update(reached)
            ratio = _listing(figures)
        holds &= ratio <= _LISTING_RATIO
    figures["seconds"] = round(time.monotonic() - started)
    write_report("planning", holds, figures)
    return 0 if holds else 1


def _write_table(output: str, rows: int) -> None:
    """A table whose rows are those of `_listed` from the middle on."""
    row = dict(sample_row("x.mp4")) | {"settings_id": _SETTINGS}
    chunk = to_arrow([row] * _CHUNK)
    with ResultsTable.create(output).claim("fill") as table:
        for start in range(0, rows, _CHUNK):
            names = [_name(number + _LISTED // 2) for number in range(start, start + _CHUNK)]
            filled = chunk.set_column(
                chunk.schema.get_field_index("uri"), chunk.schema.field("uri"), pa.array(names, pa.string())
            )
            table.append(filled)


def _name(number: int) -> str:
    return f"s3://videos/uploads/{number % 1000:03}/{number:09}.mp4"


def _listed() -> Iterator[Listed]:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    version = str(sample_row("x.mp4")["version"])
    for number in range(_LISTED):
        yield Listed(_name(number), 1000, version, when)


def _plan(output: str) -> None:
    """Prints what one plan took; in a process of its own, so that the peak is this plan's."""
    table = ResultsTable.open(output)
    began = time.monotonic()
    made = plan(collect(_listed()), table, _SETTINGS)
    seconds = time.monotonic() - began
    gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "gb": gb, "due": made.due}))


def _listing(figures: dict[str, object]) -> float:
    """Median of the ratios of five pairs of runs."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="large")
    keys = [f"{number // _KEYS_PER_FOLDER:03}/{number:06}.mp4" for number in range(_KEYS)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: client.put_object(Bucket="large", Key=key, Body=b"x"), keys))

    def bare() -> int:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="large")
        return sum(len(page.get("Contents", [])) for page in pages)

    def ours() -> int:
        s3.client.cache_clear()
        return len(collect(Listing(["s3://large/"])))

    pairs = [(_timed(bare), _timed(ours)) for _ in range(_LISTING_RUNS)]
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    figures[f"listing {_KEYS:,} keys: boto3's paginator, median"] = (
        f"{statistics.median(theirs for theirs, _ in pairs):.1f} s"
    )
    figures["the same into a plan's table, median"] = f"{statistics.median(mine for _, mine in pairs):.1f} s"
    figures["ratio, median of five pairs"] = f"{ratio:.2f} (at most {_LISTING_RATIO})"
    figures["peak memory of this process, with both"] = (
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f} GB"
    )
    return ratio


def _timed(work: Callable[[], int]) -> float:
    began = time.monotonic()
    if work() != _KEYS:
        raise AssertionError("the listing is not complete")
    return time.monotonic() - began


if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        _plan(sys.argv[2])
    else:
        sys.exit(main())
