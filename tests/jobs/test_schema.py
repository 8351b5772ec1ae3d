from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.types import Facts, Reason, Status
from jobs.columns import document
from jobs.schema import (
    RESULTS,
    SCANS,
    SCHEMA_VERSION,
    Handling,
    failed_row,
    plain,
    printable,
    row,
    to_arrow,
    video_id,
)
from tests.jobs.samples import CONTEXT, DAY, POLICY, planned, scored, unscored

PAGE = Path(__file__).parents[2] / "docs" / "table.md"

# Frozen: a column may be added here, never renamed, moved, retyped or taken out.
COLUMNS = """
video_id uri version version_id size_bytes modified_at content_sha256 settings_id weights_id policy_id
schema_version scan_id scan_date scanned_at attempt shadow extra
status reason message complete warnings integrity logit p_fake p_fake_max_window verdict
threshold_flag threshold_uncertain threshold_level threshold_fpr
duration_s width height fps codec container rotation detector engine dtype
windows_planned windows_scored frames_decoded frames_corrupt tracks_found tracks_scored
persons tracks segments fetch_s extract_cpu_s score_s
""".split()  # noqa: SIM905


def fields(schema: Any) -> Iterator[pa.Field]:
    for field in schema:
        yield field
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            yield from fields(field.type.value_type)


def only(made: dict[str, Any]) -> dict[str, Any]:
    [back] = to_arrow([made]).to_pylist()
    return back


def test_the_columns_are_frozen():
    assert RESULTS.names == COLUMNS
    assert SCHEMA_VERSION == 1


@pytest.mark.parametrize("schema", [RESULTS, SCANS], ids=["results", "scans"])
def test_every_column_says_what_it_means(schema):
    assert all(field.metadata[b"description"] for field in fields(schema))


def test_the_page_about_the_table_is_up_to_date():
    text = PAGE.read_text("utf-8")
    assert document(text) == text, "run: python -m jobs.schema"
    assert all(f"| `{name}` |" in text for name in [*COLUMNS, *SCANS.names, *Reason])


def test_a_page_without_its_generated_parts_is_refused():
    with pytest.raises(ValueError, match="generated: results"):
        document("# The table")


def test_a_scored_video_becomes_a_row():
    handling = Handling(fetch_s=0.1, extract_cpu_s=1.0, score_s=0.5, integrity="length", content_sha256="ab")
    extra = {"version_id": "7", "extra": {"account": "x"}}
    made = row(planned("a.mp4", attempt=2, **extra), scored(), CONTEXT, handling)
    assert list(made.keys() - set(COLUMNS)) == []
    back = only(made)
    assert abs((back.pop("scanned_at") - back["modified_at"]).days) < 10_000
    assert back == {
        "video_id": video_id("/videos/a.mp4", "v1"), "uri": "/videos/a.mp4", "version": "v1",
        "version_id": "7", "size_bytes": 1000, "modified_at": DAY, "content_sha256": "ab",
        "settings_id": "A", "weights_id": "w1", "policy_id": "p1",
        "schema_version": 1, "scan_id": "scan-1", "scan_date": DAY.date(), "attempt": 2,
        "shadow": False, "extra": [("account", "x")], "status": "scored", "reason": None, "message": None,
        "complete": False, "warnings": ["truncated"], "integrity": "length", "logit": 2.5, "p_fake": 0.95,
        "p_fake_max_window": 0.95, "verdict": "flagged", "threshold_flag": 0.9, "threshold_uncertain": 0.6,
        "threshold_level": "crop", "threshold_fpr": None, "duration_s": 2.0, "width": 640, "height": 360,
        "fps": 25.0, "codec": "h264", "container": "mp4", "rotation": 90, "detector": "yunet",
        "engine": "torch", "dtype": "fp32", "windows_planned": 2, "windows_scored": 1, "frames_decoded": 20,
        "frames_corrupt": 1, "tracks_found": 2, "tracks_scored": 1, "fetch_s": 0.1, "extract_cpu_s": 1.0,
        "score_s": 0.5,
        "persons": [{"person_id": 0, "start_s": 0.5, "end_s": 1.5, "windows": 1, "logit": 2.5, "p_fake": 0.95,
                     "verdict": "flagged"}],
        "tracks": [
            {"track_id": i, "person_id": i, "start_s": 0.5, "end_s": 1.5, "frames": 2, "face_px": 120.0,
             "quality": 0.75, "logit": logit, "p_fake": p, "reason": reason,
             "boxes": [{"t_s": t, "x": 0.25, "y": 0.25, "w": 0.5, "h": 0.125} for t in (0.5, 1.5)]}
            for i, logit, p, reason in ((0, 2.5, 0.95, None), (1, None, None, "too_small"))
        ],
        "segments": [{"start_s": 0.5, "end_s": 1.5, "person_id": 0, "p_fake": 0.95}],
    }  # fmt: skip


