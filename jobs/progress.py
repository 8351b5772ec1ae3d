"""One line that says how far a scan is: kept up to date on a terminal, printed every 30 s elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from detector.types import Status, Verdict
from jobs.schema import printable, shown
from jobs.stages import NodeSandbox
from jobs.summary import Summary

_TERMINAL_S = 0.5
_LOG_S = 30.0
_NAMED = 20
"""Failed videos that a log names, of each reason; the table has all of them."""


class Progress:
    """Writes to stderr; `quiet` writes nothing."""

    def __init__(self, summary: Summary, *, quiet: bool) -> None:
        self._summary = summary
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown = self._started if not self._terminal else 0.0
        self._named: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """Write a line of its own, without secrets."""
        text = shown(text)
        if not self._quiet:
            print(f"\r\x1b[K{text}" if self._terminal else text, file=sys.stderr, flush=True)

    def note(self, rows: pa.Table) -> None:
        """Name the failed videos among result rows, where there is a log to look them up in."""
        if self._quiet or self._terminal:
            return
        failed = rows.filter(pc.equal(rows["status"], pa.scalar(str(Status.FAILED))))
        for row in failed.select(["uri", "reason", "message"]).to_pylist():
            self._named[row["reason"]] += 1
            if self._named[row["reason"]] <= _NAMED:
                self.say(
                    f"failed: {printable(row['uri'])}: {row['reason']}: {printable(row['message'] or '')}"
                )

    def note_sandboxes(self, sandboxes: pa.ChunkedArray[pa.StringScalar]) -> None:
        """Tell once of each node what it lacks, and remember for the summary what it has."""
        for text in pc.unique(sandboxes.drop_null()).to_pylist():
            found = msgspec.json.decode(text or "", type=NodeSandbox)
            if found.node in self._summary.sandbox:
                continue
            self._summary.sandbox[found.node] = found.isolation.in_words()
            if not found.isolation.complete:
                self.say(f"{printable(found.node)} decodes behind {found.isolation.in_words()}")

    def update(self) -> None:
        """Show how far it is, if it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._shown < (_TERMINAL_S if self._terminal else _LOG_S):
            return
        self._shown = now
        if self._terminal:
            print(f"\r\x1b[K{self._line(now)}", end="", file=sys.stderr, flush=True)
        else:
            print(self._line(now), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Clear the line on a terminal."""
        if self._terminal and not self._quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        summary, seconds = self._summary, max(1e-9, now - self._started)
        rate = summary.done / seconds
        left = f"{_clock((summary.to_do - summary.done) / rate)} left" if rate else "starting"
        flagged = summary.verdicts[Verdict.FLAGGED]
        return (
            f"{summary.done:,} of {summary.to_do:,} videos · {rate:.2f}/s · {left} · "
            f"{flagged:,} flagged · {summary.failed:,} failed"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
