"""Scans as they recorded themselves in the table `scans`: which one is meant, and which came before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb
import msgspec

from detector.errors import InputError
from detector.types import Policy
from jobs.query import rows
from jobs.schema import printable

LATEST = "latest"

_SCANS = """
SELECT
    scan_id, min(started_at) AS started_at, max("at") FILTER (event = 'end') AS ended_at,
    any_value(exit_code) FILTER (event = 'end') AS exit_code,
    any_value(host) AS host, coalesce(any_value(inputs), []) AS inputs,
    any_value(settings_id) AS settings_id, any_value(settings) AS settings,
    any_value(weights_id) AS weights_id, any_value(versions) AS versions,
    coalesce(bool_or(shadow), false) AS shadow,
    max(listed) AS listed, max(planned) AS planned,
    any_value(videos_per_s) FILTER (event = 'end') AS videos_per_s
FROM scans GROUP BY scan_id
"""

_POLICY = 'SELECT settings FROM scans WHERE policy_id = $policy ORDER BY "at" DESC LIMIT 1'

# The day is that of the folder: only its files are opened.
_WROTE = "SELECT 1 FROM results WHERE scan_date = $day AND scan_id = $scan LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A scan as it recorded itself. One that is at work, or was killed, has no end and no exit code."""

    scan_id: str
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    host: str | None
    inputs: tuple[str, ...]
    settings_id: str | None
    weights: str | None
    weights_id: str | None
    versions: Mapping[str, str]
    shadow: bool
    listed: int | None
    planned: int | None
    videos_per_s: float | None
    price_per_hour: float | None
    policy: Policy | None

    @property
    def day(self) -> date:
        """Of the start, which is that of all of its rows."""
        return self.started_at.date()

    @property
    def seconds(self) -> float | None:
        """How long it took, s."""
        return None if self.ended_at is None else (self.ended_at - self.started_at).total_seconds()

    @property
    def cost(self) -> float | None:
        """In the currency of the price; None without a price or an end."""
        if self.seconds is None or self.price_per_hour is None:
            return None
        return self.price_per_hour * self.seconds / 3600


def find(connection: duckdb.DuckDBPyConnection, scan: str) -> Scan:
    """The scan of that id; `latest` is the newest that is no trial run.

    Raises:
        InputError: there is no such scan.
    """
    if scan == LATEST:
        condition = "NOT shadow ORDER BY started_at DESC, scan_id DESC LIMIT 1"
        found = rows(connection, f"FROM ({_SCANS}) WHERE {condition}")
    else:
        found = rows(connection, f"FROM ({_SCANS}) WHERE scan_id = $scan", scan=scan)
    if found:
        return _scan(found[0])
    raise InputError(
        "no scan is recorded in the table" if scan == LATEST else f"no scan {printable(scan)} in the table",
        hint="`deepfake-scan query scans OUT` lists them; trial runs have to be named.",
    )


def before(connection: duckdb.DuckDBPyConnection, scan: Scan) -> Scan | None:
    """The scan before this one that wrote rows, trial runs left out."""
    earlier = rows(
        connection,
        f"FROM ({_SCANS}) WHERE NOT shadow AND started_at < $started AND coalesce(planned, 1) > 0 "
        "ORDER BY started_at DESC, scan_id",
        started=scan.started_at,
    )
    for candidate in map(_scan, earlier):
        if rows(connection, _WROTE, day=candidate.day, scan=candidate.scan_id):
            return candidate
    return None


def _scan(row: dict[str, Any]) -> Scan:
    settings = parsed(row.pop("settings"))
    given = settings["all"] if isinstance(settings.get("all"), dict) else {}
    weights, price = given.get("weights"), given.get("price_per_hour")
    return Scan(
        **row | {"inputs": tuple(row["inputs"]), "versions": dict(row["versions"] or {})},
        weights=weights if isinstance(weights, str) else None,
        price_per_hour=price if isinstance(price, int | float) else None,
        policy=policy_in(settings),
    )


def policy_in(settings: Mapping[str, Any]) -> Policy | None:
    """Calibration and thresholds, with what was measured of them; None where they cannot be read."""
    try:
        return msgspec.convert(settings.get("policy"), Policy)
    except msgspec.ValidationError:
        return None


def parsed(text: str | None) -> dict[str, Any]:
    """The settings that a scan recorded; tables of others may hold anything."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def policy_of(connection: duckdb.DuckDBPyConnection, policy_id: str | None) -> Policy | None:
    """The policy of that id, as the last scan that used it recorded it."""
    found = rows(connection, _POLICY, policy=policy_id)
    return policy_in(parsed(found[0]["settings"])) if found else None
