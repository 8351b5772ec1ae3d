from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import InputError, StorageError, TableHeldError
from detector.types import Reason
from jobs import fence
from jobs.holder import Holder
from jobs.listing import Listing
from jobs.local import open_local
from jobs.plan import plan
from jobs.query import connect, sql
from jobs.schema import RESULTS, SCANS, failed_row
from jobs.table import ResultsTable
from tests.jobs.samples import CONTEXT, DAY, rows, sample_row
from tests.readers import documented_readers

ROOT = Path(__file__).parents[2]


def counts(output: Path) -> dict[str, int]:
    """What every reader makes of the table."""
    pattern = f"{output}/results/scan_date=*/*.parquet"
    files = glob.glob(pattern)  # noqa: PTH207
    return {
        "deltalake": DeltaTable(str(output / "results")).to_pyarrow_table().num_rows,
        "delta's own count": DeltaTable(str(output / "results")).count(),
        "polars, delta": pl.scan_delta(str(output / "results")).collect().height,
        "polars": pl.read_parquet(pattern, hive_partitioning=True).height if files else 0,
        "duckdb": len(duckdb.sql(f"FROM '{pattern}'").fetchall()) if files else 0,
        "pandas": sum(len(pd.read_parquet(path)) for path in files),
    }


def uris(output: Path) -> list[str]:
    return sorted(pa.table(DeltaTable(str(output / "results")).to_pyarrow_table())["uri"].to_pylist())


