"""`make soak BAR=fuzz`: of 8,000 damaged files none hangs or breaks a scan, and damage is seldom missed.

Each file goes through the real extraction child with the sampling of a scan, and once more through a process
that notes which pictures the child was shown. What passes as complete though it shows something else than the
undamaged file is counted for each container. 1,000 of the files go through one scan. Killed, it goes on where
it was.

`make fuzz` does the same with files of a fresh seed (`SEED=n COUNT=n`), without the scan and the counts that
are a bar; what it prints of a file that goes wrong, `make fuzz SEED=... COUNT=1`, makes the very same file.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec

from detector.sandbox import Sandbox
from detector.types import Reason
from tests.mutants import LIMITS, MEASURED, SEEDS, Trial, Trials, write_seeds
from tests.soak.fuzz_scan import Scanned, scan_of
from tests.soak.report import write_report


class Share(NamedTuple):
    """So many of so many."""

    part: int
    of: int

    def __str__(self) -> str:
        return f"{self.part:,} of {self.of:,} ({100 * self.part / max(1, self.of):.1f} %)"


_COUNT, _SCANNED = 8000, 1000
_NIGHTLY = 1000
_PR_SET_PDEATHSIG = 1
_PROCESSES = 2
_GROWTH_MB = 50
_STATE = Path(__file__).resolve().parents[2] / ".bench" / "fuzz"
# Of damaged files, those that no sign gave away: no exception, flag, line of a log, gap. Measured with PyAV
# 18.1 over 2,000 mutations of each by a decoder of every frame.
_UNDETECTED = {
    "mp4, h264": Share(54, 1642),
    "mkv, vp9": Share(518, 1578),
    "avi, mpeg4": Share(1, 1278),
    "webm, av1": Share(27, 1580),
}

_trials: Trials


def main() -> int:
    """Run the bar, or files of a seed; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.fuzz")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--fresh", action="store_true", help="files of a fresh seed instead of the bar")
    options = parser.parse_args()
    if options.fresh or options.seed is not None:
        seed = secrets.randbelow(10**9) if options.seed is None else options.seed
        return nightly(seed, options.count or _NIGHTLY)
    return bar(options.count or _COUNT, _SCANNED)


