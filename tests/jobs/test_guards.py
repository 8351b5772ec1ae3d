"""What a newcomer found: questions that write, results among the videos, a stop that does not say so."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from detector.errors import InputError
from jobs import query
from jobs.config import ScanSettings
from jobs.explain import explain
from jobs.listing import Listing
from jobs.summary import INTERRUPTED, Summary
from jobs.table import ResultsTable
from tests.jobs.samples import rows


@pytest.fixture
def table(tmp_path: Path) -> str:
    with ResultsTable.create(str(tmp_path / "out")).claim("scan") as made:
        made.append(rows(3))
    return str(tmp_path / "out")


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{folder}/results/scan_date=2026-11-25/evil.parquet' (FORMAT parquet)",
        "ATTACH '{folder}/pwn.db' AS p",
        "INSTALL httpfs",
        "SET memory_limit = '100GB'",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/etc/*')",
    ],
)
def test_a_question_writes_nothing_and_reads_the_table_only(table: str, statement: str) -> None:
    before = sorted(Path(table).rglob("*"))
    with query.connect(table) as con, pytest.raises(InputError):
        query.sql(con, statement.format(folder=table))
    assert sorted(Path(table).rglob("*")) == before, "the statement left something behind"


def test_a_question_still_reads_the_table(table: str) -> None:
    with query.connect(table) as con:
        assert query.sql(con, "WITH n AS (SELECT count(*) AS n FROM latest) FROM n").to_pylist() == [{"n": 3}]


def test_results_among_the_videos_are_not_scanned(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    for name in ("results", "scans"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.mp4").write_bytes(b"x")
    (tmp_path / "holiday" / "results").mkdir(parents=True)
    (tmp_path / "holiday" / "results" / "b.mp4").write_bytes(b"x")
    listing = Listing([str(tmp_path)], ["*"], output=str(tmp_path))
    found = sorted(Path(listed.uri).name for listed in listing)
    assert found == ["a.mp4", "b.mp4"], "only the scan's own folders are left out"
    assert listing.skipped["folder of results"] == 2


def test_a_stopped_scan_says_so_and_how_much_is_left() -> None:
    summary = Summary(
        output="out",
        scan_id="s",
        settings_id="x",
        weights="w",
        weights_id="w",
        trained=True,
        started_at=datetime.now(UTC),
        to_do=16,
        exit_code=INTERRUPTED,
    )
    summary.status["scored"] = 4
    summary.finish(None)
    assert summary.exit_code == INTERRUPTED
    assert "stopped: 12 left" in summary.closing()


def test_explain_answers_a_typo_before_it_loads_a_network() -> None:
    with pytest.raises(InputError, match="does not exist"):
        explain("/no/such/video.mp4", ScanSettings(weights="no such weights"), crops=None, sandboxed=True)
    with pytest.raises(InputError, match="not a path"):
        explain("", ScanSettings(), crops=None, sandboxed=True)
