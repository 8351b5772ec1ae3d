from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta
from itertools import permutations
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from detector.errors import InputError, StorageError
from detector.types import Reason, Status
from jobs.query import connect, failed, flagged, settings, sql, summary, view
from jobs.schema import RESULTS, to_arrow
from jobs.table import ResultsTable
from tests.conftest import Scanned
from tests.jobs.samples import DAY, sample_row

FETCH = Reason.FETCH_FAILED


@pytest.fixture
def ask(tmp_path):
    """Rows in, a connection over their table out; one commit per row, in the order given."""
    opened = []

    def ask(*rows):
        output = str(tmp_path / f"out{len(opened)}")
        with ResultsTable.create(output).claim("scan-1") as table:
            for row in rows:
                table.append([row])
        opened.append(connect(output))
        return opened[-1]

    yield ask
    for connection in opened:
        connection.close()


def latest(connection, columns="settings_id, attempt, status"):
    return [tuple(row.values()) for row in sql(connection, f"SELECT {columns} FROM latest").to_pylist()]  # noqa: S608


def test_results_has_the_columns_of_the_schema_in_order_and_every_row(ask):
    rows = [sample_row(f"{i}.mp4") for i in range(3)]
    answer = sql(ask(*rows), "SELECT * FROM results ORDER BY uri")
    assert answer.column_names == RESULTS.names
    assert answer.to_pylist() == to_arrow(rows).to_pylist()


def test_latest_has_the_columns_of_results(ask):
    assert sql(ask(sample_row()), "FROM latest").column_names == RESULTS.names


def test_an_empty_table_answers_everything_with_nothing(ask):
    connection = ask()
    for answer in (summary(connection), settings(connection), flagged(connection), failed(connection)):
        assert answer.num_rows == 0
    assert sql(connection, "FROM latest").num_rows == 0


def test_the_last_attempt_counts(ask):
    rows = [sample_row(outcome=FETCH), sample_row(attempt=2, minute=1)]
    for order in permutations(rows):
        assert latest(ask(*order)) == [("A", 2, "scored")]


def test_the_last_attempt_counts_even_where_a_clock_went_back(ask):
    assert latest(ask(sample_row(outcome=FETCH, minute=9), sample_row(attempt=2))) == [("A", 2, "scored")]


def test_the_settings_used_last_on_a_video_count(ask):
    rows = [
        sample_row(settings_id="B", outcome=FETCH, minute=1),
        sample_row(settings_id="B", attempt=2, minute=2),
        sample_row(settings_id="A", outcome=Status.NO_FACE, minute=3),
    ]
    for order in permutations(rows):
        assert latest(ask(*order)) == [("A", 1, "no_face")]


def test_going_back_to_the_first_settings_counts_as_the_last(ask):
    rows = [
        sample_row(settings_id="A", outcome=FETCH, minute=1),
        sample_row(settings_id="B", minute=2),
        sample_row(settings_id="A", outcome=FETCH, attempt=2, minute=3),
    ]
    assert latest(ask(*rows)) == [("A", 2, "failed")]


def test_settings_of_the_same_instant_give_one_row_all_the_same(ask):
    assert len(latest(ask(sample_row(settings_id="A"), sample_row(settings_id="B")))) == 1


def test_trial_runs_are_left_out(ask):
    rows = [
        sample_row(minute=1),
        sample_row(settings_id="B", shadow=True, minute=2),
        sample_row(attempt=2, shadow=True, minute=3),
        sample_row("only-tried.mp4", shadow=True),
    ]
    assert latest(ask(*rows), "uri, settings_id, attempt") == [("/videos/a.mp4", "A", 1)]


def test_every_version_has_its_row(ask):
    rows = [sample_row(version="v1"), sample_row(version="v2", outcome=Status.NO_FACE, minute=1)]
    assert sorted(latest(ask(*rows), "version, status")) == [("v1", "scored"), ("v2", "no_face")]


def test_the_summary_counts_videos_by_outcome_with_an_example(ask):
    rows = [
        sample_row("a.mp4"),
        sample_row("b.mp4"),
        sample_row("c.mp4", Status.NO_FACE),
        sample_row("d.mp4", Reason.CORRUPT),
        sample_row("e.mp4", FETCH),
        sample_row("e.mp4", Reason.CORRUPT, attempt=2, minute=1),
        sample_row("f.mp4", FETCH),
    ]
    assert summary(ask(*rows)).to_pylist() == [
        {"status": "scored", "verdict": "flagged", "reason": None, "videos": 2,
         "verdict_changed": 0, "example": "/videos/a.mp4"},
        {"status": "no_face", "verdict": "not_assessed", "reason": None, "videos": 1,
         "verdict_changed": 0, "example": "/videos/c.mp4"},
        {"status": "failed", "verdict": "not_assessed", "reason": "corrupt", "videos": 2,
         "verdict_changed": 0, "example": "/videos/d.mp4"},
        {"status": "failed", "verdict": "not_assessed", "reason": "fetch_failed", "videos": 1,
         "verdict_changed": 0, "example": "/videos/f.mp4"},
    ]  # fmt: skip


def test_mixed_settings_show(ask):
    rows = [sample_row("a.mp4"), sample_row("b.mp4"), sample_row("b.mp4", settings_id="B", minute=5)]
    answer = settings(ask(*rows)).to_pylist()
    assert [(row["settings_id"], row["videos"], row["until"]) for row in answer] == [
        ("B", 1, DAY + timedelta(minutes=5)),
        ("A", 1, DAY),
    ]


