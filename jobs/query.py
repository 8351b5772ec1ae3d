"""Questions to the table, in SQL.

Views: `results` (every row), `latest` (a row per video version), `current` (a row per video), `people`,
`tracks`, `today` (`latest`, judged by the newest policy), and `scans` (a row when a scan starts and one when
it ends). Where a question is about verdicts, those of today are meant.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import duckdb
import pyarrow as pa

from detector.errors import InputError, StorageError
from detector.types import Reason
from jobs import duck
from jobs.policies import PolicyFile
from jobs.schema import RESULTS, SCANS, plain, printable, printable_lines
from jobs.table import ResultsTable

# More than planning gets: nothing else runs here.
_MEMORY = "4GB"

_SUMMARY = """
SELECT
    status, verdict_today AS verdict, reason, count(*) AS videos,
    count(*) FILTER (verdict <> verdict_today) AS verdict_changed, min(uri) AS example
FROM today GROUP BY status, verdict_today, reason
ORDER BY array_position(['scored', 'no_face', 'not_scorable', 'failed'], status), videos DESC,
    verdict_today, reason
"""

_SETTINGS = """
SELECT
    settings_id, weights_id, policy_id, count(*) AS videos, min(scanned_at) AS since, max(scanned_at) AS until
FROM latest GROUP BY settings_id, weights_id, policy_id ORDER BY until DESC
"""

_FLAGGED = """
SELECT
    video_id, uri, p_fake_today AS p_fake, p_fake_max_window, flag_today AS threshold_flag,
    verdict AS verdict_when_scanned, len(persons) AS persons,
    list_transform(segments, lambda s: {'start_s': s.start_s, 'end_s': s.end_s}) AS segments,
    duration_s, scanned_at
FROM today WHERE verdict_today = 'flagged'
ORDER BY p_fake_today DESC, uri LIMIT $limit
"""

_FAILED = """
SELECT
    video_id, uri, reason, message, reason IN (SELECT unnest($retryable)) AS retryable, attempt, size_bytes,
    scanned_at
FROM latest WHERE status = 'failed'
ORDER BY count(*) OVER (PARTITION BY reason) DESC, reason, uri LIMIT $limit
"""

_SCANS = """
SELECT
    scan_id, max(started_at) AS started_at, max("at") FILTER (event = 'end') AS ended_at,
    any_value(exit_code) FILTER (event = 'end') AS exit_code,
    max(listed) AS listed, max(planned) AS planned,
    coalesce(list_sum(map_values(any_value(done) FILTER (event = 'end'))), 0)::BIGINT AS done,
    bool_or(shadow) AS shadow, any_value(settings_id) AS settings_id, any_value(host) AS host,
    any_value(inputs) AS inputs, any_value(settings ->> '$.scored_by') AS scored_by
FROM scans GROUP BY scan_id ORDER BY started_at DESC, scan_id LIMIT $limit
"""

_PEOPLE = """
WITH judged AS (
    SELECT
        video_id, uri, person.person_id,
        coalesce(score_of(person.logit, slope_today, bias_today), person.p_fake) AS p_fake,
        person.verdict AS verdict_when_scanned, person.windows, person.start_s, person.end_s,
        flag_today, uncertain_today
    FROM (SELECT *, unnest(persons) AS person FROM today)
)
SELECT
    video_id, uri, person_id, p_fake, verdict_of(p_fake, flag_today, uncertain_today) AS verdict,
    verdict_when_scanned, windows, start_s, end_s
FROM judged ORDER BY p_fake DESC, uri, person_id LIMIT $limit
"""

_DIFF = """
WITH
one AS ({before}), two AS ({after})
SELECT
    coalesce(one.uri, two.uri) AS uri, one.verdict AS verdict_before, two.verdict AS verdict_after,
    one.p_fake AS p_fake_before, two.p_fake AS p_fake_after, two.p_fake - one.p_fake AS change,
    one.status AS status_before, two.status AS status_after
FROM one FULL OUTER JOIN two ON one.uri = two.uri AND one.version = two.version
WHERE one.verdict IS DISTINCT FROM two.verdict OR one.status IS DISTINCT FROM two.status
   OR one.p_fake IS DISTINCT FROM two.p_fake
