"""The job from a folder to a table, in one process; under Ray: `tests/e2e/test_ray.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from detector.errors import (
    ClusterError,
    InputError,
    SettingsError,
    StorageError,
    TableHeldError,
    WeightsError,
)
from jobs import runner
from jobs.scan import run
from jobs.summary import Summary
from jobs.table import ResultsTable
from tests.canned import Canned, Forgetful, Slow
from tests.conftest import Scanned
from tests.jobs.samples import rows
from tests.scans import VIDEOS, outcomes, read_rows, scan_settings, touch

ROOT = Path(__file__).parents[2]


class Folder:
    """A folder of empty files with videos' names, and scans of it with a canned `Extract`."""

    def __init__(self, path: Path, weights: Path) -> None:
        self.videos, self.output, self.weights = path / "videos", path / "out", weights

    def scan(self, extract: type[Canned] = Canned, *, dry_run: bool = False, **flags: Any) -> Summary:
        settings = scan_settings(self.videos, self.output, self.weights, **flags)
        return run(settings, quiet=True, extract=extract, dry_run=dry_run)

    def rows(self) -> list[dict[str, Any]]:
        return read_rows(self.output)

    def events(self) -> list[dict[str, Any]]:
        rows = pa.table(DeltaTable(str(self.output / "scans")).to_pyarrow_table()).to_pylist()
        return sorted(rows, key=lambda row: row["at"])


@pytest.fixture
def folder(tmp_path: Path, seeded: Path) -> Folder:
    touch(tmp_path / "videos", *(f"{i}.mp4" for i in range(10)))
    return Folder(tmp_path, seeded)


def fill(folder: Folder, *names: str) -> None:
    touch(folder.videos, *names)


# --- real videos ------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("scans")
def test_every_video_has_exactly_one_row_that_says_what_became_of_it(scanned: Scanned) -> None:
    rows = read_rows(scanned.output)
    assert outcomes(rows) == {name: outcome for name, (outcome, _) in VIDEOS.items()}
    assert scanned.exit_code == 3, "some failed"
    assert len({row["settings_id"] for row in rows}) == len({row["scan_id"] for row in rows}) == 1


@pytest.mark.xdist_group("scans")
def test_a_score_is_a_number_where_there_is_one_and_null_elsewhere(scanned: Scanned) -> None:
    for row in read_rows(scanned.output):
        if row["status"] == "scored":
            assert 0 <= row["p_fake"] <= 1
            assert row["verdict"] in ("flagged", "uncertain", "not_flagged")
            assert row["persons"]
            assert row["windows_scored"] == row["windows_planned"] > 0
        else:
            assert row["p_fake"] is row["logit"] is None
            assert row["verdict"] == "not_assessed"
            assert not row["persons"]
        assert (row["message"] is not None) == (row["status"] == "failed")


@pytest.mark.xdist_group("scans")
def test_people_side_by_side_are_scored_separately(scanned: Scanned) -> None:
    persons = {Path(row["uri"]).name: row["persons"] for row in read_rows(scanned.output)}
    assert [person["windows"] for person in persons["two-faces.mp4"]] == [2, 2]
    assert len(persons["face-2.mp4"]) == 1


