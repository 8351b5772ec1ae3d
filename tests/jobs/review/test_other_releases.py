"""Rows that another release wrote, or that lack what is always there today, are shown as far as they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.review.queue import LEASE_S
from jobs.table import ResultsTable
from tests.jobs.review.conftest import Shown, row_of, served_table

TURNED = "\u202egnp"


def lacking(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """A row that lacks something, each number something else."""
    track, person = row["tracks"][0], row["persons"][0]
    box = track["boxes"][0]
    changes: list[dict[str, Any]] = [
        {"verdict": "doubtful", "status": "guessed", "complete": None, "warnings": None},
        {"verdict": "doubtful", "policy_id": TURNED, "threshold_level": None},
        {"threshold_flag": None, "tracks": None, "persons": None, "segments": None},
        {"threshold_uncertain": None, "threshold_fpr": None, "warnings": [None, TURNED]},
        {"tracks": [None, track | {"boxes": None}, track | {"boxes": [None, box | {"x": None}]}]},
        {"tracks": [track | {"start_s": None}, track | {"end_s": None}, track | {"person_id": None}]},
        {"tracks": [track | {"p_fake": None, "logit": None, "person_id": 3, "reason": TURNED}]},
        {"persons": [None, person | {"p_fake": None, "logit": None}, person | {"person_id": None}]},
        {"segments": [None, {"start_s": None, "end_s": 1.0, "person_id": None, "p_fake": None}]},
        {"reason": TURNED, "message": "later\n" + TURNED, "width": None, "fps": None, "duration_s": None},
    ]
    return row | changes[number]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("others")
    rows = []
    for number in range(10):
        path: Path = root / f"{number}.mp4"
        path.write_bytes(b"video")
        rows.append(lacking(number, row_of(path, 0.99 - number / 1000, "flagged")))
    with ResultsTable.create(str(root / "out")).claim("one") as table:
        table.append(rows)
    with served_table(root / "out", rows) as shown:
        yield shown


@pytest.mark.parametrize("number", range(10))
def test_each_can_be_looked_at_and_left(others: Shown, number: int) -> None:
    ann = others.browser()
    page = ann.get(others.page(number))
    assert page.status_code == 200, page.text[-500:]
    assert f"{number}.mp4" in page.text
    assert "\u202e" not in page.text, "it turns the text around"
    assert ann.get(f"{others.page(number)}/next").status_code == 303
    assert ann.post(f"{others.page(number)}/skip").status_code == 303


def test_what_is_known_of_them_is_shown(others: Shown) -> None:
    ann = others.browser()
    pages = {number: ann.get(others.page(number)).text for number in range(10)}
    assert "\\u202egnp" in pages[3], "a remark"
    assert "not scored (\\u202egnp)" in pages[6]
    assert "person 0: 0.9" in pages[4]
    assert "person 0: not scored (too_small)" not in pages[7]
    assert "person 0: not scored (?)" in pages[7]
    assert "\\u202egnp: later\\n\\u202egnp" in pages[9]


def test_the_head_of_the_queue_can_be_opened_and_decided(others: Shown) -> None:
    others.seconds[0] += LEASE_S  # what was opened before is free again
    ann = others.browser("bob")
    head = ann.get("/").headers["location"]
    assert ann.get(head).status_code == 200
    number = [others.page(number) for number in range(10)].index(head)
    assert others.decide(ann, number).status_code == 303
    assert [row["video_id"] for row in others.written()] == [others.rows[number]["video_id"]]