ORDER BY (one.verdict IS DISTINCT FROM two.verdict) DESC, abs(two.p_fake - one.p_fake) DESC NULLS LAST, uri
LIMIT $limit
"""

# The last attempt of each video version under some settings, or up to some time.
_SIDE = """
SELECT * FROM results WHERE {condition}
QUALIFY row_number() OVER (PARTITION BY uri, version ORDER BY scanned_at DESC, attempt DESC) = 1
"""

# The question is at fault, not the table or the disk.
_WRONG = (
    duckdb.ProgrammingError,
    duckdb.DataError,
    duckdb.NotSupportedError,
    duckdb.PermissionException,
)
_ALL = (1 << 63) - 1


def connect(output: str, policy: PolicyFile | None = None) -> duckdb.DuckDBPyConnection:
    """A database with the views over the tables below `output`, as of now.

    Args:
        output: Of the scan.
        policy: Judges the rows that it was made for, in place of the policy of the newest scan.

    Raises:
        InputError: there is no table.
        StorageError: its files cannot be read.
    """
    table = ResultsTable.open(output)
    connection = duck.connect(_MEMORY)
    table.output.readable_by(connection)
    duck.register(connection, "results", table.parquet(), RESULTS)
    duck.register(connection, "scans", table.scans(), SCANS)
    for name in ("latest", "current", "people", "tracks", "today"):
        connection.execute(view(name))
    if policy is not None:
        _use(connection, policy)
    duck.confine(connection, [table.output.at(name) for name in ("results", "scans")])
    return connection


def _use(connection: duckdb.DuckDBPyConnection, given: PolicyFile) -> None:
    """Let a policy take the place of the recorded one of its weights."""
    connection.execute("CREATE TABLE given_policy AS FROM policies LIMIT 0")
    policy = given.policy
    values = [policy.policy_id, policy.slope, policy.bias, policy.flag, policy.uncertain]
    connection.execute(
        "INSERT INTO given_policy VALUES (?, ?, ?, ?, ?, ?, ?)",
        [given.weights_id, *values, given.settings_id],
    )
    connection.execute("ALTER VIEW policies RENAME TO recorded_policies")
    connection.execute(
        "CREATE VIEW policies AS FROM given_policy UNION ALL FROM recorded_policies "
        "WHERE weights_id NOT IN (SELECT weights_id FROM given_policy)"
    )


def view(name: str) -> str:
    """The SQL of a shipped view."""
    return (files("jobs") / "views" / f"{name}.sql").read_text("utf-8")


def summary(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Videos by outcome: status, verdict, reason, videos (count), example (a uri).

    `verdict_changed` are those of them that had another verdict when they were scanned.
    """
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


def scans(connection: duckdb.DuckDBPyConnection, limit: int | None = None) -> pa.Table:
    """The scans, newest first; one that was killed has no end. `scored_by`: the settings in words, JSON."""
    return _table(connection, _SCANS, limit=_ALL if limit is None else limit)


def people(connection: duckdb.DuckDBPyConnection, limit: int | None = None) -> pa.Table:
    """Every scored person, highest score first."""
    return _table(connection, _PEOPLE, limit=_ALL if limit is None else limit)


def diff(
    connection: duckdb.DuckDBPyConnection, before: str, after: str, limit: int | None = None
) -> pa.Table:
    """Video versions whose verdict, status or score differs; those whose verdict does come first.

    Args:
        connection: From `connect`.
        before: A settings_id, or a time in ISO 8601: the table as it was then.
        after: The same.
        limit: At most so many.

    Raises:
        InputError: neither a settings_id of the table nor a time.
    """
    sides: dict[str, str] = {}
    values: dict[str, Any] = {"limit": _ALL if limit is None else limit}
    for name, text in (("before", before), ("after", after)):
        condition, values[name] = _condition(connection, text, name)
        sides[name] = _SIDE.format(condition=condition)
    return _table(connection, _DIFF.format(**sides), **values)


def _condition(connection: duckdb.DuckDBPyConnection, text: str, name: str) -> tuple[str, str | datetime]:
    """Which rows are meant, with the parameter of that name, and its value."""
    text = plain(text)
    known = connection.execute("SELECT count(*) FROM results WHERE settings_id = ?", [text]).fetchall()[0][0]
    if known:
        return f"settings_id = ${name}", text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{printable(text)} is neither a settings_id of the table nor a time",
            hint="`deepfake-scan query scans OUT` lists both; times are written as 2026-11-25T22:00:00Z.",
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"NOT shadow AND scanned_at <= ${name}", moment


def sql(connection: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    """The answer to one question, a SELECT; it can read the table and nothing else.

    Raises:
        InputError: the statement is wrong, or no question.
        StorageError: it failed on the way.
    """
    try:
        text = plain(text)
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


def rows(connection: duckdb.DuckDBPyConnection, text: str, **values: object) -> list[dict[str, Any]]:
    """The answer to a question of ours, a dict for each row; maps are lists of pairs.

    Raises:
        StorageError: it failed on the way.
    """
    return _table(connection, text, **values).to_pylist()


def _table(connection: duckdb.DuckDBPyConnection, text: str, **values: object) -> pa.Table:
    try:
        answer: pa.Table = connection.sql(text, params=values or None).to_arrow_table()
        return answer
    except duckdb.Error as error:
        raise StorageError(printable_lines(str(error))) from error