def nightly(seed: int, count: int) -> int:
    """Files of the seeds from `seed` on; 0 if none went wrong."""
    print(f"make fuzz SEED={seed} COUNT={count}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(Path(folder, "seeds"))
        trials = list(_run(range(seed, seed + count), Path(folder)))
    for name in sorted({trial.container for trial in trials}, key=list(SEEDS).index):
        print(f"{name}: {_told([trial for trial in trials if trial.container == name])}")
    wrong = _complaints(trials)
    print("\n".join(wrong) or "nothing went wrong")
    return 1 if wrong else 0


def bar(count: int, scanned: int) -> int:
    """The whole of it, resumed where it was killed; 0 if it holds."""
    bodies = write_seeds(_STATE / "seeds")
    trials, rate = _resumed(count)
    print("now the scan", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        scan = scan_of(bodies, range(scanned), Path(folder))
    missed = {name: _missed([t for t in trials if t.container == name]) for name in MEASURED}
    notes = _complaints(trials) + _scan_complaints(scan, scanned)
    notes += [
        f"{name}: {share} passed as complete, at most {_UNDETECTED[name]}"
        for name, share in missed.items()
        if share.part * _UNDETECTED[name].of > share.of * _UNDETECTED[name].part
    ]
    if len({trial.seed for trial in trials}) < _COUNT or scanned < _SCANNED:
        notes.append(f"{len(trials):,} files and a scan of {scanned:,} are fewer than the bar asks for")
    if strange := [trial.seed for trial in trials if not trial.agrees]:
        notes.append(f"the second look decoded other frames than the child: seeds {strange[:20]}")
    write_report("fuzz", not notes, _figures(trials, missed, scan, rate), [*notes, *_EXPLAINED])
    shutil.rmtree(_STATE)
    return 1 if notes else 0


def _resumed(count: int) -> tuple[list[Trial], float]:
    """All trials, those of an earlier run that was killed among them, and files a second of this one."""
    kept = _STATE / "trials.jsonl"
    lines = kept.read_bytes().splitlines() if kept.exists() else []
    done = {trial.seed: trial for line in lines if (trial := _read(line)) is not None}
    todo = [seed for seed in range(count) if seed not in done]
    started = time.monotonic()
    with kept.open("ab") as file:
        file.write(b"\n")  # behind half a line
        file.flush()
        for number, trial in enumerate(_run(todo, _STATE), start=1):
            done[trial.seed] = trial
            file.write(msgspec.json.encode(trial) + b"\n")
            file.flush()
            if number % 200 == 0:
                print(f"{number:,} of {len(todo):,}, {time.monotonic() - started:.0f} s", flush=True)
    return [done[seed] for seed in range(count)], len(todo) / (time.monotonic() - started)


def _read(line: bytes) -> Trial | None:
    try:
        return msgspec.json.decode(line, type=Trial)
    except msgspec.DecodeError:
        return None


def _run(seeds: Sequence[int], folder: Path) -> Iterator[Trial]:
    """Trials of two processes, each with a sandbox of its own, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(_PROCESSES, len(seeds) or 1), context, initializer=_prepare, initargs=(folder,)
    ) as pool:
        yield from pool.map(_try, seeds, chunksize=8)


def _prepare(folder: Path) -> None:
    global _trials  # noqa: PLW0603  # of a process that does nothing else
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a pool waits on for one that was killed
    own = Path(tempfile.mkdtemp(dir=folder))
    _trials = Trials(write_seeds(folder / "seeds"), own, Sandbox(), look=True)


def _try(seed: int) -> Trial:
    return _trials(seed)


def _complaints(trials: Sequence[Trial]) -> list[str]:
    """What must never happen, with what makes the file again."""
    return [
        f"{trial.container}: {trial.complaint}: make fuzz SEED={trial.seed} COUNT=1"
        for trial in trials
        if trial.complaint
    ]


def _scan_complaints(scan: Scanned, files: int) -> list[str]:
    growth = scan.most_mb - scan.least_mb
    wrong = {
        f"the scan of {files:,} gave {scan.rows:,} rows of {scan.videos:,} videos": (
            scan.rows == scan.videos == files
        ),
        f"the scan ended with {scan.exit_code}, not 3": scan.exit_code == 3,
        f"the scan's driver held between {scan.least_mb:.0f} and {scan.most_mb:.0f} MB": (
            growth <= _GROWTH_MB
        ),
        f"the scan has {scan.internal_errors} rows with internal_error": not scan.internal_errors,
    }
    return [told for told, holds in wrong.items() if not holds]


def _missed(trials: Sequence[Trial]) -> Share:
    """Of the files that showed something else, those that passed as complete."""
    other = [trial for trial in trials if trial.shown != "same"]
    return Share(sum(trial.outcome == "complete" for trial in other), len(other))


def _told(trials: Sequence[Trial]) -> str:
    """What became of the files of one container, in a line."""
    changed = {"same": "", "moved": ", other moments", "other": ", other pictures", "none": ", no picture"}
    counted = Counter(
        trial.outcome if trial.outcome.startswith("failed") else f"{trial.outcome}{changed[trial.shown]}"
        for trial in trials
    )
    return ", ".join(f"{n} {outcome}" for outcome, n in counted.most_common())


def _figures(
    trials: Sequence[Trial], missed: dict[str, Share], scan: Scanned, rate: float
) -> dict[str, object]:
    of = {name: [trial for trial in trials if trial.container == name] for name in SEEDS}
    cpu_ms = statistics.quantiles([1000 * trial.cpu_s for trial in trials], n=100)
    crashes = Counter(
        f"{t.message} ({t.container}, SEED={t.seed})"
        for t in trials
        if t.outcome == f"failed as {Reason.DECODER_CRASH}"
    )
    refused = [t for t in trials if t.outcome.startswith("failed") and t.shown == "same"]
    outcomes = ", ".join(f"{n} {what}" for what, n in Counter(scan.outcomes).most_common())
    return {
        "damaged files": f"{len(trials):,}",
        **{name: _told(of[name]) for name in SEEDS},
        **{
            f"{name}: passed as complete of those shown otherwise"
            + (f" (at most {_UNDETECTED[name]})" if name in missed else ""): _missed(of[name])
            for name in SEEDS
        },
        "failed though shown as the undamaged file": len(refused),
        "children killed by a signal": ", ".join(crashes) or "none",
        "stopped at a limit, internal errors, helpers that died": len(_complaints(trials)),
        "CPU of a child p50, p99": f"{cpu_ms[49]:.0f} ms, {cpu_ms[98]:.0f} ms",
        f"longest wait for one file (limit {LIMITS.wall_s:g} s)": f"{max(t.wall_s for t in trials):.1f} s",
        "most memory of a child": f"{max(t.peak_bytes for t in trials) / 1e6:.0f} MB",
        f"files a second, {_PROCESSES} processes": f"{rate:.1f}",
        "scan of 1,000 of them: rows, exit code": f"{scan.rows:,}, {scan.exit_code}",
        "outcomes in the scan": outcomes,
        f"driver from its second hundred on (at most {_GROWTH_MB} MB apart)": (
            f"{scan.least_mb:.0f} to {scan.most_mb:.0f} MB"
        ),
        "seconds of the scan": round(scan.seconds),
    }


_EXPLAINED = (
    (
        "A file is shown otherwise if the sampled pictures (a hash of each as displayed, at full size) or "
        "their times differ from the undamaged file's. They are noted by a second process outside of the "
        "sandbox, which runs the same extraction with the face detector left out; that it decoded as many "
        "frames, and as many damaged ones, as the child is checked for every file."
    ),
    (
        "Other moments: pictures of the undamaged file, at other times or not all of them. Other pictures: "
        "at least one that the undamaged file does not hold."
    ),
    "VP8, VP9, GIF and codecs of single pictures hold nothing by which a decoder could notice a changed bit.",
)


if __name__ == "__main__":
    sys.exit(main())
