"""What is left to do: the listing without what the table already answers.

A version of a video is done, under the settings of this scan, when a row says scored, no_face or
not_scorable, or that it failed for good. Failures that may pass are due again, three attempts in all, of
which `archived` is none. Rows of trial runs (`shadow`) answer other trial runs only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import duckdb
import pyarrow as pa

from detector.errors import StorageError
from detector.types import Reason
from jobs.duck import connect, register
from jobs.fence import Parquet
from jobs.listed import Listed
from jobs.schema import RESULTS
from jobs.table import ResultsTable

ATTEMPTS = 3

_FIELDS: list[tuple[str, pa.DataType]] = [
    ("uri", pa.string()),
    ("size", pa.int64()),
    ("version", pa.string()),
    ("modified_at", pa.timestamp("us", tz="UTC")),
    ("storage_class", pa.string()),
    ("version_id", pa.string()),
    ("extra", pa.map_(pa.string(), pa.string())),
]
LISTING = pa.schema(_FIELDS)
PLAN = pa.schema([*_FIELDS, ("video_id", pa.string()), ("attempt", pa.int32())])

# A uri that several inputs name, or that changed while it was listed, is taken once, as it was seen last;
# what a manifest says of it beside stays, whoever named it last.
_WANTED = """
CREATE TEMP TABLE wanted AS
SELECT listed.* REPLACE (coalesce(listed.extra, seen.extra) AS extra)
FROM listed INNER JOIN (
    SELECT
        max_by(n, (coalesce(modified_at, '-infinity'::TIMESTAMPTZ), n)) AS n, any_value(extra) AS extra
    FROM listed GROUP BY uri
) AS seen ON listed.n = seen.n
"""

_KNOWN = """
CREATE TEMP TABLE known AS
WITH past AS (
    SELECT
        uri, version, attempt, reason, shadow,
        settings_id = $settings_id AS same,
        status = 'failed' AS failed,
        status = 'failed' AND reason IN (SELECT unnest($retryable)) AS passing
    FROM results
)
SELECT
    n,
    max(attempt) FILTER (same AND this) AS attempts,
    coalesce(bool_or(NOT failed) FILTER (same AND this AND counts), false) AS answered,
    coalesce(max_by(passing, attempt) FILTER (same AND this AND counts), true) AS passing,
    count(*) FILTER (same AND this AND counts AND reason IS DISTINCT FROM 'archived') AS tries,
    coalesce(bool_or(counts) FILTER (same AND this), false) AS tried,
    coalesce(bool_or(NOT this), false) AS changed,
    coalesce(bool_or(NOT passing) FILTER (this AND NOT same AND NOT shadow), false) AS elsewhere
FROM (
    SELECT wanted.n, past.*, past.version = wanted.version AS this, $shadow OR NOT past.shadow AS counts
    FROM past INNER JOIN wanted ON past.uri = wanted.uri
)
GROUP BY n
"""

_DUE = """
CREATE TEMP TABLE due AS
SELECT
    wanted.*,
    coalesce(attempts, 0) + 1 AS attempt,
    coalesce(answered, false) OR NOT ($all_failed OR coalesce(passing AND tries < $attempts, true)) AS done,
    coalesce(tried AND NOT answered, false) AS retried,
    coalesce(changed AND attempts IS NULL, false) AS changed,
    coalesce(elsewhere, false) AS elsewhere
FROM wanted LEFT JOIN known ON wanted.n = known.n
"""

_COUNTS = """
SELECT count(*), count(*) FILTER (done), count(*) FILTER (done AND retried) FROM due
"""

_ROWS = """
SELECT
    uri, size, version, modified_at, storage_class, version_id, extra,
    left(sha256(uri || chr(0) || version), 16) AS video_id, attempt, retried, changed, elsewhere
FROM due WHERE NOT done ORDER BY modified_at DESC NULLS LAST, uri LIMIT $limit
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scan is to do, and why it is that much; all counts are of video versions.

    Attributes:
        rows: Of schema `PLAN`, newest first.
        listed: Different videos in the listing.
        done: Of these, answered by the table already.
        failed: Of the done ones, failed for good or after three attempts; `retry="failed"` makes them due.
        due: Of the listed, not done; more than `rows` has under a limit.
        retried: Of `rows`, failed before under these settings.
        changed: Of `rows`, known to the table with other content only.
        other_settings: Of `rows`, answered by the table under other settings: unasked for, a silent rescan.
    """

    rows: pa.Table
    listed: int
    done: int
    failed: int
    due: int
    retried: int
    changed: int
    other_settings: int

    @property
    def to_do(self) -> int:
        """Videos in `rows`."""
        return len(self.rows)


def plan(
    listed: Iterable[Listed] | pa.Table,
    table: ResultsTable | None,
    settings_id: str,
    *,
    retry: Literal["failed"] | None = None,
    limit: int | None = None,
    shadow: bool = False,
) -> Plan:
    """The videos of `listed` that `table`, as its handle sees it, does not answer under `settings_id`.

    Args:
        listed: What there is, as it comes or from `collect`.
        table: None where there is none yet.
        settings_id: Of this scan.
        retry: "failed" makes videos due once more that failed for good.
        limit: At most so many, the newest.
        shadow: True for a trial run.
    """
    found = listed if isinstance(listed, pa.Table) else collect(listed)
    with connect() as engine:
        engine.register("listed", found.append_column("n", pa.array(range(len(found)), pa.int64())))
        if table:
            table.output.readable_by(engine)
        register(engine, "results", table.parquet() if table else Parquet([], RESULTS), RESULTS)
        try:
            engine.execute(_WANTED)
            engine.execute(
                _KNOWN,
                {
                    "settings_id": settings_id,
                    "retryable": [str(reason) for reason in Reason if reason.retryable],
                    "shadow": shadow,
                },
            )
            engine.execute(_DUE, {"all_failed": retry == "failed", "attempts": ATTEMPTS})
            listed_n, done, failed = engine.execute(_COUNTS).fetchall()[0]
            limits = {"limit": len(found) if limit is None else limit}
            rows = engine.sql(_ROWS, params=limits).to_arrow_table()
        except duckdb.Error as error:
            raise StorageError(f"planning failed: {error}") from error
    flags = {name: rows[name].to_pylist().count(True) for name in ("retried", "changed", "elsewhere")}
    return Plan(
        rows=rows.select(PLAN.names).cast(PLAN),
        listed=listed_n,
        done=done,
        failed=failed,
        due=listed_n - done,
        retried=flags["retried"],
        changed=flags["changed"],
        other_settings=flags["elsewhere"],
    )


def collect(listed: Iterable[Listed]) -> pa.Table:
    """A whole listing as a table of schema `LISTING`."""
    return pa.Table.from_batches(_batches(listed), LISTING)


def _batches(listed: Iterable[Listed]) -> Iterator[pa.RecordBatch]:
    # A million objects of Python would need several times the memory of the same in Arrow.
    rows, fields = iter(listed), list(LISTING)
    while chunk := list(islice(rows, 50_000)):
        columns = [[getattr(item, field.name) for item in chunk] for field in fields]
        yield pa.record_batch(
            [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)],
            schema=LISTING,
        )
