"""`make soak BAR=faults`: a child that crashes, hangs, leaks, ends early, lies or forks costs one row.

400 short real videos are scanned, then again for each fault with twenty of them replaced by files that run it
in their child. The other rows have to be those of the clean scan, and a good file may cost 1.4 times as much.
In one process: starting Ray takes as much CPU time as a hundred of these files and would hide what they cost.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.faults import MARK
from detector.sandbox import TEST_FAULTS
from tests.film import moving_face
from tests.media import write_video
from tests.scans import read_rows
from tests.seeded import seeded_weights
from tests.soak.agreement import compare
from tests.soak.report import write_report

_VIDEOS, _FAULTY = 400, 20
_SEED = 19
# Of one child: what a fault costs that runs into one of them.
LIMITS = {"video_time_limit_s": 2, "video_memory_mib": 256}
_MOST_TIMES = 1.4
REASONS = {
    "segfault": "decoder_crash",
    "hang": "decode_timeout",
    "leak": "decode_memory",
    "exit": "decoder_crash",
    "garbage": "decoder_crash",
    "fork": "decoder_crash",
}


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan of one process made of a folder, and what it took: seconds, from its start to its end."""

    rows: list[dict[str, Any]]
    cpu_s: float
    wall_s: float

    @property
    def good(self) -> list[dict[str, Any]]:
        """Rows of videos that did not fail."""
        return [row for row in self.rows if row["status"] != "failed"]

    @property
    def waited_s(self) -> float:
        """Seconds that were spent waiting for the limit of wall time."""
        waits = [row for row in self.rows if row["reason"] == "decode_timeout"]
        return sum(
            LIMITS["video_time_limit_s"] * (2 if "second try" in row["message"] else 1) for row in waits
        )

    def cost(self) -> tuple[float, float]:
        """CPU and wall seconds per good file, the latter without the waits."""
        return self.cpu_s / len(self.good), (self.wall_s - self.waited_s) / len(self.good)


def main(videos: int = _VIDEOS, faulty: int = _FAULTY) -> int:
    """Run the bar; 0 if it holds."""
    started = time.monotonic()
    figures: dict[str, object] = {}
    complaints: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        folder = make_videos(Path(made) / "videos", videos)
        seeded_weights(Path(made) / "seeded.safetensors")
        clean = _scan(folder, Path(made) / "clean")
        complaints += [f"no fault: {row['uri']} {row['reason']}" for row in clean.rows if row["reason"]]
        figures["no fault"] = f"{_told(clean)}, of {len(clean.good)} good files"
        for name in REASONS:
            with replaced(folder, [name] * faulty) as injected:
                found = _scan(folder, Path(made) / name)
            times = [mine / its for mine, its in zip(found.cost(), clean.cost(), strict=True)]
            new = wrong(found.rows, clean.rows, injected)
            new += [f"{ratio:.2f} times the clean scan" for ratio in times if ratio > _MOST_TIMES]
            figures[name] = f"{len(injected)} files; {_told(found)}; {times[0]:.2f} and {times[1]:.2f} times"
            print(name, figures[name], *new, flush=True)
            complaints += [f"{name}: {text}" for text in new]
    holds = not complaints and (videos, faulty) == (_VIDEOS, _FAULTY)
    write_report(
        "faults",
        holds,
        {
            "videos": videos,
            **figures,
            **LIMITS,
            "rows unlike those of the clean scan, faults with another reason, costs above": len(complaints),
            "seconds": round(time.monotonic() - started),
        },
        [
            (
                "Seconds are those of the whole scan by its good files, of wall time without the waits for a "
                f"limit; the last two figures are multiples of the clean scan, {_MOST_TIMES} at most."
            ),
            *complaints,
        ],
    )
    return 0 if holds else 1


def make_videos(folder: Path, count: int) -> Path:
    """Write short videos of one face each, all different."""
    folder.mkdir(parents=True)
    for seed in range(count):
        write_video(folder / f"{seed:03}.mp4", moving_face(14, (160, 160), face_px=64, seed=seed))
    return folder


@contextlib.contextmanager
def replaced(folder: Path, faults: Sequence[str]) -> Iterator[dict[str, str]]:
    """Put a file for each fault in the place of a video; by uri, which fault it runs."""
    aside = folder.with_name("aside")
    aside.mkdir()
    taken = random.Random(_SEED).sample(sorted(folder.iterdir()), len(faults))
    for path, fault in zip(taken, faults, strict=True):
        path.rename(aside / path.name)
        path.write_bytes(MARK + fault.encode())
    yield {str(path): fault for path, fault in zip(taken, faults, strict=True)}
    for path in taken:
        (aside / path.name).replace(path)
    aside.rmdir()


def wrong(
    rows: Sequence[dict[str, Any]], clean: Sequence[dict[str, Any]], injected: dict[str, str]
) -> list[str]:
    """What faults did that they must not: to the rows of others, or other than fail with their reason."""
    found = [f"{uri}: {n} rows" for uri, n in Counter(row["uri"] for row in rows).items() if n > 1]
    by_uri = {row["uri"]: row for row in rows}
    if by_uri.keys() != {row["uri"] for row in clean}:
        found.append(f"{len(by_uri)} videos have a row, not those of the clean scan")
    for uri, before in {row["uri"]: row for row in clean}.items():
        row = by_uri.get(uri, {})
        if uri in injected:
            if row.get("reason") != REASONS[injected[uri]]:
                found.append(f"{uri}: {injected[uri]} gives {row.get('reason')}: {row.get('message')}")
        elif different := compare(row, before)[0]:
            found.append(f"{uri}: another {', '.join(different)}")
    return found


def _scan(videos: Path, output: Path) -> Scan:
    words = ["scan", videos, "--output", output, "--weights", videos.with_name("seeded.safetensors")]
    sets = ["address=in-process", "dtype=float32", *(f"{name}={value}" for name, value in LIMITS.items())]
    command = [sys.executable, "-m", "jobs", *map(str, words), *(f"--set={one}" for one in sets)]
    began, before = time.monotonic(), _children_s()
    done = subprocess.run(
        command, env=os.environ | {TEST_FAULTS: "1"}, check=False, capture_output=True, text=True
    )
    cpu_s, wall_s = _children_s() - before, time.monotonic() - began
    if done.returncode not in (0, 3):
        raise RuntimeError(f"the scan ended with {done.returncode}: {done.stderr[-500:]}")
    return Scan(read_rows(output), cpu_s, wall_s)


def _children_s() -> float:
    """CPU seconds of processes that were waited for, and of all whom those waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _told(scan: Scan) -> str:
    cpu_s, wall_s = scan.cost()
    stages = sum(row["extract_cpu_s"] for row in scan.good) / len(scan.good)
    return (
        f"{cpu_s:.3f} CPU s (of which {stages:.3f} in the children) and {wall_s:.3f} s; in all "
        f"{scan.cpu_s:.0f} CPU s, {scan.wall_s:.0f} s, waits of {scan.waited_s:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