def script(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """Another process with `table` and `rows` at hand; sys.argv[1:] are `arguments`."""
    head = "import sys, time\nfrom jobs.table import ResultsTable\nfrom tests.jobs.samples import rows\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_every_reader_sees_the_same_rows(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(3))
        table.append(pa.Table.from_pylist([sample_row("3.mp4")], schema=RESULTS))
        table.append([])
        assert len(table.files()) == 2
        assert set(counts(output).values()) == {4}
    assert set(counts(output).values()) == {4}
    assert pq.read_metadata(table.files()[0]).row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("name", ["o ut", "é", "#1?*{x}", "day=1", "a'b\"c"])
def test_a_folder_may_have_an_odd_name(tmp_path, name):
    """polars.scan_delta alone does not find its files again; docs/table.md says so."""
    with ResultsTable.create(str(tmp_path / name)).claim("scan-1") as table:
        table.append(rows(2))
        assert all(Path(file).exists() for file in table.files())
    with connect(str(tmp_path / name)) as connection:
        assert sql(connection, "SELECT uri FROM latest").num_rows == 2


def test_five_thousand_rows_are_one_file(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(5000))
        assert len(table.files()) == 1
    assert DeltaTable(str(output / "results")).count() == 5000


def test_types_and_meanings_come_back(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append([sample_row()])
    back = pa.table(DeltaTable(str(output / "results")).to_pyarrow_table())
    assert back.schema.names == RESULTS.names
    for field in RESULTS:
        assert (back.schema.field(field.name).type, back.schema.field(field.name).metadata) == (
            field.type,
            field.metadata,
        )
    assert back.to_pylist() == pa.Table.from_pylist([sample_row()], schema=RESULTS).to_pylist()
    [file] = table.files()
    assert pq.read_schema(file).field("p_fake").metadata[b"unit"] == b"probability"


def test_the_log_keeps_no_name_of_a_video(output):
    """A purge must not have to rewrite the log."""
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append([sample_row("secret.mp4")])
    log = "".join(path.read_text() for path in (output / "results" / "_delta_log").glob("*.json"))
    assert "numRecords" in log
    assert "secret" not in log


def test_the_page_about_the_table_has_code_that_runs(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(3))
    blocks = documented_readers()
    assert len(blocks) == 5
    for block in blocks:
        names: dict[str, Any] = {"OUT": str(output)}
        exec(block, names)  # noqa: S102
        assert len(names["rows"]) == 3, block


def test_a_table_is_made_once_and_found_again(output):
    assert not ResultsTable.exists(str(output))
    with pytest.raises(InputError, match="holds no results") as caught:
        ResultsTable.open(str(output))
    assert "deepfake-scan scan" in caught.value.hint
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(1))
    assert ResultsTable.exists(str(output))
    assert ResultsTable.create(str(output)).files() == ResultsTable.open(str(output)).files() == table.files()


@pytest.mark.parametrize("name", ["100%20", "a[1]", "a|b", "a^b", "a\\b", "a\nb", "detector=hog", "a\udcffb"])
def test_a_folder_that_delta_cannot_handle_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(InputError, match="cannot hold a Delta table"):
        ResultsTable.create(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_stores_that_are_not_there_yet_are_refused():
    with pytest.raises(InputError, match="cannot be written to gs://"):
        ResultsTable.create("gs://bucket/out")


def test_somebody_elses_folder_is_left_alone(output):
    day = output / "results" / "scan_date=2026-11-25"
    day.mkdir(parents=True)
    (day / "mine.parquet").write_text("precious")
    with pytest.raises(InputError, match="holds something else"):
        ResultsTable.create(str(output))
    assert (day / "mine.parquet").exists()


def test_somebody_elses_delta_table_is_left_alone(output):
    (output / "results").mkdir(parents=True)
    write_deltalake(str(output / "results"), pa.table({"mine": [1]}))
    with pytest.raises(InputError, match="something else"):
        ResultsTable.create(str(output))


def test_writing_needs_a_claim(output):
    table = ResultsTable.create(str(output))
    with pytest.raises(ValueError, match="claim"):
        table.append(rows(1))
    assert DeltaTable(str(output / "results")).count() == 0


def test_a_table_that_is_held_says_who_holds_it(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        for _ in range(2):
            with pytest.raises(TableHeldError, match=r"scan scan-1 on .* \(process \d+\)"):
                ResultsTable.open(str(output)).claim("scan-2")
        table.append(rows(1))
    with ResultsTable.open(str(output)).claim("scan-2") as table:
        table.append(rows(1, 1))
    assert uris(output) == ["/videos/0.mp4", "/videos/1.mp4"]


def test_an_error_inside_releases_the_table(output):
    with pytest.raises(ZeroDivisionError), ResultsTable.create(str(output)).claim("scan-1"):
        raise ZeroDivisionError
    assert ResultsTable.open(str(output)).holder() is None


def test_of_two_that_claim_at_the_same_moment_one_fails(output, monkeypatch):
    one, two = ResultsTable.create(str(output)), ResultsTable.create(str(output))
    monkeypatch.setattr(fence.FencedTable, "refresh", lambda _: None)  # both have looked
    monkeypatch.setattr(ResultsTable, "holder", lambda _: None)  # and seen nobody
    with one.claim("scan-1"):
        one.append(rows(1))
        with pytest.raises(TableHeldError, match="scan-1"):
            two.claim("scan-2")
        one.append(rows(1, 1))
    assert set(counts(output).values()) == {2}


def test_a_scan_that_was_taken_over_in_its_sleep_doubles_nothing(output, monkeypatch):
    sleeper, other = ResultsTable.create(str(output)), ResultsTable.create(str(output))
    sleeper.claim("scan-1").append(rows(1))
    monkeypatch.setattr(ResultsTable, "holder", lambda _: None)  # as after ten minutes
    with other.claim("scan-2"):
        other.append(rows(1, 1))
        for _ in range(2):  # and when its caller tries again
            with pytest.raises(TableHeldError, match="scan-2"):
                sleeper.append(rows(1, 1))
        other.append(rows(1, 2))
    with pytest.raises(TableHeldError):
        sleeper.release()
    with ResultsTable.open(str(output)).claim("scan-3"):  # what the sleeper left is removed
        assert set(counts(output).values()) == {3}
    assert uris(output) == ["/videos/0.mp4", "/videos/1.mp4", "/videos/2.mp4"]


def test_a_silent_claim_ends_after_ten_minutes(output, monkeypatch):
    with ResultsTable.create(str(output)).claim("scan-1"):
        now = time.time()
        for seconds, holds in ((590, True), (610, False)):
            monkeypatch.setattr("jobs.table.time.time", lambda seconds=seconds: now + seconds)
            assert (ResultsTable.open(str(output)).holder() is not None) is holds


def test_a_claim_is_renewed_while_nothing_is_written(output, monkeypatch):
    monkeypatch.setattr("jobs.table.RENEW_S", 0.05)
    of_others = set(threading.enumerate())  # tests of claims that are lost leave theirs
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        before = table.version
        deadline = time.monotonic() + 30
        while table.version < before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        table.append(rows(1))
    events = [c["event"] for c in DeltaTable(str(output / "results")).history() if "event" in c]
    assert events[0] == "release"
    assert {"renew", "append"} <= set(events)
    assert "renew-claim" not in [thread.name for thread in set(threading.enumerate()) - of_others]


def test_a_killed_scan_is_taken_over_at_once_and_a_living_one_is_not(output):
    code = """
table = ResultsTable.create(sys.argv[1]).claim("killed")
print("claimed", flush=True)
time.sleep(99)
"""
    process = script(code, output)
    assert line(process) == "claimed"
    with pytest.raises(TableHeldError, match="scan killed"):
        ResultsTable.open(str(output)).claim("next")
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on: dead, but a pid
    with ResultsTable.open(str(output)).claim("next") as table:
        table.append(rows(1))
    process.communicate()


@pytest.mark.timeout(120)
def test_a_scan_killed_again_and_again_loses_and_doubles_nothing(output):
    """Each process goes on where the table says; what it reported as committed must be there."""
    code = """
table = ResultsTable.create(sys.argv[1]).claim("loop")
print("claimed", flush=True)
done = sum(1 for _ in table.files())
while True:
    table.append(rows(50, 50 * done))
    done += 1
    print(done, flush=True)
"""
    reported = 0
    for after in (1, 4, 2):
        process = script(code, output)
        assert line(process) == "claimed"
        for _ in range(after):
            reported = int(line(process))
        time.sleep(0.013 * after)  # into the next append
        kill(process)
        found = uris(output)
        assert len(found) == len(set(found))
        assert len(found) % 50 == 0
        assert len(found) >= 50 * reported
    with ResultsTable.open(str(output)).claim("last"):
        assert len(set(counts(output).values())) == 1


@pytest.mark.timeout(120)
def test_of_two_scans_started_together_one_exits(output):
    code = """
from detector.errors import TableHeldError
print("ready", flush=True)
sys.stdin.readline()
try:
    with ResultsTable.create(sys.argv[1]).claim(sys.argv[2]) as table:
        table.append(rows(10))
        time.sleep(3)
    print("won")
except TableHeldError as error:
    print("held")
"""
    head = "import sys, time\nfrom jobs.table import ResultsTable\nfrom tests.jobs.samples import rows\n"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", head + code, str(output), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    assert [line(process) for process in both] == ["ready", "ready"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0].strip() for process in both) == ["held", "won"]
    assert set(counts(output).values()) == {10}


def test_readers_in_a_loop_never_see_a_part_or_a_double(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(20))
        pattern, seen = f"{output}/results/scan_date=*/*.parquet", list[int]()
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                found = duckdb.connect().read_parquet(pattern).select("uri").fetchall()
                assert len(found) == len(set(found))
                seen.append(len(found))

        reader = threading.Thread(target=read)
        reader.start()
        for i in range(1, 15):
            table.append(rows(20, 20 * i))
        stop.set()
        reader.join()
    assert len(seen) > 1
    assert all(count % 20 == 0 for count in seen)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "error", [CommitFailedError("Concurrent transaction failed."), OSError("reset by peer")]
)
def test_a_commit_whose_reply_was_lost_is_not_made_again(output, monkeypatch, error):
    def lossy(*args: Any, **kwargs: Any) -> None:
        # On a handle of its own: the held one must not learn of it.
        write_deltalake(DeltaTable(args[0].table_uri), *args[1:], **kwargs)
        monkeypatch.setattr(fence, "write_deltalake", write_deltalake)
        raise error

    with ResultsTable.create(str(output)).claim("scan-1") as table:
        monkeypatch.setattr(fence, "write_deltalake", lossy)
        table.append(rows(3))
        table.append(rows(3, 3))
    assert uris(output) == [f"/videos/{i}.mp4" for i in range(6)]
    assert set(counts(output).values()) == {6}


def test_a_store_that_fails_leaves_nothing_and_lets_the_next_append_through(output, monkeypatch):
    with ResultsTable.create(str(output)).claim("scan-1") as table:

        def full(*_: Any, **__: Any) -> None:
            monkeypatch.setattr(fence, "write_deltalake", write_deltalake)
            raise OSError("No space left on device")

        monkeypatch.setattr(fence, "write_deltalake", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            table.append(rows(1))
        assert "again" in caught.value.hint
        table.append(rows(1))
    assert set(counts(output).values()) == {1}


def test_other_tools_may_not_delete_and_their_compaction_does_no_harm(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(1))
        table.append(rows(1, 1))
        foreign = DeltaTable(str(output / "results"))
        with pytest.raises(CommitFailedError, match="append-only"):
            foreign.delete("uri = '/videos/0.mp4'")
        foreign.optimize.compact()
        table.append(rows(1, 2))
        foreign = DeltaTable(str(output / "results"))
        foreign.alter.set_table_properties({"delta.appendOnly": "false"})
        foreign.delete("uri = '/videos/0.mp4'")
        table.append(rows(1, 3))
    assert uris(output) == ["/videos/1.mp4", "/videos/2.mp4", "/videos/3.mp4"]
    # The glob agrees too, once the scan has ended; but not for pandas, which cannot read what others rewrote.
    assert len(pl.read_parquet(f"{output}/results/scan_date=*/*.parquet")) == 3


def test_what_no_commit_names_is_removed_unless_it_is_younger_than_the_claim(output):
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.append(rows(1))
    day = Path(table.files()[0]).parent
    for name in ("part-x.parquet", "part-y.parquet#1", "part-z.parquet"):
        (day / name).write_bytes(b"half")
        os.utime(day / name, (1_700_000_000, 1_700_000_000))
    (day / "notes.txt").write_text("not ours")
    os.utime(day / "part-z.parquet", (time.time() + 60, time.time() + 60))  # of a scan that came after
    with ResultsTable.open(str(output)).claim("scan-2"):
        left = {path.name for path in day.iterdir()} - {Path(table.files()[0]).name}
        assert left == {"notes.txt", "part-z.parquet"}


def test_the_scans_table_has_a_row_for_start_and_end(output):
    started = datetime(2026, 11, 25, 12, tzinfo=UTC)
    with ResultsTable.create(str(output)).claim("scan-1") as table:
        table.record_scan("start", {"started_at": started, "inputs": ["/videos"], "settings": "{}"})
        table.record_scan("end", {"started_at": started, "done": {"scored": 3}, "exit_code": 0})
    back = pa.table(DeltaTable(str(output / "scans")).to_pyarrow_table()).sort_by("at")
    assert back.schema.names == SCANS.names
    assert back.select(["scan_id", "event", "inputs", "done", "exit_code"]).to_pylist() == [
        {"scan_id": "scan-1", "event": "start", "inputs": ["/videos"], "done": None, "exit_code": None},
        {"scan_id": "scan-1", "event": "end", "inputs": None, "done": [("scored", 3)], "exit_code": 0},
    ]


def test_death_is_believed_only_where_it_can_be_proved():
    here = Holder.here("me")
    assert not here.provably_dead()
    with subprocess.Popen(["true"]) as process:
        process.wait()
    gone = {"scan_id": "x", "host": "h", "pid": str(process.pid), "process_start": "1"}
    same = {"boot_id": here.boot_id, "pid_namespace": here.pid_namespace}
    assert Holder(**gone, **same).provably_dead()
    assert not Holder(**gone, **same | {"boot_id": "another"}).provably_dead()
    assert not Holder(**gone, **same | {"pid_namespace": "another"}).provably_dead()
    assert not Holder(**gone, boot_id="", pid_namespace="").provably_dead()
    assert not Holder(**gone | {"pid": "none"}, **same).provably_dead()
    used_again = gone | {"pid": str(os.getpid()), "process_start": "1"}
    assert Holder(**used_again, **same).provably_dead()
    assert not Holder(**used_again | {"process_start": ""}, **same).provably_dead()
    assert Holder.of(here.metadata() | {"timestamp": 1}) == here


ODD = st.binary(min_size=1, max_size=100).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@settings(deadline=None, max_examples=10)
@given(st.lists(ODD, min_size=1, max_size=20, unique=True))
def test_every_name_survives_listing_table_and_opening(odd):
    with tempfile.TemporaryDirectory() as folder:
        videos = os.path.join(os.fsencode(folder), b"videos")  # noqa: PTH118
        os.mkdir(videos)  # noqa: PTH102
        for name in odd:
            with open(os.path.join(videos, name), "wb") as file:  # noqa: PTH118, PTH123
                file.write(name)
        output = Path(folder, "out")
        with ResultsTable.create(str(output)).claim("scan-1") as table:
            todo = plan(Listing([os.fsdecode(videos)], ["*"]), table, "A").rows.to_pylist()
            table.append([failed_row(item, Reason.CORRUPT, "odd", CONTEXT) for item in todo])
            assert plan(Listing([os.fsdecode(videos)], ["*"]), table, "A").to_do == 0
        contents = []
        for uri in uris(output):
            with open_local(uri) as file:
                contents.append(file.read())
        assert sorted(contents) == sorted(odd)


def test_the_day_is_that_of_the_scans_start():
    assert DAY.date() == CONTEXT.scan_date
