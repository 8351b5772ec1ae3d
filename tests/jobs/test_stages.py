"""Both stages are total: one row out per row in, whatever happens inside."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from detector.types import Clips, ClipScore, ExtractOptions, Facts, Reason
from detector.weights import WeightsFile, read
from jobs import stages
from jobs.listing import Listing
from jobs.plan import PLAN
from jobs.schema import video_id
from jobs.stages import EXTRACTED, SCORED, Extract, Score, Scoring
from tests.canned import Canned
from tests.film import moving_face
from tests.jobs.samples import CONTEXT
from tests.media import write_video

MAX_BYTES = 1_000_000


def planned(*paths: Path) -> pa.Table:
    rows = [
        {
            "uri": listed.uri,
            "size": listed.size,
            "version": listed.version,
            "modified_at": listed.modified_at,
            "video_id": video_id(listed.uri, listed.version),
            "attempt": 1,
        }
        for listed in Listing([str(path) for path in paths])
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def names(count: int) -> pa.Table:
    rows = [
        {"uri": f"/v/{i}.mp4", "version": "1", "size": 1, "video_id": str(i), "attempt": 1}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


@pytest.fixture(scope="module")
def extract() -> Iterator[Extract]:
    made = Extract(ExtractOptions(), MAX_BYTES, MAX_BYTES)
    yield made
    made.close()


@pytest.fixture(scope="module")
def weights(seeded: Path) -> WeightsFile:
    return read(seeded)


@pytest.fixture(scope="module")
def score(weights: WeightsFile) -> Score:
    return Score(Scoring(weights, weights.header.policy, "cpu", "float32", CONTEXT))


@pytest.fixture(scope="module")
def clips(weights: WeightsFile) -> pa.Table:
    """Ten extracted videos of one clip each."""
    options = ExtractOptions(crop=weights.header.crop)
    return Canned(options, MAX_BYTES, MAX_BYTES)(names(10))


def facts(extracted: pa.Table) -> list[Facts]:
    return [msgspec.json.decode(text, type=Facts) for text in extracted["facts"].to_pylist()]


def with_facts(extracted: pa.Table, index: int, content: Facts) -> pa.Table:
    rows = extracted.to_pylist()
    rows[index] |= {
        "facts": msgspec.json.encode(content),
        "clips": b"",
        "clip_size": [0, 0, 0, 0, 3],
        "clip_frames": [],
    }
    return pa.Table.from_pylist(rows, schema=EXTRACTED)


def test_a_video_comes_out_with_its_plan_its_facts_and_its_clips(tmp_path: Path, extract: Extract) -> None:
    path = write_video(tmp_path / "a.mp4", moving_face(30, (320, 240), face_px=90))
    plan = planned(path)
    out = extract(plan)
    assert out.schema == EXTRACTED
    assert out.select(PLAN.names) == plan
    (row,) = out.to_pylist()
    clips, frames, size, _, colours = row["clip_size"]
    assert clips == len(row["clip_frames"]) == len(facts(out)[0].tracks) > 0
    assert len(row["clips"]) == clips * frames * size * size * colours
    assert (size, colours) == (112, 3)
    assert row["extract_cpu_s"] > 0
    assert row["fetch_s"] >= 0


def test_a_file_that_cannot_be_read_is_a_row_with_its_reason(tmp_path: Path, extract: Extract) -> None:
    paths = [tmp_path / name for name in ("deleted.mp4", "changed.mp4", "large.mp4", "empty.mp4")]
    for path in paths:
        path.write_bytes(b"")
    os.truncate(tmp_path / "large.mp4", MAX_BYTES + 1)
    plan = planned(*paths)
    (tmp_path / "deleted.mp4").unlink()
    (tmp_path / "changed.mp4").write_bytes(b"other content")
    assert [f.failure for f in facts(extract(plan))] == [
        Reason.NOT_FOUND,
        Reason.CHANGED_DURING_READ,
        Reason.TOO_LARGE,
        Reason.EMPTY_FILE,
    ]


def test_a_bug_while_extracting_becomes_the_row_of_its_video(
    tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("stream")

    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(stages, "extract", broken)
    (found,) = facts(extract(planned(tmp_path / "a.mp4")))
    assert (found.failure, found.message) == (Reason.INTERNAL_ERROR, "KeyError: 'stream'")


def test_a_helper_that_dies_while_it_starts_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    helpers: list[int] = []

    def killed_once(*arguments: Any, **named: Any) -> Any:
        run = popen(*arguments, **named)
        helpers.append(run.pid)
        if len(helpers) == 1:
            os.kill(run.pid, signal.SIGKILL)
        return run

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", killed_once)
    made = Extract(ExtractOptions(), MAX_BYTES, MAX_BYTES)
    (found,) = facts(made(planned(tmp_path / "a.mp4")))
    made.close()
    assert (found.failure, len(helpers)) == (Reason.EMPTY_FILE, 2)


def test_rows_of_the_table_come_out_and_the_clips_end_here(score: Score, clips: pa.Table) -> None:
    out = score(clips)
    assert out.schema == SCORED
    assert out["uri"] == clips["uri"]
    assert set(out["status"].to_pylist()) == {"scored"}
    assert set(out["dtype"].to_pylist()) == {"float32"}
    assert len(set(out["logit"].to_pylist())) == 10, "different videos have different scores"
    assert all(seconds > 0 for seconds in out["score_s"].to_pylist())


def test_a_video_scores_alone_as_it_does_among_others(score: Score, clips: pa.Table) -> None:
    together = score(clips)["logit"].to_pylist()
    alone = [score(clips.slice(i, 1))["logit"][0].as_py() for i in range(len(clips))]
    assert alone == pytest.approx(together, abs=1e-5)
    spread = max(together) - min(together)
    assert spread > 1e-4, "else the comparison would say nothing"


def test_a_failed_video_keeps_its_reason_and_touches_no_neighbour(score: Score, clips: pa.Table) -> None:
    mixed = with_facts(clips, 3, Facts(failure=Reason.CORRUPT, message="no frame in time"))
    out = score(mixed).to_pylist()
    assert (out[3]["status"], out[3]["reason"], out[3]["message"]) == (
        "failed",
        "corrupt",
        "no frame in time",
    )
    expected = score(clips)["logit"].to_pylist()
    assert [row["logit"] for i, row in enumerate(out) if i != 3] == pytest.approx(
        [logit for i, logit in enumerate(expected) if i != 3], abs=1e-5
    )


def test_a_batch_without_any_clip_is_decided_too(score: Score, clips: pa.Table) -> None:
    nobody = with_facts(clips.slice(0, 1), 0, Facts(windows_planned=2, frames_decoded=20))
    assert score(nobody)["status"].to_pylist() == ["no_face"]
    assert len(score(clips.slice(0, 0))) == 0


def test_a_network_that_raises_fails_the_batch_and_lives_on(
    score: Score, clips: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    mixed = with_facts(clips, 0, Facts(failure=Reason.CORRUPT, message="no frame in time"))
    with monkeypatch.context() as patch:
        patch.setattr(score._model, "score", broken)
        out = score(mixed).to_pylist()
    assert [row["reason"] for row in out] == ["corrupt", *["model_error"] * 9]
    assert "device-side assert" in out[1]["message"]
    assert set(score(clips)["status"].to_pylist()) == {"scored"}


def test_clips_that_the_network_cannot_score_cost_their_neighbours_nothing(
    score: Score, clips: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clips.to_pylist()
    rows[3] |= {"clips": b"\xff" * len(rows[3]["clips"])}
    original = score._model.score

    def allergic(batch: Clips) -> list[ClipScore]:
        if len(batch) and (batch.pixels == 255).all(axis=(1, 2, 3, 4)).any():
            raise RuntimeError("CUDA error: out of memory")
        return original(batch)

    with monkeypatch.context() as patch:
        patch.setattr(score._model, "score", allergic)
        out = score(pa.Table.from_pylist(rows, schema=EXTRACTED)).to_pylist()
    assert [row["reason"] for row in out] == [None] * 3 + ["model_error"] + [None] * 6
    good = [row["logit"] for row in out if row["logit"] is not None]
    expected = [x for i, x in enumerate(score(clips)["logit"].to_pylist()) if i != 3]
    assert good == pytest.approx(expected, abs=1e-4)


def test_a_bug_while_deciding_costs_one_video(
    score: Score, clips: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, bad = stages.decide, replace(facts(clips)[0], windows_planned=77)

    def brittle(facts: Facts, *arguments: Any) -> Any:
        if facts.windows_planned == 77:
            raise ZeroDivisionError("division by zero")
        return original(facts, *arguments)

    rows = clips.to_pylist()
    rows[5] |= {"facts": msgspec.json.encode(bad)}
    monkeypatch.setattr(stages, "decide", brittle)
    out = score(pa.Table.from_pylist(rows, schema=EXTRACTED))
    assert [row["reason"] for row in out.to_pylist()] == [*[None] * 5, "internal_error", *[None] * 4]


def test_frames_that_a_clip_does_not_have_change_nothing(score: Score, clips: pa.Table) -> None:
    """The mask is made from the number of frames: what lies behind them in the buffer is never looked at."""
    (row,) = clips.slice(0, 1).to_pylist()
    n, t, *rest = row["clip_size"]
    longer = np.zeros((n, t + 3, *rest), np.uint8)
    longer[:, :t] = np.frombuffer(row["clips"], np.uint8).reshape(row["clip_size"])
    longer[:, t:] = 255
    padded = row | {"clips": longer.tobytes(), "clip_size": list(longer.shape)}
    out = score(pa.Table.from_pylist([padded], schema=EXTRACTED))
    assert out["logit"][0].as_py() == pytest.approx(score(clips.slice(0, 1))["logit"][0].as_py(), abs=1e-5)
