"""Purge and optimize: what is gone is gone from every file, and the table goes on as before."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from detector.errors import TableHeldError
from jobs.maintenance import optimize, purge
from jobs.review.decisions import Decision, Reviews
from jobs.table import ResultsTable
from tests.jobs.conftest import Command
from tests.jobs.samples import DAY, sample_row
from tests.scans import read_rows

FILE = 'somebody\'s "ü".mp4'
NAME = str(sample_row(FILE)["uri"])


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Three days, two commits each, one name in all of them, in the inputs of a scan and in the summary."""
    out = tmp_path / "out"
    with ResultsTable.create(str(out)).claim("one") as table:
        for day in range(3):
            when = {"scan_date": (DAY - timedelta(days=day)).date(), "scanned_at": DAY - timedelta(days=day)}
            table.append(
                [sample_row(FILE) | when | {"settings_id": f"{day:012}"}, sample_row(f"{day}a.mp4") | when]
            )
            table.append([sample_row(f"{day}b.mp4") | when])
        settings = json.dumps({"all": {"inputs": [NAME]}})
        table.record_scan("start", {"started_at": DAY, "inputs": [NAME, "/other"], "settings": settings})
    for name, note in ((FILE, "a note"), ("0a.mp4", "another")):
        Reviews(str(out)).add(sample_row(name), "ann", Decision.FAKE, note=note)
    (out / "summary.json").write_text(json.dumps({"examples": [NAME], "done": 9}))
    return out


