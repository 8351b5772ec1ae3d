from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.types import Reason, Status
from jobs.listed import Listed
from jobs.plan import PLAN, plan
from jobs.schema import video_id
from jobs.table import ResultsTable
from tests.jobs.samples import DAY, listed, sample_row

CORRUPT, FETCH, ARCHIVED = Reason.CORRUPT, Reason.FETCH_FAILED, Reason.ARCHIVED


@pytest.fixture
def table(tmp_path):
    with ResultsTable.create(str(tmp_path / "out")).claim("scan-1") as table:
        yield table


def tries(*outcomes: Status | Reason, **more: Any) -> list[dict[str, Any]]:
    return [sample_row(outcome=outcome, attempt=i, **more) for i, outcome in enumerate(outcomes, start=1)]


def attempt(table: ResultsTable, settings_id: str = "A", **options: Any) -> int | None:
    """The attempt that a.mp4 is due for, None where it is done."""
    rows = plan([listed("a.mp4")], table, settings_id, **options).rows
    return rows["attempt"].to_pylist()[0] if len(rows) else None


def test_without_a_table_everything_is_to_do_newest_first():
    made = plan([listed("old.mp4", days_old=2), listed("new.mp4"), listed("mid.mp4", days_old=1)], None, "A")
    assert made.rows.schema.equals(PLAN)
    assert [uri.rpartition("/")[2] for uri in made.rows["uri"].to_pylist()] == [
        "new.mp4",
        "mid.mp4",
        "old.mp4",
    ]
    first = made.rows.to_pylist()[0]
    assert first == {
        "uri": "/videos/new.mp4", "size": 1000, "version": "v1", "modified_at": DAY, "storage_class": None,
        "version_id": None, "extra": None,
        "video_id": video_id("/videos/new.mp4", "v1"), "attempt": 1,
    }  # fmt: skip
    assert (made.listed, made.done, made.due, made.to_do) == (3, 0, 3, 3)
    assert (made.retried, made.changed, made.other_settings) == (0, 0, 0)


def test_nothing_listed_is_nothing_to_do(table):
    made = plan([], table, "A")
    assert (made.listed, made.to_do, made.rows.schema.equals(PLAN)) == (0, 0, True)


@pytest.mark.parametrize(
    ("outcomes", "due", "due_when_asked"),
    [
        ([], 1, 1),
        ([Status.SCORED], None, None),
        ([Status.NO_FACE], None, None),
        ([Status.NOT_SCORABLE], None, None),
        ([CORRUPT], None, 2),
        ([FETCH], 2, 2),
        ([FETCH, FETCH], 3, 3),
        ([FETCH, FETCH, FETCH], None, 4),
        ([FETCH, Status.SCORED], None, None),
        ([CORRUPT, Status.SCORED], None, None),
        ([FETCH, CORRUPT], None, 3),
        ([CORRUPT, FETCH], 3, 3),
        ([CORRUPT, FETCH, FETCH], None, 4),
        ([ARCHIVED] * 5, 6, 6),
        ([ARCHIVED] * 5 + [FETCH], 7, 7),
        ([ARCHIVED, FETCH, FETCH, FETCH], None, 5),
        ([FETCH, FETCH, FETCH, CORRUPT, Status.NO_FACE], None, None),
    ],
)
def test_what_is_done_and_what_is_due_again(table, outcomes, due, due_when_asked):
    table.append(tries(*outcomes))
    assert attempt(table) == due
    assert attempt(table, retry="failed") == due_when_asked


def test_reasons_that_may_pass_are_those_that_say_so(table):
    table.append([sample_row(f"{reason}.mp4", reason) for reason in Reason])
    due = plan([listed(f"{reason}.mp4") for reason in Reason], table, "A").rows["uri"].to_pylist()
    assert {uri[8:-4] for uri in due} == {str(reason) for reason in Reason if reason.retryable}