@pytest.mark.parametrize("status", [Status.NO_FACE, Status.NOT_SCORABLE])
def test_a_video_without_a_score_has_null_and_never_a_number(status):
    back = only(row(planned(), unscored(status), CONTEXT))
    assert (back["status"], back["verdict"], back["reason"]) == (status, "not_assessed", None)
    assert [back[c] for c in ("logit", "p_fake", "p_fake_max_window", "message")] == [None] * 4
    assert (back["persons"], back["tracks"], back["segments"]) == ([], [], [])


def test_a_failed_video_keeps_its_reason_and_the_tracks_that_were_found():
    facts = replace(scored().facts, failure=Reason.MODEL_ERROR, message="out of memory")
    back = only(row(planned(), replace(unscored(Status.FAILED), facts=facts), CONTEXT))
    assert (back["reason"], back["message"]) == ("model_error", "out of memory")
    assert (back["tracks_found"], back["tracks_scored"]) == (2, 0)
    assert [track["p_fake"] for track in back["tracks"]] == [None, None]


def test_a_failure_without_a_reason_is_our_bug():
    assert only(row(planned(), unscored(Status.FAILED), CONTEXT))["reason"] == "internal_error"


@pytest.mark.parametrize("number", [None, math.nan, math.inf, -0.1, 1.5])
def test_a_score_that_is_no_probability_never_reaches_the_table(number):
    back = only(row(planned(), replace(scored(), p_fake=number), CONTEXT))
    assert (back["status"], back["reason"], back["verdict"]) == ("failed", "model_error", "not_assessed")
    assert [back[c] for c in ("logit", "p_fake", "p_fake_max_window", "segments")] == [None, None, None, []]


def test_a_clip_rate_is_not_shown_as_a_video_rate():
    measured = replace(CONTEXT, policy=replace(POLICY, level="video"))
    assert only(row(planned(), scored(), CONTEXT))["threshold_fpr"] is None
    assert only(row(planned(), scored(), measured))["threshold_fpr"] == 0.01


@pytest.mark.parametrize(
    ("moment", "kept"),
    [
        (DAY, DAY),
        (DAY.replace(tzinfo=None), DAY),
        (np.datetime64("2026-11-25T12:00:00", "ns"), DAY),
        (np.datetime64("NaT"), None),
        (None, None),
    ],
)
def test_times_are_utc_whatever_shape_they_come_in(moment, kept):
    assert only(row(planned(modified_at=moment), scored(), CONTEXT))["modified_at"] == kept


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_any_message_can_be_kept(message):
    back = only(failed_row(planned(), Reason.CORRUPT, message, CONTEXT))
    assert len(back["message"]) <= 200
    assert back["message"].removesuffix("…") == plain(message)[: len(back["message"].removesuffix("…"))]


def test_what_deceives_on_a_terminal_is_spelled_out_when_printed_only():
    nasty = "a\u202efdp.exe\x1b[31m\n\ud800é"
    assert only(failed_row(planned(), Reason.CORRUPT, nasty, CONTEXT))["message"] == nasty[:-2] + "\\ud800é"
    assert printable(nasty) == "a\\u202efdp.exe\\x1b[31m\\n\\ud800é"


def test_facts_that_are_no_numbers_are_null():
    info = scored().facts.info
    assert info is not None
    facts = Facts(info=replace(info, fps=math.nan, duration_s=math.inf))
    back = only(row(planned(), replace(unscored(Status.NO_FACE), facts=facts), CONTEXT))
    assert (back["fps"], back["duration_s"], back["width"]) == (None, None, 640)
