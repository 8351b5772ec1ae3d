"""One scan, as a person wants to see it in the morning: what it found, what failed, what changed.

Rows are those that the scan wrote, judged by the policy of today. Pure data; `jobs.night_page` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import duckdb

from detector.types import Policy, Reason
from jobs.night_change import Change, Counted, counted, moved
from jobs.query import rows
from jobs.recorded import Scan, before, find, policy_of

MOST_FLAGGED = 200
BINS = 50

_ROWS = """
CREATE OR REPLACE TEMP TABLE night AS
SELECT
    scan_id, video_id, uri, status, reason, message, size_bytes, duration_s, fetch_s, extract_cpu_s, score_s,
    logit, p_fake_today AS p_fake, verdict, verdict_today, policy_today, flag_today, uncertain_today,
    len(persons) AS persons,
    len(list_filter(
        persons, lambda person:
            coalesce(score_of(person.logit, slope_today, bias_today), person.p_fake) >= flag_today
    )) AS persons_flagged,
    list_max(list_transform(segments, lambda segment: segment.end_s - segment.start_s)) AS longest_s,
    try_cast(extra['views'] AS BIGINT) AS views
FROM judged('results')
WHERE scan_date IN ($day, $day_before) AND scan_id IN ($scan, $scan_before)
"""

_WORK = """
SELECT
    coalesce(sum(duration_s), 0) / 3600 AS video_hours,
    coalesce(sum(size_bytes), 0)::BIGINT AS size_bytes,
    count(*) FILTER (verdict <> verdict_today) AS verdict_changed,
    coalesce(sum(fetch_s), 0) AS fetch_s,
    avg(extract_cpu_s) AS extract_cpu_s_each, avg(score_s) AS score_s_each
FROM night WHERE scan_id = $scan
"""

_FAILURES = """
SELECT
    reason, count(*) AS videos, arg_min(video_id, uri) AS video_id, min(uri) AS uri,
    arg_min(message, uri) AS message
FROM night WHERE scan_id = $scan AND status = 'failed' GROUP BY reason ORDER BY videos DESC, reason
"""

# To two digits: the third one tells nothing, while views and persons do.
_FLAGGED = """
SELECT video_id, uri, p_fake, persons, persons_flagged, longest_s, duration_s, views
FROM night WHERE scan_id = $scan AND verdict_today = 'flagged'
ORDER BY round(p_fake, 2) DESC, views DESC NULLS LAST, persons_flagged DESC, longest_s DESC NULLS LAST,
    p_fake DESC, uri
LIMIT $most
"""

_HISTOGRAM = """
SELECT least(floor(p_fake * $bins), $bins - 1)::INTEGER AS bin, count(*) AS videos
FROM night WHERE scan_id = $scan AND p_fake IS NOT NULL GROUP BY bin
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What judges the rows today, in p_fake. `measured` says how; None where no scan recorded it."""

    policy_id: str
    flag: float
    uncertain: float
    measured: Policy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Videos that failed for one reason, with one of them as the example."""

    reason: str
    meaning: str
    retryable: bool
    videos: int
    video_id: str
    uri: str
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """A flagged video; `longest_s` is its longest segment, `views` what its manifest said."""

    video_id: str
    uri: str
    p_fake: float
    persons: int
    persons_flagged: int
    longest_s: float | None
    duration_s: float | None
    views: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was done and what it took: hours of video, bytes, seconds of all videos or of each on average."""

    video_hours: float
    size_bytes: int
    verdict_changed: int
    fetch_s: float
    extract_cpu_s_each: float | None
    score_s_each: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One scan and what came of it.

    Attributes:
        scan: Itself.
        work: Over all of its rows.
        counts: Of its rows.
        thresholds: Of today; None where nothing is known of them.
        failures: The most frequent reason first.
        flagged: What deserves a look first comes first; at most `MOST_FLAGGED`.
        histogram: Scored videos in `BINS` equal bins of p_fake from 0 to 1.
        change: Against the scan before that wrote rows; None where there is none.
    """

    scan: Scan
    work: Work
    counts: Counted
    thresholds: Thresholds | None
    failures: tuple[Failure, ...]
    flagged: tuple[Flagged, ...]
    histogram: tuple[int, ...]
    change: Change | None


def look(connection: duckdb.DuckDBPyConnection, scan: str) -> Night:
    """The night of one scan.

    Args:
        connection: From `query.connect`.
        scan: A scan_id, or `latest`: the newest that is no trial run.

    Raises:
        InputError: there is no such scan.
    """
    found = find(connection, scan)
    earlier = before(connection, found)
    other = earlier or found
    connection.execute(
        _ROWS,
        {
            "scan": found.scan_id,
            "day": found.day,
            "scan_before": other.scan_id,
            "day_before": other.day,
        },
    )
    try:
        return _night(connection, found, earlier)
    finally:
        connection.execute("DROP TABLE night")


def _night(connection: duckdb.DuckDBPyConnection, scan: Scan, earlier: Scan | None) -> Night:
    def ask(question: str, **values: Any) -> list[dict[str, Any]]:
        return rows(connection, question, scan=scan.scan_id, **values)

    bins = {row["bin"]: row["videos"] for row in ask(_HISTOGRAM, bins=BINS)}
    counts = counted(connection, scan.scan_id)
    return Night(
        scan=scan,
        work=Work(**ask(_WORK)[0]),
        counts=counts,
        thresholds=_thresholds(connection, scan),
        failures=tuple(_failure(row) for row in ask(_FAILURES)),
        flagged=tuple(Flagged(**row) for row in ask(_FLAGGED, most=MOST_FLAGGED)),
        histogram=tuple(bins.get(place, 0) for place in range(BINS)),
        change=None if earlier is None else _change(connection, earlier, scan, counts),
    )


def _change(connection: duckdb.DuckDBPyConnection, earlier: Scan, scan: Scan, now: Counted) -> Change:
    then = counted(connection, earlier.scan_id)
    change = Change(
        scan_id=earlier.scan_id,
        started_at=earlier.started_at,
        same_settings=earlier.settings_id == scan.settings_id,
        same_weights=earlier.weights_id == scan.weights_id,
        before=then,
        new_reasons=tuple(reason for reason in now.reasons if reason not in then.reasons),
    )
    if not change.same_weights:
        return replace(change, psi_missing="weights")
    if (found := moved(connection, earlier.scan_id, scan.scan_id)) is None:
        return replace(change, psi_missing="few")
    return replace(change, psi=found[0], chance=found[1])


def _thresholds(connection: duckdb.DuckDBPyConnection, scan: Scan) -> Thresholds | None:
    """Of the rows, which have all the same; of the scan, where it wrote none."""
    judged = rows(
        connection,
        "SELECT policy_today, flag_today, uncertain_today FROM night WHERE scan_id = $scan "
        "AND flag_today IS NOT NULL AND uncertain_today IS NOT NULL AND policy_today IS NOT NULL LIMIT 1",
        scan=scan.scan_id,
    )
    if not judged:
        if (policy := scan.policy) is None:
            return None
        return Thresholds(
            policy_id=policy.policy_id, flag=policy.flag, uncertain=policy.uncertain, measured=policy
        )
    policy_id, flag, uncertain = judged[0].values()
    measured = policy_of(connection, policy_id)
    return Thresholds(policy_id=policy_id, flag=flag, uncertain=uncertain, measured=measured)


def _failure(row: dict[str, Any]) -> Failure:
    known = next((reason for reason in Reason if reason == row["reason"]), None)
    return Failure(
        **row, meaning=known.meaning if known else "", retryable=known is not None and known.retryable
    )
