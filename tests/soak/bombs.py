"""`make soak BAR=bombs`: small files made to cost gigabytes or minutes cost a child neither.

Each goes through helper and child as a scan would send it, with the default limits. Beside it stands what
PyAV takes without limits for one picture of the same file, so that it can be seen that it is a bomb.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import av.error

from detector.sandbox import Sandbox
from tests.bombs import BOMBS, MOST_BYTES, MOST_S, complaint, cost
from tests.soak.report import write_report

# Without limits so many of them have to take more than this.
_REAL, _REAL_BYTES = 9, 350e6
_OWN_LIMIT = 6 << 30


def main() -> int:
    """Run the bar; 0 if it holds."""
    started = time.monotonic()
    wrong: list[str] = []
    rows: dict[str, object] = {}
    worst_bytes, worst_s, real = 0, 0.0, 0
    with tempfile.TemporaryDirectory() as made, Sandbox() as sandbox:
        for name, bomb in BOMBS.items():
            path = Path(made, name)
            _in_child(lambda: bomb.write(path))  # noqa: B023  # called at once
            free_bytes, free_s = _without_limits(path)
            real += free_bytes > _REAL_BYTES
            took = cost(sandbox, path)
            worst_bytes, worst_s = max(worst_bytes, took.peak_bytes), max(worst_s, took.seconds)
            if said := complaint(name, took):
                wrong.append(said)
            rows[f"{name}, {path.stat().st_size:,} bytes"] = (
                f"{took.outcome}, {took.peak_bytes / 1e6:.0f} MB, {took.seconds:.1f} s; "
                f"without limits {free_bytes / 1e6:,.0f} MB, {free_s:.1f} s"
            )
            path.unlink()
            print(*list(rows.items())[-1], flush=True)
    write_report(
        "bombs",
        not wrong and real >= _REAL,
        {
            "files": len(BOMBS),
            **rows,
            f"of these over {_REAL_BYTES / 1e6:.0f} MB without limits, at least {_REAL}": real,
            f"largest child, at most {MOST_BYTES / 1e6:,.0f} MB": f"{worst_bytes / 1e6:.0f} MB",
            f"longest, at most {MOST_S:.0f} s": f"{worst_s:.1f} s",
            "files with another reason, or that cost more": len(wrong),
            "seconds": round(time.monotonic() - started),
        },
        wrong,
    )
    return 1 if wrong or real < _REAL else 0


def _without_limits(path: Path) -> tuple[int, float]:
    """Bytes and seconds that a process needs to open a file with PyAV's defaults and decode one picture."""

    def decode() -> None:
        with (
            contextlib.suppress(av.error.FFmpegError, MemoryError, IndexError),
            av.open(str(path)) as container,
        ):
            next(iter(container.decode(video=0)), None)

    return _in_child(decode)


def _in_child(work: Callable[[], object]) -> tuple[int, float]:
    """Run `work` in a process that is forked for it; the most bytes that it had, and seconds."""
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_OWN_LIMIT, _OWN_LIMIT))
            work()
            code = 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"a process of this program ended with {status}")
    return usage.ru_maxrss * 1024, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
