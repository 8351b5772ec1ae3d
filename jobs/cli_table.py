"""Commands that ask the table of a scan, and those that rewrite it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detector.errors import InputError, SettingsError
from jobs.cli_options import Json, Limit, Output, Policy, print_json

if TYPE_CHECKING:
    from datetime import datetime

query_app = typer.Typer(help="Ask the table of a scan.", no_args_is_help=True)
table_app = typer.Typer(help="The table: what rewrites it, on request only.", no_args_is_help=True)


@query_app.command("summary")
def query_summary(output: Output, *, policy: Policy = None, as_json: Json = False) -> None:
    """Counts by status and verdict, and the top reasons.

    Example: deepfake-scan query summary results/
    """
    _query(output, as_json, lambda query, con: query.summary(con), policy)


@query_app.command("flagged")
def query_flagged(output: Output, *, policy: Policy = None, as_json: Json = False) -> None:
    """Videos that are flagged by the thresholds of today, the highest score first, with where to look.

    Example: deepfake-scan query flagged results/
    """
    _query(output, as_json, lambda query, con: query.flagged(con), policy)


@query_app.command("failed")
def query_failed(output: Output, *, as_json: Json = False) -> None:
    """Videos that failed, with reason and message.

    Example: deepfake-scan query failed results/ --json
    """
    _query(output, as_json, lambda query, con: query.failed(con))


@query_app.command("scans")
def query_scans(output: Output, *, limit: Limit = None, as_json: Json = False) -> None:
    """The scans, newest first: when, how many videos, how it ended, and the settings in words.

    Example: deepfake-scan query scans results/ --json
    """
    _query(output, as_json, lambda query, con: query.scans(con, limit))


@query_app.command("people")
def query_people(
    output: Output, *, policy: Policy = None, limit: Limit = None, as_json: Json = False
) -> None:
    """Every scored person, the highest score first.

    Example: deepfake-scan query people results/ --limit 20
    """
    _query(output, as_json, lambda query, con: query.people(con, limit), policy)


@query_app.command("diff")
def query_diff(
    output: Output,
    before: Annotated[str, typer.Argument(help="A settings_id, or a time: the table as it was then.")],
    after: Annotated[str, typer.Argument(help="The same.")],
    *,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Which verdicts and scores differ between two settings, or between two times.

    Example: deepfake-scan query diff results/ 2026-11-24T00:00:00Z 2026-11-25T00:00:00Z
    """
    _query(output, as_json, lambda query, con: query.diff(con, before, after, limit))


@query_app.command("export")
def query_export(
    output: Output,
    file: Annotated[str, typer.Argument(help="A local file that ends in .parquet or .csv.")],
    *,
    view: Annotated[str, typer.Option(help="latest, today, current, people, tracks or results.")] = "latest",
) -> None:
    """Write a view to one plain file; text in CSV is safe to open in a spreadsheet.

    Example: deepfake-scan query export results/ latest.csv
    """
    from jobs import query
    from jobs.export import export
    from jobs.local import scheme_of
    from jobs.schema import printable

    if scheme_of(file):
        raise InputError(
            f"{printable(file)}: an export is a local file",
            hint="Write it here, and copy it: aws s3 cp FILE s3://...",
        )
    with query.connect(output) as con:
        print(f"{export(con, view, Path(file)):,} rows: {printable(file)}")


@query_app.command("sql")
def query_sql(
    output: Output,
    text: Annotated[str, typer.Argument(help="SQL over `latest` (a row per video) or `results` (all rows).")],
    *,
    policy: Policy = None,
    as_json: Json = False,
) -> None:
    """Any question, in DuckDB's SQL.

    Example: deepfake-scan query sql results/ "SELECT uri, p_fake FROM latest ORDER BY p_fake DESC"
    """
    _query(output, as_json, lambda query, con: query.sql(con, text), policy)


def _query(output: str, as_json: bool, ask: Callable[[Any, Any], Any], policy: str | None = None) -> None:
    from jobs import policies, query
    from jobs.printing import print_table, rows_as_json

    with query.connect(output, None if policy is None else policies.read(policy)) as con:
        answer = ask(query, con)
    print_json(rows_as_json(answer)) if as_json else print_table(answer)


@table_app.command("purge")
def table_purge(
    output: Output,
    *,
    uri: Annotated[list[str] | None, typer.Option(help="A video, as it stands in the table.")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Rows made before: a time in ISO 8601, or an age such as 2160h.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only counted.")] = False,
    as_json: Json = False,
) -> None:
    """Remove videos, or what is old, from every file and every version of the tables; there is no way back.

    Example: deepfake-scan table purge results/ --uri s3://bucket/a.mp4 --yes

    Without --yes it says what would be removed. Readers at work meanwhile may see rows twice or fail.
    """
    from jobs.maintenance import purge

    receipt = purge(output, uri or [], _time(older_than) if older_than else None, dry_run=not yes)
    print_json(receipt.as_json()) if as_json else print(receipt.in_words())


@table_app.command("optimize")
def table_optimize(
    output: Output,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only counted.")] = False,
    as_json: Json = False,
) -> None:
    """Rewrite days of many files as days of few, and delete the old files at once.

    Example: deepfake-scan table optimize results/ --yes

    Without --yes it says what would be rewritten. About 100 files a night do not need it.
    """
    from jobs.maintenance import optimize

    receipt = optimize(output, dry_run=not yes)
    print_json(receipt.as_json()) if as_json else print(receipt.in_words())


def _time(text: str) -> datetime:
    """A moment from ISO 8601 or from an age."""
    from datetime import UTC, datetime, timedelta

    from jobs.units import parse_duration

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            if text.isdigit():  # seconds elsewhere, and never meant here
                raise ValueError(text)
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            raise SettingsError(
                f"older-than: {text!r} is neither a time nor an age",
                hint="Write 2026-01-31T00:00:00Z, or 2160h for 90 days.",
            ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
