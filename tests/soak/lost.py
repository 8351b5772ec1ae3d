"""`make soak BAR=lost`: answers to commits that get lost on the way lose no row and double none.

A proxy in front of a real S3 server carries every write of a commit out and drops the answer to it, 20 times
in all: to claims, appends and releases.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import boto3

from jobs import s3
from jobs.table import ResultsTable
from tests.jobs.samples import rows
from tests.proxy import losing_proxy
from tests.s3 import server
from tests.soak.counts import counts
from tests.soak.report import write_report

_SCANS, _APPENDS = 5, 2


def main() -> int:
    """Run the bar; 0 if it holds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as made, server(Path(made) / "server") as reached:
        os.environ.update(reached)
        boto3.client("s3").create_bucket(Bucket="soak")
        out, written = "s3://soak/out", 0
        ResultsTable.create(out)
        with losing_proxy(reached["AWS_ENDPOINT_URL"]) as proxy:
            os.environ["AWS_ENDPOINT_URL"] = proxy.url
            s3.client.cache_clear()
            for scan in range(_SCANS):
                proxy.lose(1)  # of the claim
                table = ResultsTable.open(out).claim(f"scan-{scan}")
                for _ in range(_APPENDS):
                    proxy.lose(1)
                    table.append(rows(3, start=written))
                    written += 3
                proxy.lose(1)  # of the release
                table.release()
            lost = proxy.lose(0)
            found = counts(out)
    holds = lost == _SCANS * (_APPENDS + 2) == 20 and set(found.values()) == {written}
    write_report(
        "lost",
        holds,
        {
            "answers lost": lost,
            "scans": _SCANS,
            "rows written": written,
            **{f"rows or videos by {name}": count for name, count in found.items()},
            "seconds": round(time.monotonic() - started),
        },
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
