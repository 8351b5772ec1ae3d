"""What a scan did, in numbers of videos: the last lines on the terminal, and `summary.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from detector.types import Reason, Status, Verdict
from jobs.bottleneck import Bottleneck, Workers, bottleneck
from jobs.estimate import LEAST_VIDEOS, Estimate
from jobs.output import Output
from jobs.schema import printable
from jobs.units import rounded_size, rounded_time

if TYPE_CHECKING:
    from jobs.plan import Plan

FINISHED, BUG, USAGE, SOME_FAILED, STORAGE, HELD, WORK_LEFT = 0, 1, 2, 3, 4, 5, 6
INTERRUPTED, TERMINATED = 130, 143
# WORK_LEFT before the end is known: the deadline came.
_STOPPED = (INTERRUPTED, TERMINATED, WORK_LEFT)

_TOP_REASONS = 5

UNMEASURED_WORDS = (
    "The thresholds of these weights were never measured: nobody knows how often a flag is wrong."
)


@dataclass(slots=True, kw_only=True)
class Summary:
    """Counts of one scan, in videos.

    `left` are due, but over the limit or past the deadline; `written` are rows committed to the table;
    `examples` one uri per reason; `incomplete` are those that were judged with a part missing or damaged;
    `sandbox` says by node what holds decoding in; `work_s` is the time of the stages, without listing and
    starting; `cost` is that of the whole time at `price_per_hour`; `estimate` is that of a dry run.
    """

    output: str
    scan_id: str
    settings_id: str
    weights: str
    weights_id: str
    trained: bool
    started_at: datetime
    threshold_level: str = "crop"
    listed: int = 0
    already_done: int = 0
    to_do: int = 0
    left: int = 0
    retried: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    written: int = 0
    status: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    price_per_hour: float | None = None
    cost: float | None = None
    size_bytes: int = 0
    video_hours: float = 0.0
    fetch_s: float = 0.0
    extract_cpu_s: float = 0.0
    score_s: float = 0.0
    sandbox: dict[str, str] = field(default_factory=dict)
    workers: Workers | None = None
    work_s: float = 0.0
    bottleneck: Bottleneck | None = None
    estimate: Estimate | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None

    def take(self, plan: Plan, skipped: Mapping[str, int]) -> None:
        """Note what there is to do."""
        self.listed, self.already_done, self.to_do = plan.listed, plan.done, plan.to_do
        self.left, self.retried, self.skipped = plan.due - plan.to_do, plan.retried, dict(skipped)

    def finish(self, max_failed: float | None) -> None:
        """Note the end; the exit code of a scan that was stopped stays."""
        self.finished_at = datetime.now(UTC)
        if self.price_per_hour is not None:
            self.cost = self.price_per_hour * self.seconds / 3600
        if self.workers is not None and self.done:
            spent = {"fetch": self.fetch_s, "extract": self.extract_cpu_s, "score": self.score_s}
            self.bottleneck = bottleneck(spent, self.workers, self.work_s)
        if self.exit_code in _STOPPED:
            self.left += self.to_do - self.done
        elif self.exit_code == STORAGE:  # which may have failed with rows in hand
            self.left += self.to_do - self.written
        elif self.exit_code is None and self.left:
            self.exit_code = WORK_LEFT
        elif self.exit_code is None:
            failed = self.failed and (max_failed is None or self.failed > max_failed * self.done)
            self.exit_code = SOME_FAILED if failed else FINISHED

    def count(self, rows: pa.Table) -> None:
        """Add result rows."""
        for row in rows.select(list(_COUNTED)).to_pylist():
            self.status[row["status"]] += 1
            self.incomplete += row["status"] != Status.FAILED and row["complete"] is False
            self.verdicts[row["verdict"]] += 1
            if row["reason"]:
                self.reasons[row["reason"]] += 1
                self.examples.setdefault(row["reason"], row["uri"])
            self.size_bytes += row["size_bytes"] or 0
            self.video_hours += (row["duration_s"] or 0.0) / 3600
            self.fetch_s += row["fetch_s"] or 0.0
            self.extract_cpu_s += row["extract_cpu_s"] or 0.0
            self.score_s += row["score_s"] or 0.0

    @property
    def done(self) -> int:
        """Videos whose row is known, committed or not."""
        return self.status.total()

    @property
    def failed(self) -> int:
        """Videos that failed."""
        return self.status[Status.FAILED]

    @property
    def seconds(self) -> float:
        """Wall time so far, s."""
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()

    def as_json(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        content: dict[str, Any] = {"schema_version": 1}
        for item in fields(self):
            value = getattr(self, item.name)
            if is_dataclass(value) and not isinstance(value, type):
                value = asdict(value)
            content[item.name] = value.isoformat() if isinstance(value, datetime) else value
        return content | {"done": self.done, "seconds": round(self.seconds, 3)}

    def write(self, output: Output) -> None:
        """Replace `summary.json`, whole or not at all.

        Raises:
            StorageError: the disk is full, or gone.
        """
        output.write("summary.json", (json.dumps(self.as_json(), indent=2) + "\n").encode())

    def opening(self) -> str:
        """The first line of a scan: what there is to do."""
        left_out = f" · {sum(self.skipped.values()):,} other files skipped" if self.skipped else ""
        again = f" ({self.retried:,} tried again)" if self.retried else ""
        counts = (
            f"{self.listed:,} listed · {self.already_done:,} done · {self.to_do:,} to do{again}{left_out}"
        )
        if self.left:
            counts += f" · {self.left:,} left by the limit"
        return counts if self.to_do else f"{counts}: nothing to scan"

    def closing(self) -> str:
        """The last lines of a scan."""
        lines = [self._outcome_line()]
        if self.exit_code in _STOPPED and self.done < self.to_do:
            lines.append(f"  stopped: {self.left:,} left; the same command goes on with them")
        if self.status[Status.SCORED]:
            verdicts = (Verdict.FLAGGED, Verdict.UNCERTAIN, Verdict.NOT_FLAGGED)
            counts = [f"{self.verdicts[v]:,} {v.replace('_', ' ')}" for v in verdicts]
            lines.append("  scored: " + " · ".join(counts))
        if self.incomplete:
            lines.append(f"  not complete: {self.incomplete:,}, judged by what is there")
        lines += self._work_lines()
        for reason, count in self.reasons.most_common(_TOP_REASONS):
            example = printable(self.examples[reason])
            lines.append(f"  {count:,} {reason}: {Reason(reason).meaning}, e.g. {example}")
        if self.failed:
            lines.append(f"  all of them: deepfake-scan query failed {printable(self.output)}")
        if not self.trained and self.status[Status.SCORED]:
            lines.append("  The weights are untrained: these scores mean nothing.")
        elif self.threshold_level == "none" and self.status[Status.SCORED]:
            lines.append(f"  {UNMEASURED_WORDS}")
        return "\n".join(lines)

    def _work_lines(self) -> list[str]:
        """What it took; of a few videos there is nothing to learn."""
        if self.done < LEAST_VIDEOS or self.bottleneck is None:
            return []
        much = f"{rounded_time(self.video_hours * 3600)} of video, {rounded_size(self.size_bytes)}"
        cost = "" if self.cost is None else f" for {self.cost:,.2f} at your price"
        return [f"  {much}{cost}; {self.bottleneck.in_words()}"]

    def _outcome_line(self) -> str:
        parts = [f"{self.status[s]:,} {s.replace('_', ' ')}" for s in Status if self.status[s]]
        return f"{self.done:,} videos in {self.seconds:.0f} s: {' · '.join(parts) or 'nothing done'}"


_COUNTED = (
    *("uri", "status", "complete", "verdict", "reason", "size_bytes", "duration_s"),
    *("fetch_s", "extract_cpu_s", "score_s"),
)
