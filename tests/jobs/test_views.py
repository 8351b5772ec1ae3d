"""People, tracks, the newest version, what changed between two settings or times, and plain exports."""

import csv
import json
import math
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from jobs.table import ResultsTable
from tests.conftest import Scanned
from tests.jobs.conftest import Command
from tests.jobs.samples import POLICY, sample_row


def _table(tmp_path: Path, *rows: dict) -> Path:
    with ResultsTable.create(str(tmp_path / "out")).claim("s") as table:
        table.append(list(rows))
    return tmp_path / "out"


def _ask(command: Command, *words: object) -> list[dict]:
    done = command("query", *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_people_and_tracks_are_those_of_the_rows(command: Command, scanned: Scanned) -> None:
    videos = _ask(
        command, "sql", scanned.output, "SELECT uri, len(persons) AS n, tracks_found AS t FROM latest"
    )
    people = _ask(command, "people", scanned.output)
    assert len(people) == sum(video["n"] or 0 for video in videos)
    assert [p["p_fake"] for p in people] == sorted((p["p_fake"] for p in people), reverse=True)
    assert len(_ask(command, "people", scanned.output, "--limit", 2)) == 2
    tracks = _ask(command, "sql", scanned.output, "SELECT * FROM tracks")
    assert len(tracks) == sum(video["t"] or 0 for video in videos)


def test_scans_say_how_they_ended_and_their_settings_in_words(command: Command, scanned: Scanned) -> None:
    scan = _ask(command, "scans", scanned.output)[-1]  # other tests scan the same again
    assert scan["exit_code"] == scanned.exit_code
    assert scan["done"] == scan["planned"] > 10
    assert json.loads(scan["scored_by"])["detector"] == "yunet"


def test_current_is_the_newest_version(command: Command, tmp_path: Path) -> None:
    old, new = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    rows = [sample_row("a.mp4") | {"version": v, "modified_at": t} for v, t in (("v2", new), ("v1", old))]
    out = _table(tmp_path, *rows, sample_row("b.mp4"))
    found = _ask(command, "sql", out, "SELECT uri, version FROM current ORDER BY uri")
    assert [row["version"] for row in found if row["uri"].endswith("a.mp4")] == ["v2"]
    assert len(found) == 2


def test_diff_tells_what_changed_between_settings_and_between_times(command: Command, tmp_path: Path) -> None:
    monday, tuesday = (datetime(2026, 1, day, tzinfo=UTC) for day in (5, 6))
    before = {"settings_id": "aaaaaaaaaaaa", "scanned_at": monday}
    after = {"settings_id": "bbbbbbbbbbbb", "scanned_at": tuesday}
    out = _table(
        tmp_path,
        sample_row("a.mp4") | before | {"p_fake": 0.2, "verdict": "not_flagged"},
        sample_row("a.mp4") | after | {"p_fake": 0.9, "verdict": "flagged"},
        sample_row("b.mp4") | before | {"p_fake": 0.3, "verdict": "not_flagged"},
        sample_row("b.mp4") | after | {"p_fake": 0.4, "verdict": "not_flagged"},
        sample_row("c.mp4") | before | {"p_fake": 0.5, "verdict": "uncertain"},
        sample_row("c.mp4") | after | {"p_fake": 0.5, "verdict": "uncertain"},
    )
    sides = ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), ("2026-01-05T12:00:00Z", "2026-01-07T00:00:00Z")
    for one, two in sides:
        found = _ask(command, "diff", out, one, two)
        assert [(row["uri"], row["verdict_before"], row["verdict_after"]) for row in found] == [
            (sample_row("a.mp4")["uri"], "not_flagged", "flagged"),
            (sample_row("b.mp4")["uri"], "not_flagged", "not_flagged"),
        ]
        assert found[0]["change"] == pytest.approx(0.7)
    for written in ("20260105T120000", "2026-W02-1T12"):  # ISO 8601 has many ways
        assert len(_ask(command, "diff", out, written, "2026-01-07")) == 2
    wrong = command("query", "diff", out, "cccccccccccc", "bbbbbbbbbbbb")
    assert wrong.code == 2
    assert "neither a settings_id of the table nor a time" in wrong.err