@pytest.mark.xdist_group("scans")
def test_the_same_scan_again_writes_nothing_and_says_so(
    scanned: Scanned, seeded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_rows(scanned.output)
    summary = run(scan_settings(scanned.videos, scanned.output, seeded))
    assert capsys.readouterr().err == (
        "14 listed · 14 done · 0 to do · 1 other files skipped: nothing to scan\n"
    )
    assert (summary.exit_code, summary.written, summary.done) == (0, 0, 0)
    assert read_rows(scanned.output) == before


# --- what is done, and when -------------------------------------------------------------------------------


def test_a_limit_stops_early_and_the_next_scan_goes_on(folder: Folder) -> None:
    first = folder.scan(limit=4)
    assert (first.exit_code, first.written, first.left) == (6, 4, 6)
    second = folder.scan()
    assert (second.exit_code, second.written, second.already_done) == (0, 6, 4)
    assert len(outcomes(folder.rows())) == 10


def test_a_deadline_stops_a_scan_with_what_is_done_committed(folder: Folder) -> None:
    fill(folder, *(f"more-{i}.mp4" for i in range(30)))
    first = folder.scan(deadline="2s", extract=Slow, score_batch=1)
    assert first.exit_code == 6
    assert 0 < first.written == first.done < 40
    assert first.left == 40 - first.done
    assert f"stopped: {first.left} left" in first.closing()
    assert folder.events()[-1]["exit_code"] == 6
    second = folder.scan(deadline="5m")
    assert (second.exit_code, second.written, second.left) == (0, 40 - first.done, 0)
    assert len(outcomes(folder.rows())) == 40


def test_what_may_still_be_uploaded_is_left_to_a_later_scan(folder: Folder) -> None:
    for number, file in enumerate(folder.videos.iterdir()):
        os.utime(file, (time.time() - (7200 if number < 4 else 60),) * 2)
    summary = folder.scan(min_age="1h")
    assert (summary.written, summary.skipped, summary.exit_code) == (4, {"younger than min_age": 6}, 0)
    assert folder.scan(min_age="30s").written == 6


def test_a_scan_with_nothing_to_do_is_noted_too(folder: Folder) -> None:
    folder.scan()
    folder.scan()
    assert [event["event"] for event in folder.events()] == ["start", "end"] * 2
    assert (folder.events()[-1]["exit_code"], folder.events()[-1]["planned"]) == (0, 0)


def test_a_new_video_and_a_changed_one_are_scanned(folder: Folder) -> None:
    folder.scan()
    fill(folder, "new.mp4")
    (folder.videos / "3.mp4").write_bytes(b"other content")
    summary = folder.scan()
    assert summary.written == 2
    assert len(folder.rows()) == 12
    assert len({row["uri"] for row in folder.rows()}) == 11


def test_rows_are_committed_while_the_scan_goes_on(folder: Folder) -> None:
    folder.scan(commit_rows=3, score_batch=1)
    sizes = [
        len(pa.table(DeltaTable(str(folder.output / "results"), version=v).to_pyarrow_table()))
        for v in range(7)
    ]
    assert sizes == [0, 0, 3, 6, 9, 10, 10], "made, claimed, four appends, released"


def test_waves_and_batches_of_any_size_cover_the_plan(folder: Folder) -> None:
    folder.scan(wave_size=3, score_batch=2)
    assert len(outcomes(folder.rows())) == 10


def test_a_dry_run_says_what_there_is_and_writes_nothing(folder: Folder) -> None:
    summary = folder.scan(dry_run=True)
    assert (summary.listed, summary.to_do, summary.exit_code) == (10, 10, 0)
    assert not folder.output.exists()
    folder.scan(limit=4)
    before = sorted(folder.output.rglob("*"))
    assert folder.scan(dry_run=True).to_do == 6
    assert sorted(folder.output.rglob("*")) == before


def test_a_folder_without_videos_is_a_finished_scan(tmp_path: Path, seeded: Path) -> None:
    empty = Folder(tmp_path, seeded)
    touch(empty.videos, "notes.txt")
    summary = empty.scan()
    assert (summary.listed, summary.exit_code, summary.skipped) == (0, 0, {".txt": 1})


def test_both_ends_of_a_scan_are_recorded(folder: Folder) -> None:
    summary = folder.scan()
    start, end = folder.events()
    assert (start["event"], end["event"]) == ("start", "end")
    assert start["scan_id"] == end["scan_id"] == summary.scan_id
    assert (start["planned"], start["exit_code"]) == (10, None)
    assert dict(end["done"]) == {"scored": 10}
    assert json.loads(end["settings"])["scored_by"]["weights_id"] == summary.weights_id


# --- failures, and what is tried again --------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "code"), [(None, 3), ("5%", 3), ("10%", 0), ("50%", 0)])
def test_some_may_fail_if_the_settings_say_so(
    tmp_path: Path, seeded: Path, allowed: str | None, code: int
) -> None:
    folder = Folder(tmp_path, seeded)
    fill(folder, "gone.mp4", *(f"{i}.mp4" for i in range(9)))
    summary = folder.scan(Forgetful, max_failed=allowed)
    assert (summary.failed, summary.done, summary.exit_code) == (1, 10, code)


def test_a_video_that_a_worker_takes_along_is_tried_alone_and_then_lost(folder: Folder) -> None:
    fill(folder, "gone.mp4", "shy.mp4")
    summary = folder.scan(Forgetful)
    found = outcomes(folder.rows())
    assert found == {f"{i}.mp4": "scored" for i in range(10)} | {"gone.mp4": "lost", "shy.mp4": "scored"}
    assert (summary.done, summary.exit_code) == (12, 3)
    (lost,) = [row for row in folder.rows() if row["reason"] == "lost"]
    assert "tried again alone" in lost["message"]
    assert lost["scan_id"] == summary.scan_id


def test_a_row_that_comes_twice_is_taken_once(folder: Folder) -> None:
    fill(folder, "twice-a.mp4", "twice-b.mp4")
    summary = folder.scan(Forgetful, score_batch=3)
    assert len(outcomes(folder.rows())) == 12
    assert summary.done == summary.written == 12


def test_a_passing_failure_gets_three_attempts_and_one_more_when_asked(folder: Folder) -> None:
    fill(folder, "gone.mp4")
    written = [folder.scan(Forgetful).written for _ in range(4)]
    assert written == [11, 1, 1, 0]
    assert folder.scan(Forgetful, retry="failed").written == 1
    attempts = [row["attempt"] for row in folder.rows() if row["reason"] == "lost"]
    assert attempts == [1, 2, 3, 4]


def test_a_retry_that_succeeds_answers_for_the_video(folder: Folder) -> None:
    fill(folder, "gone.mp4")
    folder.scan(Forgetful)
    summary = folder.scan()
    assert (summary.retried, summary.written, summary.exit_code) == (1, 1, 0)
    assert folder.scan().to_do == 0


# --- other settings ---------------------------------------------------------------------------------------


def test_other_settings_stop_the_scan_before_it_would_do_everything_again(folder: Folder) -> None:
    folder.scan()
    before = folder.rows()
    fill(folder, "new.mp4")
    for dry_run in (True, False):
        with pytest.raises(SettingsError, match="10 videos already scored with other settings") as refused:
            folder.scan(profile="thorough", dry_run=dry_run)
        assert "--rescan" in refused.value.hint
    assert folder.rows() == before
    assert folder.scan(profile="thorough", rescan=True).written == 11
    assert len(folder.rows()) == 21


def test_settings_that_change_no_score_rescan_nothing(folder: Folder) -> None:
    folder.scan()
    assert folder.scan(video_time_limit_s=7, score_batch=1, wave_size=3, max_bytes="1GB").to_do == 0


# --- what stops a scan before it starts -------------------------------------------------------------------


def _missing(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5000:] = bytes(5000)
    path.write_bytes(data)


def _text(path: Path) -> None:
    path.write_text("not weights")


@pytest.mark.parametrize("damage", [_missing, _cut, _flip, _text])
def test_missing_or_damaged_weights_stop_the_job_before_anything_is_written(
    folder: Folder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    weights = tmp_path / "damaged.safetensors"
    weights.write_bytes(folder.weights.read_bytes())
    damage(weights)
    with pytest.raises(WeightsError) as refused:
        folder.scan(weights=str(weights))
    assert refused.value.exit_code == 2
    assert "damaged" in str(refused.value)
    assert not folder.output.exists()


def test_an_input_that_is_not_there_leaves_nothing_behind(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        folder.scan(inputs=[str(folder.videos), str(tmp_path / "no such folder")])
    assert not folder.output.exists()


def test_a_table_that_another_scan_holds_is_left_alone(folder: Folder) -> None:
    with ResultsTable.create(str(folder.output)).claim("other"):
        with pytest.raises(TableHeldError, match="another scan holds the table: scan other") as refused:
            folder.scan()
        assert refused.value.exit_code == 5
    assert folder.rows() == []
    assert folder.scan().written == 10


def test_a_scan_waits_for_the_one_that_holds_the_table(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = ResultsTable.create(str(folder.output)).claim("other")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            holder.release()

    # The module of this scan alone: threads of others sleep as well.
    monkeypatch.setattr("jobs.scan.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    assert folder.scan(wait=True).written == 10
    assert len(waited) == 2


def test_a_scan_that_takes_over_shuts_the_other_one_out(folder: Folder) -> None:
    other = ResultsTable.create(str(folder.output)).claim("other")
    assert folder.scan(take_over=True).written == 10
    with pytest.raises(TableHeldError):
        other.append(rows(1))
    assert folder.scan().written == 0  # its claim removes what the other one wrote and could not commit
    assert len(folder.rows()) == 10


def test_a_summary_that_cannot_be_written_is_a_failing_store(folder: Folder) -> None:
    (folder.output / "summary.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=f"{folder.output}: Is a directory"):
        folder.scan()
    assert len(folder.rows()) == 10, "the rows are in the table all the same"


# --- what stops it in the middle --------------------------------------------------------------------------


def test_a_store_that_fails_ends_the_scan_with_what_was_committed_and_a_summary(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = ResultsTable.append, []

    def failing(self: ResultsTable, rows: Any) -> int:
        calls.append(len(rows))
        if len(calls) > 1:
            raise StorageError("no space left on device")
        return append(self, rows)

    with monkeypatch.context() as full:
        full.setattr(ResultsTable, "append", failing)
        with pytest.raises(StorageError, match="no space left") as stopped:
            folder.scan(commit_rows=3, score_batch=1)
    assert stopped.value.exit_code == 4
    assert len(folder.rows()) == 3
    content = json.loads((folder.output / "summary.json").read_text())
    assert (content["exit_code"], content["written"]) == (4, 3)
    assert [event["exit_code"] for event in folder.events()] == [None, 4]
    assert folder.scan().written == 7
    assert len(outcomes(folder.rows())) == 10


def test_a_cluster_that_fails_keeps_the_rows_so_far(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    original = runner.InProcess.run

    def failing(self: runner.InProcess, plan: pa.Table, *, alone: bool = False) -> Any:
        for count, part in enumerate(original(self, plan, alone=alone)):
            if count == 1:
                raise ClusterError("the head node went away")
            yield part

    with monkeypatch.context() as broken:
        broken.setattr(runner.InProcess, "run", failing)
        with pytest.raises(ClusterError):
            folder.scan(score_batch=4)
    assert len(folder.rows()) == 4
    assert json.loads((folder.output / "summary.json").read_text())["exit_code"] == 4
    assert folder.scan().written == 6


# The command itself, with slow canned extraction in place of the real one.
_COMMAND = """
import functools, sys
import jobs.scan
from jobs.cli import main
from tests.canned import Slow
jobs.scan.run = functools.partial(jobs.scan.run, extract=Slow)
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_keeps_the_rows_and_the_next_scan_completes(
    tmp_path: Path, seeded: Path, number: signal.Signals, code: int
) -> None:
    folder = Folder(tmp_path, seeded)
    fill(folder, *(f"{i:03}.mp4" for i in range(60)))
    flags = ["--set", "commit_rows=5", "--set", "address=in-process", "--weights", str(seeded)]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "scan", str(folder.videos), "--output", str(folder.output), *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    # Three files hold at least two commits: the last may not be in yet.
    while len(list(folder.output.glob("results/scan_date=*/*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    kept = outcomes(folder.rows())
    assert 10 <= len(kept) < 60
    assert f"{len(kept)} videos in " in out, "the last lines say what was done"
    content = json.loads((folder.output / "summary.json").read_text())
    assert (content["exit_code"], content["written"]) == (code, len(kept))
    assert folder.events()[-1]["exit_code"] == code
    settings = scan_settings(folder.videos, folder.output, seeded, dtype="auto")
    assert run(settings, quiet=True, extract=Canned).written == 60 - len(kept)
    assert outcomes(folder.rows()) == {f"{i:03}.mp4": "scored" for i in range(60)}
