"""Forty hostile names, tags and messages on the pages of the review server come out as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.page import render
from jobs.schema import video_id
from jobs.table import ResultsTable
from tests.hostile_names import HOSTILE, gets_through
from tests.jobs.review.conftest import served_table
from tests.jobs.samples import sample_row


def test_forty_of_them_are_text_wherever_they_stand(tmp_path: Path) -> None:
    rows = []
    for number, name in enumerate(HOSTILE):
        uri = f"/videos/{number}-{name}".replace("\x00", "\\0")
        rows.append(
            sample_row()
            | {
                "uri": uri,
                "video_id": video_id(uri, "v1"),
                "verdict": "flagged",
                "codec": name,
                "container": name,
                "policy_id": name,
                "extra": [(name, name)],
                "message": name,
            }
        )
    with ResultsTable.create(str(tmp_path / "out")).claim("one") as table:
        table.append(rows)
    with served_table(tmp_path / "out") as shown:
        client = shown.browser("<b>ann</b> '\"&")
        for made, name in zip(rows, HOSTILE, strict=True):
            for page in ("", "/evidence"):
                answer = client.get(f"/videos/{made['video_id']}{page}")
                assert answer.status_code == 200, f"{name!r}: {answer.status_code}"
                assert not gets_through(answer.text), f"{name!r} on {page or 'the video'}"
                assert "<b>ann" not in answer.text


@pytest.mark.parametrize("name", HOSTILE)
def test_as_the_name_of_whoever_looks_they_are_refused_or_text(name: str) -> None:
    assert not gets_through(render("review_who.html.j2", static_page=False, most=64, fixed=name))
