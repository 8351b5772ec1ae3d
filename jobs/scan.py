"""The job: a collection of videos becomes rows of a table.

inputs ─ list ─▶ plan ─ extract ─▶ clips ─ score, decide ─▶ result ─ commit ─▶ table
driver   driver  CPU actors        GPU/CPU actors            driver, the only writer
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Literal, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from detector.errors import DeepfakeScanError, SettingsError, StorageError, TableHeldError
from detector.memory import give_freed_memory_back
from detector.types import Reason
from jobs.config import ScanSettings
from jobs.estimate import estimate
from jobs.interrupt import Stopped, deferred, stoppable
from jobs.listing import Listing, Narrowed
from jobs.notify import told
from jobs.plan import Plan, collect
from jobs.plan import plan as make_plan
from jobs.preparation import Preparation, prepare
from jobs.progress import Progress
from jobs.runner import Runner, open_runner
from jobs.schema import failed_row, to_arrow
from jobs.stages import Extract, without_stopped
from jobs.summary import BUG, FINISHED, STORAGE, WORK_LEFT, Summary
from jobs.table import ResultsTable

_WAIT_S = 5.0
_WAVE_S = 1800.0
_FIRST_WAVE = 200
_LARGEST_WAVE = 50_000


def run(
    settings: ScanSettings, *, dry_run: bool = False, quiet: bool = False, extract: type[Extract] = Extract
) -> Summary:
    """Scan what is new, and say what was done; the exit code stands in the summary.

    Raises:
        DeepfakeScanError: the job could not start or go on. What was committed stays; run it again.
    """
    job = prepare(settings)
    progress = Progress(job.summary, quiet=quiet)
    if dry_run:
        return _say_only(job, progress)
    with told(settings, job.summary, progress.say):
        return _run(job, progress, extract)


def _run(job: Preparation, progress: Progress, extract: type[Extract]) -> Summary:
    settings, summary = job.settings, job.summary
    listing = _listing(job)
    listed = collect(listing)  # before the table: an input that is not there leaves nothing behind
    table, waited = _claimed(job, progress)
    with table:
        if waited:  # the files are those of before
            listing = _listing(job)
            listed = collect(listing)
        plan = make_plan(listed, table, job.settings_id, **_wanted(settings))
        summary.take(plan, listing.skipped)
        progress.say(summary.opening())
        _refuse_silent_rescan(plan, settings)
        table.record_scan("start", job.scan_record())
        if plan.to_do:
            _scan(job, plan, table, progress, extract)
        else:
            summary.finish(settings.max_failed)
            table.record_scan("end", job.scan_record())
    # Not before the claim is given back: who lost it writes over nobody's summary.
    summary.write(table.output)
    return summary


def _listing(job: Preparation) -> Listing:
    settings = job.settings
    return Listing(
        settings.inputs,
        settings.include,
        job.output,
        manifests=settings.manifests,
        narrowed=Narrowed(
            exclude=settings.exclude,
            min_bytes=settings.min_bytes or 0,
            changed_before=_ago(settings.min_age),
            sample=1.0 if settings.sample is None else settings.sample,
        ),
    )


def _claimed(job: Preparation, progress: Progress) -> tuple[ResultsTable, bool]:
    """The table, claimed, and whether that had to be waited for."""
    table, waited = ResultsTable.create(job.output), False
    while True:
        try:
            return table.claim(job.summary.scan_id, take_over=job.settings.take_over), waited
        except TableHeldError as error:
            if not job.settings.wait:
                raise
            if not waited:
                progress.say(f"waiting: {error.message}")
            waited = True
            time.sleep(_WAIT_S)


def _scan(
    job: Preparation, plan: Plan, table: ResultsTable, progress: Progress, extract: type[Extract]
) -> None:
    """Send the plan through the stages in waves and commit what comes out; a stopped scan keeps its rows."""
    summary = job.summary
    results, began = _Results(job, table, progress), time.monotonic()
    try:
        # Twice: Ray sets a handler of its own for SIGTERM when it starts.
        with (
            stoppable(),
            open_runner(job.settings, job.options, job.scoring, extract) as runner,
            stoppable(),
        ):
            began = time.monotonic()
            for rows in _until_deadline(runner, plan.rows, job, progress):
                summary.workers = runner.workers
                results.add(rows)
    except Stopped as stop:
        summary.exit_code = stop.exit_code
    except DeepfakeScanError as error:
        summary.exit_code = error.exit_code
        raise
    except Exception:
        summary.exit_code = BUG
        raise
    finally:
        with deferred():
            summary.work_s = time.monotonic() - began
            _end(job, table, results, progress)


def _end(job: Preparation, table: ResultsTable, results: _Results, progress: Progress) -> None:
    """Commit what is held and record how the scan ended, also where the store fails."""
    summary = job.summary
    try:
        results.commit()
    except DeepfakeScanError as error:
        summary.exit_code = error.exit_code
        raise
    finally:
        progress.close()
        summary.finish(job.settings.max_failed)
        if table.answers:
            table.record_scan("end", job.scan_record())
            if summary.exit_code in (STORAGE, BUG):
                summary.write(table.output)


def _until_deadline(
    runner: Runner, plan: pa.Table, job: Preparation, progress: Progress
) -> Iterator[pa.Table]:
    """Results of a plan, wave by wave; what is not there at the deadline is left to the next scan."""
    summary, deadline = job.summary, job.settings.deadline
    for wave in _waves(plan, job):
        with closing(_each_once(runner, wave, job, progress)) as results:
            for rows in results:
                yield rows
                if deadline and summary.seconds > deadline and summary.done < summary.to_do:
                    summary.exit_code = WORK_LEFT
                    return


def _waves(plan: pa.Table, job: Preparation) -> Iterator[pa.Table]:
    """Parts of a plan, each about half an hour of work; driver memory is given back between them."""
    start, size, began = 0, job.settings.wave_size or _FIRST_WAVE, time.monotonic()
    while start < len(plan):
        yield plan.slice(start, size)
        start += size
        rate = job.summary.done / max(1e-9, time.monotonic() - began)
        size = job.settings.wave_size or max(_FIRST_WAVE, min(_LARGEST_WAVE, int(rate * _WAVE_S)))


def _ago(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) - timedelta(seconds=seconds)


def _each_once(
    runner: Runner, wave: pa.Table, job: Preparation, progress: Progress
) -> Generator[pa.Table, None, None]:
    """Each video of a wave exactly once: what a dying worker took along goes alone, then it is `lost`.

    Raises:
        StorageError: the store is gone, credentials are refused, a disk is full, or a node cannot hold
            decoding in as it has to.
    """
    missing = {str(video_id) for video_id in wave["video_id"].to_pylist()}
    for alone in (False, True):
        todo = wave.filter(pc.is_in(wave["video_id"], pa.array(sorted(missing), pa.string())))
        for scored in runner.run(todo, alone=alone):
            progress.note_sandboxes(scored["sandbox"])
            rows, stop = without_stopped(scored)
            new = []
            for video_id in rows["video_id"].to_pylist():
                new.append(video_id in missing)
                missing.discard(video_id)
            yield rows.filter(pa.array(new, pa.bool_()))
            if stop is not None:
                raise StorageError(stop)
        if not missing:
            return
    lost = [planned for planned in todo.to_pylist() if planned["video_id"] in missing]
    message = "the worker died with this video in hand, also when it was tried again alone"
    yield to_arrow([failed_row(planned, Reason.LOST, message, job.context) for planned in lost])


class _Results:
    """Rows on their way into the table: one append per so many rows or seconds."""

    def __init__(self, job: Preparation, table: ResultsTable, progress: Progress) -> None:
        self._job, self._table, self._progress = job, table, progress
        self._rows: list[pa.Table] = []
        self._committed = time.monotonic()

    def add(self, rows: pa.Table) -> None:
        """Take rows in, and commit if it is time to."""
        self._rows.append(rows)
        self._job.summary.count(rows)
        self._progress.note(rows)
        self._progress.update()
        settings, waited = self._job.settings, time.monotonic() - self._committed
        if sum(map(len, self._rows)) >= settings.commit_rows or waited >= settings.commit_every_s:
            self.commit()

    def commit(self) -> None:
        """Append what is held, whole; a signal waits until that is through."""
        with deferred():
            self._committed = time.monotonic()
            if self._rows:
                self._table.append(pa.concat_tables(self._rows))
                self._job.summary.written += sum(map(len, self._rows))
                self._rows = []
                self._job.summary.write(self._table.output)
                # A commit leaves holes in many heaps; a driver that lives for days would grow by them.
                pa.default_memory_pool().release_unused()
                give_freed_memory_back()


def _say_only(job: Preparation, progress: Progress) -> Summary:
    """A dry run: the plan against the table as it is, without claiming or writing anything."""
    listing = _listing(job)
    listed = collect(listing)
    table = ResultsTable.open(job.output) if ResultsTable.exists(job.output) else None
    plan = make_plan(listed, table, job.settings_id, **_wanted(job.settings))
    job.summary.take(plan, listing.skipped)
    progress.say(job.summary.opening())
    size, price = pc.sum(plan.rows["size"]).as_py() or 0, job.settings.price_per_hour
    job.summary.estimate = estimate(table, job.settings_id, plan.to_do, size, price)
    if plan.to_do:
        progress.say(job.summary.estimate.in_words())
    _refuse_silent_rescan(plan, job.settings)
    job.summary.exit_code = FINISHED
    return job.summary


def _wanted(settings: ScanSettings) -> _Wanted:
    """What a plan is to hold beyond what is new."""
    retry: Literal["failed"] | None = "failed" if settings.retry == "failed" else None
    return {"retry": retry, "limit": settings.limit, "shadow": settings.shadow}


class _Wanted(TypedDict):
    retry: Literal["failed"] | None
    limit: int | None
    shadow: bool


def _refuse_silent_rescan(plan: Plan, settings: ScanSettings) -> None:
    if plan.other_settings and not settings.rescan and not settings.shadow:
        raise SettingsError(
            f"{plan.other_settings:,} videos already scored with other settings would be scanned again",
            hint="Use the settings or weights of before, or --rescan to go on.",
        )