def test_verdicts_of_today_stand_beside_those_of_the_scan(command: Command, tmp_path: Path) -> None:
    out = _table(
        tmp_path,
        sample_row("a.mp4") | {"p_fake": 0.95, "logit": 3.0},
        sample_row("b.mp4") | {"p_fake": 0.7, "logit": 0.8, "verdict": "uncertain"},
        sample_row("other.mp4") | {"weights_id": "other"},
    )
    assert {row["policy_today"] for row in _ask(command, "sql", out, "FROM today")} == {POLICY.policy_id}
    newer = replace(POLICY, policy_id="p2", slope=0.5, bias=-1.0, flag=0.97, uncertain=0.5)
    words = {
        "started_at": datetime.now(UTC),
        "weights_id": sample_row("a.mp4")["weights_id"],
        "policy_id": newer.policy_id,
        "settings": json.dumps({"policy": asdict(newer)}),
        "shadow": False,
    }
    with ResultsTable.create(str(out)).claim("later") as table:
        table.record_scan("start", words)
        table.record_scan("end", words | {"settings": json.dumps({"policy": asdict(newer)}), "exit_code": 0})

    rows = {row["uri"].rpartition("/")[2]: row for row in _ask(command, "sql", out, "FROM today")}
    assert (rows["a.mp4"]["verdict"], rows["a.mp4"]["verdict_today"]) == ("flagged", "uncertain")
    assert rows["a.mp4"]["p_fake_today"] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert rows["b.mp4"]["verdict_today"] == "not_flagged"
    assert rows["other.mp4"]["verdict_today"] == "flagged", "other weights, other thresholds"
    assert [row["uri"] for row in _ask(command, "flagged", out)] == [rows["other.mp4"]["uri"]]
    assert {row["verdict"]: row["verdict_changed"] for row in _ask(command, "summary", out)} == {
        "flagged": 0,
        "uncertain": 1,
        "not_flagged": 1,
    }
    people = {row["uri"]: row for row in _ask(command, "people", out)}
    assert people[rows["other.mp4"]["uri"]]["verdict"] == "flagged"
    assert people[rows["a.mp4"]["uri"]]["verdict_when_scanned"] == "flagged"


@pytest.mark.parametrize(
    "spoiled",
    [
        {"slope": None},
        {"flag": None},
        {"slope": "NaN"},
        {"slope": "abc"},
        {"policy_id": None},
        None,
        "",
        "{",
    ],
)
def test_a_policy_that_is_none_is_passed_over(command: Command, tmp_path: Path, spoiled: object) -> None:
    out = _table(tmp_path, sample_row("a.mp4") | {"p_fake": 0.95, "logit": 3.0})
    newer = replace(POLICY, policy_id="p2", flag=0.97)
    settings = [json.dumps({"policy": asdict(newer)})]
    settings += [
        spoiled if isinstance(spoiled, str) else json.dumps({"policy": spoiled and asdict(newer) | spoiled})
    ]
    with ResultsTable.create(str(out)).claim("later") as table:
        for text in settings:
            words = {"started_at": datetime.now(UTC), "weights_id": sample_row("a.mp4")["weights_id"]}
            table.record_scan("start", words | {"settings": text, "shadow": False})
    [row] = _ask(command, "sql", out, "SELECT policy_today, verdict_today FROM today")
    assert row == {"policy_today": "p2", "verdict_today": "uncertain"}


def test_what_a_manifest_named_too_early_is_forgotten_when_it_is_there(
    command: Command, tmp_path: Path
) -> None:
    early, later = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    missing = {"version": "not-found", "status": "failed", "reason": "not_found", "verdict": "not_assessed"}
    out = _table(
        tmp_path,
        sample_row("late.mp4") | missing | {"scanned_at": early},
        sample_row("late.mp4") | {"scanned_at": later},
        sample_row("gone.mp4") | {"scanned_at": early},
        sample_row("gone.mp4") | missing | {"scanned_at": later},
        sample_row("never.mp4") | missing | {"scanned_at": later},
    )
    found = _ask(command, "failed", out)
    assert {Path(row["uri"]).name for row in found} == {"gone.mp4", "never.mp4"}


def test_columns_of_one_name_and_odd_dates_are_shown_as_they_are(command: Command, tmp_path: Path) -> None:
    out = _table(tmp_path, sample_row("a.mp4"))
    [row] = _ask(
        command, "sql", out, "SELECT 1 AS a, 2 AS a, 'infinity'::TIMESTAMPTZ AS t, '10000-01-01'::DATE AS d"
    )
    assert list(row.values())[:2] == [1, 2]
    assert row["t"] == row["d"] == "beyond the calendar"
    assert command("query", "sql", out, "SELECT 1 AS a, 2 AS a").out.split() == ["a", "a_1", "1", "2"]


def test_exports_hold_every_row_and_are_safe_to_open(command: Command, tmp_path: Path) -> None:
    out = _table(
        tmp_path, sample_row("a.mp4"), sample_row("b.mp4") | {"uri": '=HYPERLINK("x")', "codec": "+1"}
    )
    for name in ("rows.parquet", "rows.csv"):
        done = command("query", "export", out, tmp_path / name)
        assert done.out == f"2 rows: {tmp_path / name}\n"
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == 2
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["uri"] for row in rows} == {sample_row("a.mp4")["uri"], '\'=HYPERLINK("x")'}
    assert "'+1" in {row["codec"] for row in rows}
    assert isinstance(json.loads(rows[0]["persons"]), list)
    for name in ("s3://b/rows.csv", "file:///tmp/rows.csv"):
        elsewhere = command("query", "export", out, name)
        assert elsewhere.code == 2
        assert f"{name}: an export is a local file" in elsewhere.err
    refused = command("query", "export", out, tmp_path / "rows.xlsx")
    assert refused.code == 2
    assert not list(tmp_path.glob(".rows*"))
