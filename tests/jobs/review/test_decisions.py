"""Decisions are rows that are only ever added, by several at once, and labels for what takes labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from detector.training.data import read_samples
from jobs.maintenance import purge
from jobs.review.decisions import NOTE_CHARS, Decision, Reviews, shown_from, standing
from jobs.table import ResultsTable
from tests.jobs.conftest import Command
from tests.jobs.samples import sample_row


@pytest.fixture
def output(tmp_path: Path) -> str:
    """A table of three videos."""
    out = tmp_path / "out put"
    with ResultsTable.create(str(out)).claim("one") as table:
        table.append([sample_row(f"{name}.mp4") for name in "abc"])
    return str(out)


def video(name: str) -> Mapping[str, Any]:
    return sample_row(f"{name}.mp4")


def test_the_newest_decision_that_was_not_taken_back_stands(output: str) -> None:
    reviews = Reviews(output)
    assert reviews.rows() == []
    first = reviews.add(video("a"), "ann", Decision.FAKE, note="n" * 3000, shown=shown_from('{"grey":false}'))
    second = reviews.add(video("a"), "bob", Decision.REAL)
    key = ("/videos/a.mp4", "v1")
    assert standing(reviews.rows())[key]["review_id"] == second
    reviews.add(video("a"), "bob", Decision.UNDONE, undoes=second)
    [row] = standing(reviews.rows()).values()
    assert (row["review_id"], row["who"], row["decision"], len(row["note"])) == (
        first, "ann", "fake", NOTE_CHARS,
    )  # fmt: skip
    assert json.loads(row["shown"])["grey"] is False
    assert (row["weights_id"], row["settings_id"], row["policy_id"], row["p_fake"]) == ("w1", "A", "p1", 0.95)
    reviews.add(video("a"), "bob", Decision.UNDONE, undoes=first)
    assert standing(reviews.rows()) == {}
    assert len(reviews.rows()) == 4, "nothing is taken out of the table"


@pytest.mark.parametrize(
    "text", ["[]", "nothing", '{"other": 1}', '{"played_s": -1}', '{"played_s": 1e999}', '"' + "x" * 5000]
)
def test_what_was_shown_is_checked(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        shown_from(text)


def test_decisions_of_many_at_once_all_stand(output: str) -> None:
    """Each thread is a server of its own; one of them is the first that ever writes."""

    def decide(who: int) -> None:
        for number in range(5):
            Reviews(output).add(video("a"), f"{who}-{number}", Decision.UNSURE)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(decide, range(6)))
    found = {row["who"] for row in Reviews(output).rows()}
    assert found == {f"{who}-{number}" for who in range(6) for number in range(5)}


def test_a_purge_while_people_decide_loses_no_other_row(output: str) -> None:
    reviews = Reviews(output)
    reviews.add(video("b"), "before", Decision.FAKE)

    def decide() -> None:
        for number in range(25):
            Reviews(output).add(video("a"), f"{number}", Decision.UNSURE)

    receipts = []
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(decide)
        while not others.done():
            receipts.append(purge(output, ["/videos/b.mp4"], None, dry_run=False))
            reviews.add(video("b"), "again", Decision.FAKE)
    others.result()
    receipts.append(purge(output, ["/videos/b.mp4"], None, dry_run=False))
    assert all(receipt.reviews for receipt in receipts), "each purge had something to remove"
    assert [row["who"] for row in reviews.rows()] == [f"{number}" for number in range(25)]


def test_export_writes_all_rows_or_labels(command: Command, output: str, tmp_path: Path) -> None:
    reviews = Reviews(output)
    for name, decision in {"a": Decision.FAKE, "b": Decision.REAL, "c": Decision.UNSURE}.items():
        reviews.add(video(name), "=cmd|' /C calc'!A0", decision, note='a, "b"\nc')
    done = command("review", "export", output, "-o", tmp_path / "all.parquet")
    assert done.code == 0, done.err
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["decision"] for row in rows] == ["fake", "real", "unsure"]
    assert command("review", "export", output, "-o", tmp_path / "all.csv").code == 0
    with (tmp_path / "all.csv").open(newline="") as file:
        [row, *_] = csv.DictReader(file)
    assert row["who"].startswith("'="), "a spreadsheet would run it"
    assert command("review", "export", output, "--labels", "-o", tmp_path / "l.csv").code == 0
    samples = read_samples(tmp_path / "l.csv")
    assert [(s.uri, s.label, s.group) for s in samples] == [
        ("/videos/a.mp4", 1, "/videos/a.mp4"),
        ("/videos/b.mp4", 0, "/videos/b.mp4"),
    ]
    assert command("review", "export", output, "--labels", "-o", tmp_path / "l.parquet").code == 2
    assert command("review", "export", tmp_path / "nothing", "-o", tmp_path / "x.csv").code == 2


def test_a_decision_on_what_the_video_was_before_is_no_label(
    command: Command, output: str, tmp_path: Path
) -> None:
    Reviews(output).add(video("a"), "ann", Decision.FAKE)
    with ResultsTable.open(output).claim("two") as table:
        table.append([sample_row("a.mp4", version="v2", minute=5)])
    command("review", "export", output, "--labels", "-o", tmp_path / "l.csv")
    assert read_samples(tmp_path / "l.csv") == []


def test_the_log_names_nobody(output: str) -> None:
    Reviews(output).add(video("a"), "ann", Decision.FAKE, note="a note")
    log = "".join(path.read_text() for path in Path(output, "reviews", "_delta_log").glob("*.json"))
    assert "a.mp4" not in log
    assert '"ann"' not in log
    assert "a note" not in log
    assert DeltaTable(f"{output}/reviews").metadata().configuration["delta.appendOnly"] == "true"
