"""Questions to the table, in SQL: views `results` (every row) and `latest` (one row per video version)."""

from __future__ import annotations

from importlib.resources import files

import duckdb
import pyarrow as pa

from detector.errors import InputError, StorageError
from detector.types import Reason
from jobs import duck
from jobs.schema import RESULTS, printable
from jobs.table import ResultsTable

# More than planning gets: nothing else runs here.
_MEMORY = "4GB"

_SUMMARY = """
SELECT status, verdict, reason, count(*) AS videos, min(uri) AS example
FROM latest GROUP BY status, verdict, reason
ORDER BY array_position(['scored', 'no_face', 'not_scorable', 'failed'], status), videos DESC, verdict, reason
"""

_SETTINGS = """
SELECT
    settings_id, weights_id, policy_id, count(*) AS videos, min(scanned_at) AS since, max(scanned_at) AS until
FROM latest GROUP BY settings_id, weights_id, policy_id ORDER BY until DESC
"""

_FLAGGED = """
SELECT
    video_id, uri, p_fake, p_fake_max_window, threshold_flag, len(persons) AS persons,
    list_transform(segments, lambda s: {'start_s': s.start_s, 'end_s': s.end_s}) AS segments,
    duration_s, scanned_at
FROM latest WHERE verdict = 'flagged'
ORDER BY p_fake DESC, uri LIMIT $limit
"""

_FAILED = """
SELECT
    video_id, uri, reason, message, reason IN (SELECT unnest($retryable)) AS retryable, attempt, size_bytes,
    scanned_at
FROM latest WHERE status = 'failed'
ORDER BY count(*) OVER (PARTITION BY reason) DESC, reason, uri LIMIT $limit
"""

# The question is at fault, not the table or the disk.
_WRONG = (
    duckdb.ProgrammingError,
    duckdb.DataError,
    duckdb.NotSupportedError,
    duckdb.PermissionException,
)
_ALL = (1 << 63) - 1


def connect(output: str) -> duckdb.DuckDBPyConnection:
    """A database with the views `results` and `latest` over the table below `output`, as of now.

    Raises:
        InputError: there is no table.
    """
    table = ResultsTable.open(output)
    connection = duck.connect(_MEMORY)
    table.output.readable_by(connection)
    duck.register_files(connection, "results", table.files(), RESULTS)
    connection.execute(view("latest"))
    duck.confine(connection, table.output.at("results"))
    return connection


def view(name: str) -> str:
    """The SQL of a shipped view."""
    return (files("jobs") / "views" / f"{name}.sql").read_text("utf-8")


def summary(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Videos by outcome: status, verdict, reason, videos (count), example (a uri)."""
    return _table(connection, _SUMMARY)


def settings(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Videos by the settings, weights and policy behind their row, newest first; more than one row: mixed."""
    return _table(connection, _SETTINGS)


def flagged(connection: duckdb.DuckDBPyConnection, limit: int | None = None) -> pa.Table:
    """Flagged videos, highest score first, with the segments to look at; times in seconds."""
    return _table(connection, _FLAGGED, limit=_ALL if limit is None else limit)


def failed(connection: duckdb.DuckDBPyConnection, limit: int | None = None) -> pa.Table:
    """Failed videos, the most frequent reason first; `retryable` ones are tried again by later scans."""
    retryable = [str(reason) for reason in Reason if reason.retryable]
    return _table(connection, _FAILED, limit=_ALL if limit is None else limit, retryable=retryable)


def sql(connection: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    """The answer to one question, a SELECT; it can read the table and nothing else.

    Raises:
        InputError: the statement is wrong, or no question.
        StorageError: it failed on the way.
    """
    try:
        statements = duckdb.extract_statements(text)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise InputError(
                "only one question is answered, and nothing is written",
                hint='Example: deepfake-scan query sql results/ "SELECT uri, p_fake FROM latest"',
            )
        answer: pa.Table = connection.sql(text).to_arrow_table()
        return answer
    except (
        duckdb.ProgrammingError,
        duckdb.DataError,
        duckdb.NotSupportedError,
        duckdb.PermissionException,
    ) as error:
        raise InputError(
            printable_lines(str(error)), hint="Ask the views `results` or `latest`; columns: docs/table.md."
        ) from error
    except duckdb.Error as error:
        raise StorageError(printable_lines(str(error))) from error


def printable_lines(text: str) -> str:
    """`printable`, line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _table(connection: duckdb.DuckDBPyConnection, text: str, **values: object) -> pa.Table:
    try:
        answer: pa.Table = connection.sql(text, params=values or None).to_arrow_table()
        return answer
    except duckdb.Error as error:
        raise StorageError(printable_lines(str(error))) from error
