"""What rewrites the table, on request only: purge and optimize. Both claim it, so no scan runs meanwhile.

The table is append-only, which makes a plain glob over its files right at any time. A rewrite breaks that for
as long as it takes: first the new files are there beside the old ones, then the old ones are deleted at once,
and with them every older version. Parts of a table are rewritten by day, through the writer that scans use.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
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
from jobs.schema import SCANS
from jobs.table import ResultsTable, create_scans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.output import Output

PURGED = "(purged)"
_BATCH = 10_000


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
    summary: bool = False
    """Whether a name was struck out of `summary.json`."""
    dry_run: bool = False

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def in_words(self) -> str:
        """For people."""
        would = "would be " if self.dry_run else ""
        also = f"; {self.scans:,} rows of scans {would}struck out" if self.scans else ""
        also += f"; summary.json {would}struck out" if self.summary else ""
        return (
            f"{self.rows:,} rows {would}removed, {self.days:,} days {would}rewritten, "
            f"{self.files_before:,} files {'now' if self.dry_run else 'before'}"
            + (also if self.dry_run else f", {self.files_after:,} after{also}")
        )


def purge(output: str, uris: Sequence[str], older_than: datetime | None, *, dry_run: bool) -> Receipt:
    """Removes the rows of some videos, or of before some time, from every file and version.

    The names of `uris` go from `scans` and `summary.json` as well. Rows come back if the videos are still in
    the inputs of a later scan.

    Args:
        output: Of the scans.
        uris: As they stand in the table.
        older_than: Rows that were made before; None leaves them.
        dry_run: Only count.

    Raises:
        InputError: there is no table, or nothing to go by.
        TableHeldError: a scan holds it.
    """
    if not uris and older_than is None:
        raise InputError("nothing to purge", hint="Name videos with --uri, or an age with --older-than.")
    table = ResultsTable.open(output)
    gone = pc.is_in(pc.field("uri"), pa.array(list(uris), pa.string()))
    if older_than is not None:
        gone = gone | (pc.field("scanned_at") < pa.scalar(older_than, pa.timestamp("us", tz="UTC")))
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
    if dry_run:
        days = [day for day, files in _days(table).items() if files > 1]
        return Receipt(0, len(days), len(table.files()), len(_days(table)), dry_run=True)
    with table.claim(f"optimize-{secrets.token_hex(4)}"):
        days = [day for day, files in _days(table).items() if files > 1]
        before = len(table.files())
        _rewrite(table.output, "results", days, keep=None)
        return Receipt(0, len(days), before, len(_open(table.output, "results").get_add_actions()))


def _purged(table: ResultsTable, gone: pc.Expression, uris: Sequence[str], *, dry_run: bool) -> Receipt:
    output, before = table.output, len(table.files())
    rows = _open(output, "results").to_pyarrow_dataset().to_table(["scan_date"], filter=gone)
    days: list[date] = sorted(set(cast("list[date]", rows["scan_date"].to_pylist())))
    scans = _struck(output, uris)
    text = _summary(output)
    summary = text is not None and any(uri in text for uri in map(_as_json_text, uris))
    if not dry_run:
        _rewrite(output, "results", days, keep=~gone)
        if scans.changed:
            _replace_scans(output, scans.rows)
        if summary and text is not None:
            output.write("summary.json", _without(text, uris).encode())
    after = len(_open(output, "results").get_add_actions())
    return Receipt(len(rows), len(days), before, after, scans.changed, summary, dry_run)


def _open(output: Output, name: str) -> DeltaTable:
    return DeltaTable(output.at(name), storage_options=output.storage_options)


def _days(table: ResultsTable) -> dict[date, int]:
    """Files of each day."""
    files = pa.table(_open(table.output, "results").get_add_actions(flatten=True))
    days = cast("list[date]", files["partition.scan_date"].to_pylist())
    return dict(sorted(Counter(days).items()))


def _rewrite(output: Output, name: str, days: Sequence[date], keep: pc.Expression | None) -> None:
    """Writes days anew, each in one commit, and deletes every file that no longer counts."""
    path = output.at(name)
    try:
        with _appending_lifted(output, name):
            for day in days:
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
        _open(output, name).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    except (DeltaError, OSError) as error:
        raise storage_error(path, error) from error


@contextmanager
def _appending_lifted(output: Output, name: str) -> Iterator[None]:
    """Delta refuses to remove anything from a table that is append-only."""
    _open(output, name).alter.set_table_properties({"delta.appendOnly": "false"})
    try:
        yield
    finally:
        _open(output, name).alter.set_table_properties({"delta.appendOnly": "true"})


@dataclass(frozen=True, slots=True)
class _Struck:
    rows: list[dict[str, Any]]
    changed: int


def _struck(output: Output, uris: Sequence[str]) -> _Struck:
    """All rows of `scans`, names struck out of inputs and settings."""
    if not uris or not DeltaTable.is_deltatable(output.at("scans"), output.storage_options):
        return _Struck([], 0)
    rows = _open(output, "scans").to_pyarrow_table().to_pylist()
    changed = 0
    for row in rows:
        before = (row["inputs"], row["settings"])
        row["inputs"] = [PURGED if name in uris else name for name in row["inputs"] or []]
        row["settings"] = row["settings"] and _without(row["settings"], uris)
        changed += before != (row["inputs"], row["settings"])
    return _Struck(rows, changed)


def _replace_scans(output: Output, rows: Sequence[Mapping[str, Any]]) -> None:
    """Begins `scans` anew: tables of earlier releases have names in the statistics of their log."""
    output.remove("scans")
    create_scans(output)
    table = pa.Table.from_pylist(list(rows), schema=SCANS)
    write_deltalake(_open(output, "scans"), table, mode="append", writer_properties=ZSTD)


def _summary(output: Output) -> str | None:
    data = output.read("summary.json")
    return None if data is None else data.decode()


def _without(text: str, uris: Sequence[str]) -> str:
    """JSON text with names struck out as they are spelled in it, longer ones first."""
    for uri in sorted(uris, key=len, reverse=True):
        text = text.replace(_as_json_text(uri), PURGED)
    return text


def _as_json_text(uri: str) -> str:
    return json.dumps(uri)[1:-1]
