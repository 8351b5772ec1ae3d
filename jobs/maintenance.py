"""What rewrites the table, on request only: purge and optimize. Both claim it, so no scan runs meanwhile.

The table is append-only, which makes a plain glob over its files right at any time. A rewrite breaks that for
as long as it takes: first the new files are there beside the old ones, then the old ones are deleted at once,
and with them every older version. Parts of a table are rewritten by day, through the writer that scans use.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from detector.errors import InputError
from jobs.fence import ZSTD, storage_error, stored_schema
from jobs.names import Names
from jobs.table import SMALL_PROPERTIES, ResultsTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.output import Output

_NO_OLD_LOG = {"delta.logRetentionDuration": "interval 0 seconds"}
_BATCH = 10_000
_OLD_VERSIONS = (
    "The bucket keeps old versions of objects, and they still hold what was removed: delete the noncurrent "
    "versions below the output, or let a lifecycle rule do it."
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a purge or an optimization did, or with a dry run would do; it names no video."""

    rows: int
    """Rows removed."""
    days: int
    """Days (`scan_date`) that were rewritten."""
    files_before: int
    files_after: int
    scans: int = 0
    """Rows of `scans` in which a name was struck out."""
    reviews: int = 0
    """Rows of `reviews` removed."""
    summary: bool = False
    """Whether a name was struck out of `summary.json`."""
    dry_run: bool = False
    old_versions: bool = False
    """The bucket keeps old versions of objects, which hold what was removed."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def in_words(self) -> str:
        """For people."""
        would = "would be " if self.dry_run else ""
        also = f"; {self.scans:,} rows of scans {would}struck out" if self.scans else ""
        also += f"; {self.reviews:,} rows of reviews {would}removed" if self.reviews else ""
        also += f"; summary.json {would}struck out" if self.summary else ""
        return (
            f"{self.rows:,} rows {would}removed, {self.days:,} days {would}rewritten, "
            f"{self.files_before:,} files {'now' if self.dry_run else 'before'}"
            + (also if self.dry_run else f", {self.files_after:,} after{also}")
            + ("\n" + _OLD_VERSIONS if self.old_versions else "")
        )


def purge(output: str, uris: Sequence[str], older_than: datetime | None, *, dry_run: bool) -> Receipt:
    """Removes the rows of some videos, or of before some time, from every file and version.

    The names of videos that have no row any more go from `scans` and `summary.json` as well, and with them
    what was decided on these videos. Rows come back if the videos are still in the inputs of a later scan.

    Args:
        output: Of the scans.
        uris: As they stand in the table.
        older_than: Rows that were made before; None leaves them.
        dry_run: Only count.

    Raises:
        InputError: there is no table, or nothing to go by.
        TableHeldError: a scan holds it.
    """
    if "" in uris or (not uris and older_than is None):
        raise InputError("nothing to purge", hint="Name videos with --uri, or an age with --older-than.")
    table = ResultsTable.open(output)
    gone = pc.is_in(pc.field("uri"), pa.array(list(uris), pa.string()))
    if older_than is not None:
        gone = gone | (pc.field("scanned_at") < pa.scalar(older_than, pa.timestamp("us", tz="UTC")))
    with _errors_of_the_store(table):
        if dry_run:
            return _purged(table, gone, uris, dry_run=True)
        with table.claim(f"purge-{secrets.token_hex(4)}"):
            return _purged(table, gone, uris, dry_run=False)


def optimize(output: str, *, dry_run: bool) -> Receipt:
    """Rewrites days of many files as days of few.

    Raises:
        InputError: there is no table.
        TableHeldError: a scan holds it.
    """
    table = ResultsTable.open(output)
    with _errors_of_the_store(table):
        if dry_run:
            days = [day for day, files in _days(table).items() if files > 1]
            return Receipt(0, len(days), len(table.files()), len(_days(table)), dry_run=True)
        with table.claim(f"optimize-{secrets.token_hex(4)}"):
            days = [day for day, files in _days(table).items() if files > 1]
            before = len(table.files())
            _rewrite(table, days, keep=None)
            after = len(_open(table.output, "results").get_add_actions())
            return Receipt(0, len(days), before, after, old_versions=table.output.keeps_versions())


@contextmanager
def _errors_of_the_store(table: ResultsTable) -> Iterator[None]:
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise storage_error(str(table.output), error) from error


def _purged(table: ResultsTable, gone: pc.Expression, uris: Sequence[str], *, dry_run: bool) -> Receipt:
    output, before = table.output, len(table.files())
    dataset = _open(output, "results").to_pyarrow_dataset()
    rows = dataset.to_table(["uri", "scan_date"], filter=gone)
    days: list[date] = sorted(set(cast("list[date]", rows["scan_date"].to_pylist())))
    unnamed = {*uris, *_left_by_all(dataset, rows["uri"], gone)}
    names = Names(unnamed)
    reviews = _reviews_of(output, unnamed)
    scans, changed = _scans_without(output, names)
    data = output.read("summary.json")
    text = None if data is None else data.decode()
    summary = text is not None and names.struck_text(text) != text
    if not dry_run:
        _rewrite(table, days, keep=~gone)
        table.renew()
        if scans is not None:
            _replace_scans(output, scans)
        _remove_reviews(output, unnamed)
        if summary and text is not None:
            output.write("summary.json", names.struck_text(text).encode())
    after = len(_open(output, "results").get_add_actions())
    return Receipt(
        rows=len(rows),
        days=len(days),
        files_before=before,
        files_after=after,
        scans=changed,
        reviews=reviews,
        summary=summary,
        dry_run=dry_run,
        old_versions=output.keeps_versions(),
    )


def _left_by_all(dataset: Any, uris: pa.ChunkedArray[Any], gone: pc.Expression) -> set[str]:
    """Of the videos some rows of which go, those of which no row stays."""
    found = pc.unique(uris)
    stay = dataset.to_table(["uri"], filter=~gone & pc.is_in(pc.field("uri"), found))
    return {*map(str, found.to_pylist())} - {*map(str, stay["uri"].to_pylist())}


def _open(output: Output, name: str) -> DeltaTable:
    return DeltaTable(output.at(name), storage_options=output.storage_options)


def _days(table: ResultsTable) -> dict[date, int]:
    """Files of each day."""
    files = pa.table(_open(table.output, "results").get_add_actions(flatten=True))
    days = cast("list[date]", files["partition.scan_date"].to_pylist())
    return dict(sorted(Counter(days).items()))


def _rewrite(table: ResultsTable, days: Sequence[date], keep: pc.Expression | None) -> None:
    """Writes days anew, each in one commit, and deletes every file that no longer counts.

    Raises:
        TableHeldError: somebody took the table over meanwhile; the rest is left as it is.
    """
    output, name = table.output, "results"
    with _appending_lifted(output, name):
        for day in days:
            table.renew()
            delta = _open(output, name)
            schema = stored_schema(delta)
            wanted = pc.field("scan_date") == pa.scalar(day)
            wanted = wanted if keep is None else wanted & keep
            found = delta.to_pyarrow_dataset().scanner(filter=wanted, batch_size=_BATCH)
            write_deltalake(
                delta,
                found.to_reader().cast(schema),
                mode="overwrite",
                predicate=f"scan_date = '{day.isoformat()}'",
                writer_properties=ZSTD,
            )
    table.renew()
    _open(output, name).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


@contextmanager
def _appending_lifted(output: Output, name: str) -> Iterator[None]:
    """Delta refuses to remove anything from a table that is append-only."""
    _open(output, name).alter.set_table_properties({"delta.appendOnly": "false"})
    try:
        yield
    finally:
        _open(output, name).alter.set_table_properties({"delta.appendOnly": "true"})


def _scans_without(output: Output, names: Names) -> tuple[pa.Table | None, int]:
    """All rows of `scans` with names struck out, and in how many; None where there is no name or no scan."""
    if not names or not DeltaTable.is_deltatable(output.at("scans"), output.storage_options):
        return None, 0
    stored = _open(output, "scans").to_pyarrow_table()
    rows, changed = stored.to_pylist(), 0
    for row in rows:
        before = (row.get("inputs"), row.get("settings"))
        row["inputs"] = names.struck(row.get("inputs"), "inputs")
        row["settings"] = row.get("settings") and names.struck_text(row["settings"])
        changed += before != (row["inputs"], row["settings"])
    return pa.Table.from_pylist(rows, schema=stored.schema), changed


def _replace_scans(output: Output, table: pa.Table) -> None:
    """Writes `scans` anew, with a log that begins here: that of earlier releases has names in its statistics.

    It is one table at any moment, and what a stop left undone the next purge does.
    """
    name = "scans"
    with _appending_lifted(output, name):
        delta = _open(output, name)
        delta.alter.set_table_properties({**SMALL_PROPERTIES, **_NO_OLD_LOG})
        delta = _open(output, name)
        write_deltalake(delta, table.cast(stored_schema(delta)), mode="overwrite", writer_properties=ZSTD)
        delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        _open(output, name).create_checkpoint()
        _open(output, name).cleanup_metadata()


def _reviews_of(output: Output, uris: Collection[str]) -> int:
    """How many rows of `reviews` are about these videos."""
    if not DeltaTable.is_deltatable(output.at("reviews"), output.storage_options):
        return 0
    found = _open(output, "reviews").to_pyarrow_dataset()
    return found.count_rows(filter=pc.is_in(pc.field("uri"), pa.array(list(uris), pa.string())))


def _remove_reviews(output: Output, uris: Collection[str]) -> None:
    """Writes `reviews` anew without these videos, again where somebody decided on one meanwhile.

    People go on deciding: rows that come while it is written anew are none that it replaces, so they stay,
    and a file that is on its way into the table is younger than those that no commit names and that go.
    """
    name, gone = "reviews", pc.is_in(pc.field("uri"), pa.array(list(uris), pa.string()))
    while _reviews_of(output, uris):
        with _appending_lifted(output, name):
            delta = _open(output, name)
            kept = delta.to_pyarrow_dataset().to_table(filter=~gone).cast(stored_schema(delta))
            write_deltalake(delta, kept, mode="overwrite", writer_properties=ZSTD)
    if DeltaTable.is_deltatable(output.at(name), output.storage_options):
        _open(output, name).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        _open(output, name).vacuum(
            retention_hours=1, dry_run=False, enforce_retention_duration=False, full=True
        )