def _files_with(folder: Path, name: str) -> list[str]:
    """Files below a folder in which a name is found: as bytes, and in the decoded rows of Parquet."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        texts = [path.read_bytes().decode("utf-8", "replace")]
        if path.suffix == ".parquet":
            texts.append(repr(pq.read_table(path).to_pylist()))
            texts.append(repr(pq.read_metadata(path).to_dict()))
        spellings = {name, json.dumps(name)[1:-1], repr(name)[1:-1]}
        if any(spelled in text for text in texts for spelled in spellings):
            found.append(str(path.relative_to(folder)))
    return found


def test_a_purged_name_is_in_no_file_of_the_output(output: Path) -> None:
    assert len(_files_with(output, NAME)) >= 5, "the search finds it before"
    counted = purge(str(output), [NAME], None, dry_run=True)
    assert (counted.rows, counted.days, counted.scans, counted.reviews, counted.summary) == (3, 3, 1, 1, True)
    assert len(_files_with(output, NAME)) >= 5, "a dry run removes nothing"

    receipt = purge(str(output), [NAME], None, dry_run=False)
    assert (receipt.rows, receipt.days, receipt.scans, receipt.reviews, receipt.summary) == (3, 3, 1, 1, True)
    assert _files_with(output, NAME) == []
    assert _files_with(output, "a note") == [], "what somebody wrote about it goes as well"
    assert NAME not in receipt.in_words()
    assert sorted(Path(row["uri"]).name for row in read_rows(output)) == sorted(
        f"{day}{letter}.mp4" for day in range(3) for letter in "ab"
    )
    scans = DeltaTable(str(output / "scans")).to_pyarrow_table().to_pylist()
    assert scans[0]["inputs"] == ["(purged)", "/other"]
    assert [row["note"] for row in Reviews(str(output)).rows()] == ["another"]


@pytest.mark.parametrize("word", ["", "null", "/other/deeper", "done", "1a.mp4"])
def test_a_purge_of_what_is_no_video_changes_nothing(command: Command, output: Path, word: str) -> None:
    """Once, names were replaced as text: an unset variable put "(purged)" between all letters of the JSON."""
    before = (_scans(output), (output / "summary.json").read_text(), read_rows(output))
    done = command("table", "purge", output, "--uri", word, "--yes")
    assert done.code == (0 if word else 2)
    assert (_scans(output), (output / "summary.json").read_text(), read_rows(output)) == before


@pytest.mark.parametrize(
    "spelled", ["videos/{}", "./{}", "../videos/{}", "file:///videos/{}", "/videos/x/../{}"]
)
def test_names_go_however_the_scan_was_given_them(tmp_path: Path, spelled: str) -> None:
    out = tmp_path / "out"
    given = ["kept.mp4", spelled.format("a.mp4")]
    with ResultsTable.create(str(out)).claim("one") as table:
        table.append([sample_row("a.mp4"), sample_row("kept.mp4")])
        settings = json.dumps({"all": {"inputs": given}, "scored_by": {"name": "a.mp4x"}})
        table.record_scan("start", {"started_at": DAY, "inputs": given, "settings": settings})
    assert purge(str(out), ["/videos/a.mp4"], None, dry_run=False).scans == 1
    [scan] = _scans(out)
    assert scan["inputs"] == ["kept.mp4", "(purged)"]
    assert json.loads(scan["settings"]) == {
        "all": {"inputs": ["kept.mp4", "(purged)"]},
        "scored_by": {"name": "a.mp4x"},
    }


def test_the_names_of_what_is_old_go_with_its_last_row(output: Path) -> None:
    old = DAY - timedelta(days=1, hours=1)
    gone, kept = (str(sample_row(name)["uri"]) for name in ("2a.mp4", "1a.mp4"))
    with ResultsTable.open(str(output)).claim("two") as table:
        table.record_scan("start", {"started_at": DAY, "inputs": [gone, kept, NAME]})
    (output / "summary.json").write_text(json.dumps({"examples": {"not_video": gone, "corrupt": kept}}))
    receipt = purge(str(output), [], old, dry_run=False)
    assert (receipt.rows, receipt.scans, receipt.reviews, receipt.summary) == (3, 1, 0, True)
    assert _scans(output)[-1]["inputs"] == ["(purged)", kept, NAME], "NAME has rows of later days"
    assert _files_with(output, gone) == []


def test_scans_keep_their_columns_and_can_be_read_at_any_moment_of_a_purge(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = DeltaTable(str(output / "scans"))
    row = scans.to_pyarrow_table().append_column("added_later", pa.array([7]))
    write_deltalake(scans, row, mode="append", schema_mode="merge")
    for step in ("vacuum", "create_checkpoint", "cleanup_metadata"):
        with monkeypatch.context() as stopped:
            stopped.setattr(DeltaTable, step, _StoppedError.now)
            with pytest.raises(_StoppedError):
                purge(str(output), [NAME], None, dry_run=False)
        assert len(_scans(output)) == 2
    purge(str(output), [NAME], None, dry_run=False)
    assert {scan["added_later"] for scan in _scans(output)} == {None, 7}
    assert _files_with(output, NAME) == []


def test_a_purge_whose_claim_was_taken_stops(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten: list[object] = []
    other = ResultsTable.open(str(output))

    def write(*arguments: Any, **more: Any) -> None:
        write_deltalake(*arguments, **more)
        if not rewritten:
            other.claim("somebody else", take_over=True)
        rewritten.append(arguments)

    monkeypatch.setattr("jobs.maintenance.write_deltalake", write)
    with pytest.raises(TableHeldError, match="somebody else"):
        purge(str(output), [NAME], None, dry_run=False)
    other.release()
    assert len(rewritten) == 1, "the days that were left belong to the other"


class _StoppedError(Exception):
    @classmethod
    def now(cls, *_: object, **__: object) -> None:
        raise cls


def _scans(output: Path) -> list[dict[str, Any]]:
    rows = DeltaTable(str(output / "scans")).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["at"])


def test_the_table_goes_on_after_a_purge(output: Path) -> None:
    purge(str(output), [NAME], None, dry_run=False)
    with ResultsTable.open(str(output)).claim("two") as table:
        table.append([sample_row("new.mp4")])
        table.record_scan("end", {"started_at": DAY})
    rows = read_rows(output)
    assert len(rows) == 7
    delta = DeltaTable(str(output / "results"))
    assert delta.to_pyarrow_table().num_rows == 7
    assert delta.metadata().configuration["delta.appendOnly"] == "true"
    schemas = {str(pq.read_schema(path)) for path in output.glob("results/scan_date=*/*.parquet")}
    assert len(schemas) == 1, "rewritten files have the types of all others"


def test_what_is_old_goes(command: Command, output: Path) -> None:
    moment = (DAY - timedelta(days=1, hours=1)).isoformat()
    done = command("table", "purge", output, "--older-than", moment)
    assert "3 rows would be removed" in done.out
    assert command("table", "purge", output, "--older-than", moment, "--yes").code == 0
    assert {row["scanned_at"] for row in read_rows(output)} == {DAY, DAY - timedelta(days=1)}
    assert command("table", "purge", output).code == 2
    assert command("table", "purge", output, "--older-than", "soon").code == 2


def test_optimize_leaves_every_row_in_fewer_files(command: Command, output: Path) -> None:
    before = read_rows(output)
    assert "3 days would be rewritten, 6 files now" in command("table", "optimize", output).out
    receipt = optimize(str(output), dry_run=False)
    assert (receipt.files_before, receipt.files_after) == (6, 3)
    assert read_rows(output) == before
    assert len(list(output.glob("results/scan_date=*/*.parquet*"))) == 3


def test_a_table_that_a_scan_holds_is_not_rewritten(output: Path) -> None:
    with ResultsTable.open(str(output)).claim("scan"):
        with pytest.raises(TableHeldError):
            purge(str(output), [NAME], None, dry_run=False)
        with pytest.raises(TableHeldError):
            optimize(str(output), dry_run=False)
