"""`make soak BAR=agreement`: scan and explain give the same answer for every file of the shared data.

Scans the three folders on Ray, several videos to a network batch, then explains each file alone in this
process and compares every column that says something of the video. Scores may differ by 1e-4 (float32).
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from jobs.config import load
from jobs.explain import explain
from jobs.scan import run
from tests.shared import shared_data_folder
from tests.soak.report import write_report

_OF_THE_RUN = {
    *("scan_id", "scan_date", "scanned_at", "attempt", "settings_id"),
    *("fetch_s", "extract_cpu_s", "score_s"),
}
_TOLERANCE = 1e-4


def main() -> int:
    """Run the bar; 0 if it holds."""
    videos = shared_data_folder() / "videos"
    folders = [str(videos / name) for name in ("faces", "fake", "odd")]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as output:
        flags = {"inputs": folders, "output": output, "include": ["*"], "dtype": "float32"}
        settings = load(overrides=flags).settings
        summary = run(settings, quiet=True)
        rows = _rows(Path(output))
    differing, worst = [], 0.0
    for uri, row in rows.items():
        alone, _ = explain(uri, settings, crops=None, sandboxed=True)
        different, distance = compare(row, alone)
        worst = max(worst, distance)
        if different:
            differing.append(f"{Path(uri).name}: {', '.join(different)}")
    files = [path for folder in folders for path in Path(folder).iterdir() if path.is_file()]
    status = Counter((Path(uri).parent.name, row["status"]) for uri, row in rows.items())
    holds = not differing and len(rows) == len(files) == summary.listed
    write_report(
        "agreement",
        holds,
        {
            "files": len(files),
            "rows of the scan": len(rows),
            "files whose answers differ": len(differing),
            "largest difference of a logit or score": f"{worst:.2e}",
            **{f"{folder}: {name}": count for (folder, name), count in sorted(status.items())},
            "failed with internal_error, lost or decoder_crash": sum(
                row["reason"] in ("internal_error", "lost", "decoder_crash") for row in rows.values()
            ),
            "seconds": round(time.monotonic() - started),
        },
        differing,
    )
    return 0 if holds else 1


def compare(row: dict[str, Any], other: dict[str, Any]) -> tuple[list[str], float]:
    """Columns in which two rows of one video differ, and the largest difference of any number that agrees."""
    worst = 0.0

    def same(a: Any, b: Any) -> bool:
        nonlocal worst
        if isinstance(a, float) and isinstance(b, float):
            worst = max(worst, abs(a - b))
            return math.isclose(a, b, rel_tol=1e-6, abs_tol=_TOLERANCE)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        return bool(a == b)

    columns = [name for name in other if name not in _OF_THE_RUN]
    return [name for name in columns if not same(row.get(name), other[name])], worst


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    files = str(output / "results" / "scan_date=*" / "*.parquet")
    table = duckdb.read_parquet(files).to_arrow_table()
    rows = table.to_pylist()
    assert len({row["uri"] for row in rows}) == len(rows), "a file has two rows"
    return {row["uri"]: row for row in rows}


if __name__ == "__main__":
    sys.exit(main())
