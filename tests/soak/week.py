"""`make soak BAR=week`: seven nights of scans from S3 into a table on S3, each with its mishap.

Between two nights objects are added, changed and deleted, as a seed says. What has to hold after each command
stands in `tests.nightly`. A mishap that did not come to pass as it is told here is a complaint as well.
"""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from jobs import s3
from tests.nightly import AGE_S, BATCH, Week
from tests.soak.kills import opened_store
from tests.soak.report import write_report
from tests.uploads import Version

_COMMIT_ROWS = 16
_FIRST, _DAILY = 200, (40, 20, 10)
_SEED = 16


def main() -> int:
    """Run the bar; 0 if it holds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as made, opened_store("s3", Path(made)) as top:
        week = Week(Path(made), s3.parse(top).bucket, commit_rows=_COMMIT_ROWS)
        week.uploads.a_day(_FIRST)
        ordinary(week, "night 1, the first")
        week.uploads.a_day(*_DAILY)
        failed = disturbed(week, "night 2, with changes while it ran")
        week.uploads.a_day(*_DAILY)
        restore(week, failed)
        killed(week, "night 3, killed", random.Random(_SEED))
        ordinary(week, "night 3, again")
        week.uploads.a_day(*_DAILY)
        overlapped(week, "night 4, met by another", met_at=_COMMIT_ROWS + BATCH)
        week.uploads.a_day(*_DAILY)
        refused(week, "night 5, with other weights")
        ordinary(week, "night 5, with those of before")
        week.uploads.a_day(*_DAILY)
        left = stopped(week, "night 6, at its deadline", seconds=8, pace_s=0.25)
        forget(week, left)
        week.uploads.a_day(*_DAILY)
        ordinary(week, "night 7, the last")
        nothing_left(week, "night 7, once more")
        week.check(week.calls == len(week.rows) + week.lost, "the extractions do not add up")
    write_report(
        "week",
        not week.complaints,
        {
            **week.figures,
            "objects and versions that were uploaded": (
                f"{len({version.uri for version in week.uploads.sha256})}, {len(week.uploads.sha256)}"
            ),
            "versions in `latest`, one row each": len(week.expected),
            "rows of the table; of these second attempts": (
                f"{len(week.rows)}; {sum(row.attempt > 1 for row in week.rows)}"
            ),
            "extractions; of these lost with the kill and made again": f"{week.calls}; {week.lost}",
            "readers that counted the same after each": "deltalake; DuckDB, pandas, polars, pyarrow by glob",
            "what was not as it must be": len(week.complaints),
            "seconds": round(time.monotonic() - started),
        },
        week.complaints,
    )
    return 1 if week.complaints else 0


def ordinary(week: Week, name: str) -> None:
    """A night without a mishap."""
    week.uploads.grow_older_than(AGE_S)
    listed = week.uploads.versions()
    week.settle(name, week.start(), listed)


def disturbed(week: Week, name: str, *words: str) -> list[Version]:
    """A night whose bucket does not hold still; the versions that were deleted and replaced.

    One object is deleted and one replaced after they were listed, one comes, and one is still being written.
    """
    uploads = week.uploads
    uploads.grow_older_than(AGE_S)
    listed = uploads.versions()
    gone, replaced = uploads.chance.sample(sorted(week.due(listed)), 2)
    with uploads.still_growing(uploads.new_key()) as parts:
        command = week.start(*words, hold_at=1)
        week.check(command.reached(1), f"{name}: it ended, or hangs, before its first video")
        uploads.delete(s3.parse(gone.uri).key)
        uploads.replace(replaced)
        uploads.put(uploads.new_key())
        command.go_on()
        failures = {gone: "not_found", replaced: "changed_during_read"}
        week.settle(name, command, listed, failures=failures)
    summary = s3.client().get_object(Bucket=week.bucket, Key="out/summary.json")["Body"].read()
    young = json.loads(summary)["skipped"].get("younger than min_age")
    week.check(young == 1, f"{name}: {young} objects were too young, not 1 that was put {len(parts)} times")
    return [gone, replaced]


def restore(week: Week, failed: list[Version]) -> None:
    """Objects get an earlier content again: those that failed while they were read, and one that was scored.

    The first are due once more, the last is not.
    """
    scored = {row.of for row in week.rows if row.reason is None} - week.uploads.versions()
    changed = sorted(v for v in scored if s3.parse(v.uri).key in week.uploads.now)
    for version in (*failed, changed[0]):
        week.uploads.put_back(version)


def killed(week: Week, name: str, chance: random.Random) -> None:
    """A night that is killed after its first commit and before its end."""
    week.uploads.grow_older_than(AGE_S)
    listed = week.uploads.versions()
    due = len(week.due(listed))
    # Held before its last video, so that on a busy machine as well it cannot end before the kill.
    command = week.start(pace_s=0.05, hold_at=due)
    # The first commit is through when the batch after it has begun.
    command.reached(chance.randint(week.commit_rows + BATCH, due))
    time.sleep(chance.uniform(0, 0.3))
    command.process.send_signal(signal.SIGKILL)
    week.settle(name, command, listed, code=-signal.SIGKILL)


def overlapped(week: Week, name: str, *, met_at: int) -> None:
    """A night during which, at that video, a second scan starts: it has to leave, and say who is at work."""
    week.uploads.grow_older_than(AGE_S)
    listed, before = week.uploads.versions(), week.rows
    command = week.start(hold_at=met_at)
    week.check(command.reached(met_at), f"{name}: the first scan ended before it was met")
    second = week.start()
    code, said = second.ended()
    week.check(command.process.poll() is None, f"{name}: the first scan was not at work any more")
    command.go_on()
    week.settle(name, command, listed)
    holders = {row.scan_id for row in week.rows - before}
    week.check(code == 5, f"{name}: the second scan ended with {code}: {said[-300:]!r}")
    told = re.search(r"another scan holds the table: scan (\S+)", said)
    week.check(bool(told and {told[1]} == holders), f"{name}: {holders} held it: {said[-300:]!r}")
    week.check(not second.calls(), f"{name}: the second scan extracted {len(second.calls())}")
    week.figures[f"{name}: the other"] = f"exit code {code}: nothing done"


def refused(week: Week, name: str) -> None:
    """A night with other weights, which would scan again what the table answers: it writes nothing."""
    week.uploads.grow_older_than(AGE_S)
    listed, before = week.uploads.versions(), week.stored()
    again = len(listed - week.due(listed))
    command = week.start(*week.weights("other"))
    code, said = command.ended()
    week.check(code == 2, f"{name}: exit code {code}, not 2")
    told = re.search(r"([\d,]+) videos already scored with other settings", said)
    week.check(bool(told and told[1] == f"{again:,}"), f"{name}: not the number {again}: {said[-300:]!r}")
    week.check(again > 0 and not command.calls(), f"{name}: {again} known, {len(command.calls())} extracted")
    week.check(week.stored() == before, f"{name}: something was written")
    week.figures[name] = f"exit code {code}: {again} would be scanned again, nothing done"


def stopped(week: Week, name: str, *, seconds: int, pace_s: float) -> list[Version]:
    """A night that ends at its deadline; what it left."""
    week.uploads.grow_older_than(AGE_S)
    listed = week.uploads.versions()
    command = week.start("--deadline", f"{seconds}s", pace_s=pace_s)
    week.settle(name, command, listed, code=6)
    return sorted(week.due(listed))


def forget(week: Week, left: list[Version]) -> None:
    """Of what a night left, one object is deleted and one replaced: these versions never get a row."""
    week.check(len(left) > 1, "the deadline left too little to change")
    for version, change in zip(left, (week.uploads.delete, week.uploads.put), strict=False):
        change(s3.parse(version.uri).key)


def nothing_left(week: Week, name: str) -> None:
    """A night that finds nothing new."""
    listed = week.uploads.versions()
    week.check(not week.due(listed), f"{name}: {len(week.due(listed))} are still due")
    week.settle(name, week.start(), listed)


if __name__ == "__main__":
    sys.exit(main())