def test_flagged_videos_come_highest_first_with_where_to_look(ask):
    low = sample_row("low.mp4") | {"p_fake": 0.91}
    clean = sample_row("clean.mp4") | {"p_fake": 0.1, "verdict": "not_flagged"}
    connection = ask(low, sample_row("high.mp4"), clean)
    answer = flagged(connection).to_pylist()
    assert [row["uri"] for row in answer] == ["/videos/high.mp4", "/videos/low.mp4"]
    assert (answer[0]["persons"], answer[0]["segments"]) == (1, [{"start_s": 0.5, "end_s": 1.5}])
    assert flagged(connection, limit=1).num_rows == 1


def test_failed_videos_come_with_reason_and_prospect(ask):
    rows = [sample_row("a.mp4", FETCH), *(sample_row(f"{i}.mp4", Reason.CORRUPT) for i in range(2))]
    connection = ask(*rows, sample_row("ok.mp4"))
    answer = failed(connection).to_pylist()
    assert [(row["uri"], row["reason"], row["retryable"]) for row in answer] == [
        ("/videos/0.mp4", "corrupt", False),
        ("/videos/1.mp4", "corrupt", False),
        ("/videos/a.mp4", "fetch_failed", True),
    ]
    assert answer[0]["message"] == Reason.CORRUPT.meaning
    assert failed(connection, limit=2).num_rows == 2


def test_any_question_may_be_asked(ask):
    connection = ask(sample_row())
    assert sql(
        connection, "SELECT count(*) AS n FROM latest WHERE scan_date = DATE '2026-11-25'"
    ).to_pylist() == [{"n": 1}]
    assert sql(connection, "SELECT scanned_at FROM latest").to_pylist()[0]["scanned_at"] == DAY


@pytest.mark.parametrize("text", ["SELEC 1", "SELECT nothing FROM latest", "FROM nowhere", "SELECT 'a'::INT"])
def test_a_wrong_statement_is_the_users_error(ask, text):
    connection = ask()
    with pytest.raises(InputError) as caught:
        sql(connection, text)
    assert "docs/table.md" in caught.value.hint


def test_a_file_that_is_gone_is_the_stores_error(ask, tmp_path):
    connection = ask(sample_row())
    for file in tmp_path.glob("out0/results/scan_date=*/*.parquet"):
        file.unlink()
    with pytest.raises(StorageError, match="parquet"):
        sql(connection, "FROM latest")


def test_nothing_is_downloaded(ask):
    answer = sql(
        ask(), "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%extensions'"
    ).to_pylist()
    assert {row["name"]: row["value"] for row in answer} == {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }


def test_only_a_scanned_folder_can_be_asked(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        connect(str(tmp_path))


def test_a_table_of_another_release_is_read(tmp_path):
    """An older one lacks columns, also nested ones; a newer one has more."""
    output = tmp_path / "out"
    (output / "results").mkdir(parents=True)
    rows = to_arrow([sample_row()])
    older = rows.drop_columns(["fetch_s", "segments"])
    write_deltalake(str(output / "results"), older, partition_by=["scan_date"])
    newer = to_arrow([sample_row("b.mp4")]).append_column("shiny", pa.array([7]))
    write_deltalake(str(output / "results"), newer, mode="append", schema_mode="merge")
    with connect(str(output)) as connection:
        answer = sql(
            connection, "SELECT uri, fetch_s, len(segments) AS segments, shiny FROM latest ORDER BY uri"
        )
        assert answer.to_pylist() == [
            {"uri": "/videos/a.mp4", "fetch_s": None, "segments": None, "shiny": None},
            {"uri": "/videos/b.mp4", "fetch_s": 0.1, "segments": 1, "shiny": 7},
        ]
        assert sql(connection, "FROM results").column_names == [*RESULTS.names, "shiny"]
    (tmp_path / "only-older" / "results").mkdir(parents=True)
    write_deltalake(str(tmp_path / "only-older" / "results"), older, partition_by=["scan_date"])
    with connect(str(tmp_path / "only-older")) as connection:
        assert sql(connection, "SELECT fetch_s FROM latest").to_pylist() == [{"fetch_s": None}]


def test_the_shipped_view_is_plain_sql_over_results():
    with duckdb.connect() as connection:
        connection.register("results", to_arrow([sample_row()]))
        connection.execute(view("latest"))
        assert len(connection.execute("FROM latest").fetchall()) == 1


def test_asking_needs_neither_torch_nor_ray():
    code = "import sys, jobs.query; sys.exit(bool({'torch', 'ray', 'cv2', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_delta_itself_agrees(tmp_path):
    with ResultsTable.create(str(tmp_path / "out")).claim("scan-1") as table:
        table.append([sample_row(), sample_row("b.mp4", shadow=True)])
    with connect(str(tmp_path / "out")) as connection:
        assert (
            sql(connection, "FROM results").num_rows == DeltaTable(str(tmp_path / "out" / "results")).count()
        )


def test_the_questions_of_the_page_about_operations_have_answers(scanned: Scanned):
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    questions = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(questions) == 6
    with connect(str(scanned.output)) as connection:
        flagged_n, accounts, prefixes, reasons, settings_n, persons = [
            sql(connection, question).to_pylist() for question in questions
        ]
        scored = sql(connection, "SELECT count(*) AS n FROM today WHERE verdict_today = 'flagged'")
    assert len(flagged_n) == scored["n"].to_pylist()[0]
    assert [row["account"] for row in accounts] == [None]
    assert [row["videos"] for row in prefixes] == [accounts[0]["videos"]]
    assert {row["reason"] for row in reasons} >= {"not_video", "empty_file"}
    assert len(settings_n) == 1
    assert len(persons) == 2
