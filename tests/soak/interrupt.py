"""`make soak BAR=interrupt`: Ctrl-C at random moments loses no video and doubles none.

60 short videos, the real stages, the real command. In each trial the command gets SIGINT at a random moment,
then the same command runs to its end; four readers read the table all the time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.film import moving_face
from tests.media import write_video
from tests.readers import Readers
from tests.scans import read_rows
from tests.seeded import seeded_weights
from tests.soak.report import write_report

_VIDEOS = 60
_IN_PROCESS = 10
_ON_RAY = 3
_SEED = 14
# A Ray start alone can take a minute on a busy machine.
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Trial:
    """What one interrupted scan and the one after it left behind."""

    exit_codes: tuple[int, int]
    kept: int
    rows: int
    videos: int
    reads: int
    complaints: list[str]

    @property
    def holds(self) -> bool:
        """Whether every video is there once and nobody saw anything else."""
        right_codes = self.exit_codes in ((130, 0), (0, 0))  # 0 where the signal came after the end
        return right_codes and self.rows == self.videos == _VIDEOS and not self.complaints


def main() -> int:
    """Run the bar; 0 if it holds."""
    chance, started = random.Random(_SEED), time.monotonic()
    trials: dict[str, list[Trial]] = {"in-process": [], "local": []}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "videos").mkdir()
        for index in range(_VIDEOS):
            frames = moving_face(14, (160, 160), face_px=64, seed=index)
            write_video(folder / "videos" / f"{index:02}.mp4", frames)
        seeded_weights(folder / "seeded.safetensors")
        for address, count in (("in-process", _IN_PROCESS), ("local", _ON_RAY)):
            for number in range(count):
                trial = _trial(folder, address, number, chance)
                trials[address].append(trial)
                print(f"{address} {number}: {trial}, {time.monotonic() - started:.0f} s", flush=True)
    everything = [trial for some in trials.values() for trial in some]
    holds = all(trial.holds for trial in everything)
    write_report(
        "interrupt",
        holds,
        {
            "videos": _VIDEOS,
            **{
                f"{name}: interrupted scans, rows kept by each": (
                    f"{len(some)}: {', '.join(str(trial.kept) for trial in some)}"
                )
                for name, some in (("one process", trials["in-process"]), ("Ray", trials["local"]))
            },
            "exit code after the signal": ", ".join(sorted({str(t.exit_codes[0]) for t in everything})),
            "exit code of the scan after it": ", ".join(sorted({str(t.exit_codes[1]) for t in everything})),
            "tables without every video exactly once": sum(
                not (t.rows == t.videos == _VIDEOS) for t in everything
            ),
            "reads by deltalake, polars, DuckDB and pandas meanwhile": sum(t.reads for t in everything),
            "errors, partial rows or duplicates that a reader saw": sum(
                len(t.complaints) for t in everything
            ),
            "seconds": round(time.monotonic() - started),
        },
        [complaint for trial in everything for complaint in trial.complaints],
    )
    return 0 if holds else 1


def _trial(folder: Path, address: str, number: int, chance: random.Random) -> Trial:
    output = folder / f"{address}-{number}"
    words = ["scan", folder / "videos", "--output", output, "--weights", folder / "seeded.safetensors"]
    words += ["--set", f"address={address}", "--set", "commit_rows=5", "--set", "commit_every_s=1"]
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    with Readers(output) as readers:
        first = subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        if number % 4 == 3:
            time.sleep(chance.uniform(1, 10))  # somewhere on the way to the first video
        else:
            after = chance.randrange(0, _VIDEOS - 10)
            while first.poll() is None and _written(output) < after:
                time.sleep(0.05)
            time.sleep(chance.random())
        first.send_signal(signal.SIGINT)
        code = first.wait(timeout=_TIMEOUT_S)
        kept = len(read_rows(output))
        second = subprocess.run(
            command, env=environment, check=False, capture_output=True, timeout=_TIMEOUT_S
        )
    rows = read_rows(output)
    complaints = list(readers.complaints)
    if second.returncode:
        complaints.append(f"{address} {number}: {second.stderr.decode(errors='replace')[-500:]}")
    reads = readers.reads.total()
    videos = len({row["uri"] for row in rows if row["status"] == "scored"})
    return Trial((code, second.returncode), kept, len(rows), videos, reads, complaints)


def _written(output: Path) -> int:
    """Rows that the scan says it has committed; -1 until it has begun to."""
    try:
        return int(json.loads((output / "summary.json").read_text())["written"])
    except FileNotFoundError:
        return -1


if __name__ == "__main__":
    sys.exit(main())