def test_counts_say_why_there_is_work(table):
    table.append(
        [
            sample_row("scored.mp4"),
            sample_row("corrupt.mp4", CORRUPT),
            sample_row("passing.mp4", FETCH),
            sample_row("edited.mp4", version="v0"),
            sample_row("edited twice.mp4", version="v-1"),
            sample_row("edited twice.mp4", version="v0"),
            sample_row("elsewhere.mp4", settings_id="B"),
            sample_row("failed elsewhere.mp4", CORRUPT, settings_id="B"),
            sample_row("passing elsewhere.mp4", FETCH, settings_id="B"),
            sample_row("edited elsewhere.mp4", version="v0", settings_id="B"),
            sample_row("gone.mp4"),
        ]
    )
    here = ["scored", "corrupt", "passing", "edited", "edited twice", "new"]
    there = ["elsewhere", "failed elsewhere", "passing elsewhere", "edited elsewhere"]
    made = plan([listed(f"{name}.mp4") for name in here + there], table, "A")
    assert (made.listed, made.done, made.failed, made.due) == (10, 2, 1, 8)
    assert made.retried == 1
    assert made.changed == 3  # the edited ones, under whatever settings
    assert made.other_settings == 2  # not the passing failure, which nobody would call done


def test_a_limit_takes_the_newest_and_leaves_the_rest_due(table):
    table.append([sample_row("0.mp4", settings_id="B"), sample_row("9.mp4", settings_id="B")])
    made = plan([listed(f"{i}.mp4", days_old=i) for i in range(10)], table, "A", limit=3)
    assert [uri[8:-4] for uri in made.rows["uri"].to_pylist()] == ["0", "1", "2"]
    assert (made.due, made.to_do, made.other_settings) == (10, 3, 1)
    assert plan([listed("a.mp4")], table, "A", limit=0).to_do == 0


def test_other_settings_start_from_the_first_attempt(table):
    table.append(tries(FETCH, FETCH, settings_id="B"))
    assert (attempt(table, "A"), attempt(table, "B")) == (1, 3)


def test_a_trial_run_answers_only_trial_runs_and_takes_no_number_twice(table):
    table.append(tries(Status.SCORED, shadow=True))
    assert attempt(table) == 2
    assert attempt(table, shadow=True) is None
    assert plan([listed("a.mp4")], table, "B").other_settings == 0
    table.append([sample_row(attempt=2)])
    assert attempt(table) is None
    assert attempt(table, shadow=True) is None


def test_failures_of_a_trial_run_are_no_attempts(table):
    table.append(tries(FETCH, FETCH, FETCH, shadow=True))
    assert attempt(table) == 4
    assert plan([listed("a.mp4")], table, "A").retried == 0


def test_a_video_that_is_listed_twice_is_taken_once(table):
    """Inputs may overlap, and a file may change between two of them."""
    old, new = listed("a.mp4", "v1", days_old=1), listed("a.mp4", "v2")
    made = plan([new, old, new, listed("b.mp4")], table, "A")
    assert (made.listed, sorted(made.rows["version"].to_pylist())) == (2, ["v1", "v2"])
    assert {row["uri"]: row["version"] for row in made.rows.to_pylist()} == {
        "/videos/a.mp4": "v2",
        "/videos/b.mp4": "v1",
    }


def test_a_video_without_a_time_comes_last(table):
    undated = replace(listed("undated.mp4"), modified_at=None)
    made = plan([undated, replace(undated), listed("a.mp4", days_old=20_000)], table, "A")
    assert made.rows["modified_at"].to_pylist() == [DAY - timedelta(days=20_000), None]


def test_only_what_the_handle_has_seen_counts(tmp_path):
    reader = ResultsTable.create(str(tmp_path / "out"))
    with ResultsTable.open(str(tmp_path / "out")).claim("scan-1") as writer:
        writer.append([sample_row()])
        assert attempt(reader) == 1
        assert attempt(writer) is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), unique_by=lambda pair: pair[0]))
def test_the_key_is_the_same_in_sql_and_in_python(pairs):
    made = plan([Listed(uri, 1, version, DAY) for uri, version in pairs], None, "A").rows.to_pylist()
    assert {(row["uri"], row["version"]): row["video_id"] for row in made} == {
        (uri, version): video_id(uri, version) for uri, version in pairs
    }
