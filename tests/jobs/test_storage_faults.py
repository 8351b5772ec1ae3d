"""A store that refuses, stalls, tears, harms and goes: what becomes of videos, and when a scan stops."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from detector.errors import StorageError, VideoError
from detector.types import ExtractOptions, Reason
from jobs import crop_shards, output, s3
from jobs.download import Wanted, download
from jobs.listing import Listing
from jobs.plan import plan
from jobs.retry import Retry, SlowBodyError
from jobs.scan import run
from jobs.stages import Extract
from jobs.summary import Summary
from jobs.table import ResultsTable
from tests.canned import Canned, NoSandbox, decoded
from tests.faulty_store import FaultyStore, faulty_store
from tests.jobs.samples import rows as sample_rows
from tests.scans import outcomes, read_rows, scan_settings, touch
from tests.uploads import Uploads, Version

pytestmark = pytest.mark.xdist_group("s3")

_OBJECTS = 20
_SAME = ("uri", "version", "status", "verdict", "reason", "message", "p_fake", "content_sha256", "integrity")


class Scans:
    """Scans of a bucket behind a faulty store into a local table; bodies are fetched and not decoded."""

    def __init__(self, bucket: str, store: FaultyStore, folder: Path, weights: Path) -> None:
        self.store, self.output, self._weights = store, folder / "out", weights
        self.uploads = Uploads(bucket, 5)
        self.uploads.a_day(_OBJECTS)

    def scan(self, extract: type[Extract] = Extract, output: Path | None = None, **flags: Any) -> Summary:
        where = {"inputs": [self.uploads.prefix], "score_batch": 2}
        settings = scan_settings(self.output, output or self.output, self._weights, **where, **flags)
        return run(settings, quiet=True, extract=extract)

    def stopped(self, said: str, extract: type[Extract] = Extract, **flags: Any) -> dict[str, Any]:
        """The summary of a scan that has to stop with these words and exit code 4."""
        with pytest.raises(StorageError, match=said) as caught:
            self.scan(extract, **flags)
        assert caught.value.exit_code == 4
        summary: dict[str, Any] = json.loads((self.output / "summary.json").read_text())
        assert summary["exit_code"] == 4
        return summary

    def rows(self, output: Path | None = None) -> list[dict[str, Any]]:
        return read_rows(output or self.output)

    def counted(self) -> Counter[str]:
        return Counter(row["reason"] or row["status"] for row in self.rows())

    def wanted(self, version: Version) -> Wanted:
        [item] = Listing([version.uri])
        return Wanted(item.uri, item.version, item.size)


@pytest.fixture
def scans(
    bucket: str, s3_server: dict[str, str], tmp_path: Path, seeded: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scans]:
    """Twenty objects, and short waits."""
    monkeypatch.setattr("jobs.retry._FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("jobs.retry._LONGEST_WAIT_S", 0.3)
    monkeypatch.setattr("jobs.s3._IDLE_S", 0.6)
    monkeypatch.setattr("jobs.stages.Sandbox", NoSandbox)
    monkeypatch.setattr("jobs.stages.extract", decoded)
    with faulty_store(s3_server["AWS_ENDPOINT_URL"]) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        s3.client.cache_clear()
        yield Scans(bucket, store, tmp_path, seeded)


def at(number: int, act: Callable[[], object]) -> type[Extract]:
    """An `Extract` that calls `act` before it fetches the video of that number, counted from 0."""

    class Acting(Extract):
        begun = 0

        def __call__(self, batch: pa.Table) -> pa.Table:
            if self.begun == number:
                act()
            self.begun += len(batch)
            return super().__call__(batch)

    return Acting


def same(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What has to be equal in two tables of the same objects."""
    return [tuple(row[name] for name in _SAME) for row in rows]


# --- what passes ------------------------------------------------------------------------------------------


def test_the_table_is_that_of_a_store_without_faults(scans: Scans, tmp_path: Path) -> None:
    assert scans.scan().exit_code == 0
    scans.store.inject(unavailable=0.2, reset=0.15, stalled=0.04, latency_s=0.01, flips=8)
    assert scans.scan(output=tmp_path / "harmed").exit_code == 0
    injected = scans.store.counts()
    least = {"unavailable": 4, "reset": 2, "stalled": 1, "flipped": 8}
    assert not {name: injected[name] for name in least if injected[name] < least[name]}, injected
    found = scans.rows(tmp_path / "harmed")
    assert {row["integrity"] for row in found} == {"checksum"}
    assert same(found) == same(scans.rows())


def test_an_outage_is_waited_for(scans: Scans) -> None:
    back = Timer(1.5, scans.store.inject)

    def lose() -> None:
        scans.store.inject(down=True)
        back.start()

    began = time.monotonic()
    assert scans.scan(at(7, lose)).exit_code == 0
    assert time.monotonic() - began > 1.5
    assert scans.store.counts()["down"] >= 5, scans.store.counts()
    assert scans.counted() == {"scored": _OBJECTS}


def test_credentials_that_were_renewed_in_their_file_are_read_again(
    scans: Scans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = scans.wanted(next(iter(scans.uploads.now.values())))
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def is_held(secret: str) -> None:
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")
        s3.client.cache_clear()
        s3.client(bodies=True)

    is_held("of yesterday")
    with pytest.raises(StorageError, match="SignatureDoesNotMatch") as caught, download(wanted, 1 << 30):
        pass
    assert "AWS_PROFILE" in caught.value.hint
    is_held("of yesterday")
    file.write_text(file.read_text().replace("of yesterday", secret))
    with download(wanted, 1 << 30) as got:
        assert len(got.file.read()) == wanted.size


# --- what is one object's own -----------------------------------------------------------------------------


def test_an_object_that_never_comes_whole_is_no_fault_of_the_store(
    scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = scans.wanted(next(iter(scans.uploads.now.values())))
    monkeypatch.setattr("jobs.retry._TRYING_S", 5.0)  # on a busy machine one try takes a second
    scans.store.inject(reset=1.0)
    with pytest.raises(VideoError) as caught, download(wanted, 1 << 30):
        pass
    assert caught.value.reason is Reason.FETCH_FAILED
    assert scans.store.counts()["reset"] >= 2, scans.store.counts()


def test_a_body_with_another_checksum_is_given_up_after_three_whole_reads(scans: Scans) -> None:
    [key, *_] = scans.uploads.now
    scans.store.inject(damaged=[key])
    wanted = scans.wanted(scans.uploads.now[key])
    with pytest.raises(VideoError, match="checksum") as caught, download(wanted, 1 << 30):
        pass
    assert caught.value.reason is Reason.FETCH_FAILED
    assert scans.store.counts()["damaged"] == 3


def test_what_is_refused_for_single_objects_is_theirs(scans: Scans) -> None:
    denied = sorted(scans.uploads.now)[::5]
    scans.store.inject(denied=denied)
    assert scans.scan().exit_code == 3
    assert scans.counted() == {"scored": 16, "access_denied": 4}
    assert scans.store.counts()["denied"] == 4, "a refusal is not asked for again"
    scans.store.inject()
    assert scans.scan().exit_code == 0
    assert scans.counted() == {"scored": 20, "access_denied": 4}


def test_a_row_is_about_the_bytes_that_were_scored_also_where_objects_change_meanwhile(scans: Scans) -> None:
    listed, chance = dict(scans.uploads.now), scans.uploads.chance
    touched = chance.sample(sorted(listed), 14)

    def change() -> None:
        for number, key in enumerate(touched):
            if number % 2:
                scans.uploads.delete(key)
            else:
                scans.uploads.replace(listed[key])
        scans.uploads.a_day(added=5)

    assert scans.scan(at(8, change)).exit_code == 3
    rows = {Version(row["uri"], row["version"]): row for row in scans.rows()}
    assert rows.keys() == set(listed.values()), "a row for each version that was listed, and no other"
    expected = {True: "not_found", False: "changed_during_read"}
    for key, version in listed.items():
        row = rows[version]
        if row["reason"] is None:
            assert row["content_sha256"] == scans.uploads.sha256[version], f"{key}: other bytes were scored"
        else:
            assert key in touched, f"{key}: {row['reason']}, and nobody touched it"
            assert row["reason"] == expected[key not in scans.uploads.now], key
    assert min(scans.counted()[reason] for reason in ("not_found", "changed_during_read", "scored")) >= 2

    assert scans.scan().exit_code == 0
    scored = {Version(row["uri"], row["version"]) for row in scans.rows() if row["reason"] is None}
    assert scans.uploads.versions() <= scored


class Clock:
    """A clock that goes as somebody waits."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("jobs.retry.time", made)
    return made


_WHERE = s3.Address("bucket", "key")


def receive(clock: Clock, retry: Retry, size: int, rate: float) -> None:
    for _ in range(size >> 20):
        clock.sleep((1 << 20) / rate)
        retry.note(1 << 20, (1 << 20) / rate)


def fail(clock: Clock, retry: Retry) -> None:
    while True:
        clock.sleep(5)
        retry.wait_after(ConnectionResetError("lost"))


def test_a_large_object_has_the_time_that_it_takes_and_a_lost_store_is_noticed_as_soon(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.retry.is_answering", lambda _: False)
    retry = Retry(_WHERE)
    receive(clock, retry, 5 << 30, 1e6)  # an hour and a half
    lost = clock.now
    with pytest.raises(StorageError, match="does not answer any more"):
        fail(clock, retry)
    assert 110 < clock.now - lost < 150


def test_a_body_that_trickles_is_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.retry.is_answering", lambda _: True)
    retry, began = Retry(_WHERE), clock.now
    with pytest.raises(SlowBodyError) as caught:
        receive(clock, retry, 1 << 30, 30_000)
    assert 120 < clock.now - began < 200
    with pytest.raises(VideoError, match="KiB a second") as given_up:
        retry.wait_after(caught.value)
    assert given_up.value.reason is Reason.FETCH_FAILED


# --- what stops the scan ----------------------------------------------------------------------------------


def test_a_store_that_is_gone_stops_the_scan_and_the_next_one_does_the_rest(
    scans: Scans, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        monkeypatch.setattr("jobs.retry._TRYING_S", 1.0)
        scans.store.die()

    summary = scans.stopped("does not answer any more", at(9, lose))
    assert scans.counted() == {"scored": 9}, "what was known is kept, and nothing else recorded"
    assert (summary["written"], summary["left"]) == (9, _OBJECTS - 9)
    monkeypatch.setattr("jobs.retry._TRYING_S", 120.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server["AWS_ENDPOINT_URL"])
    s3.client.cache_clear()
    assert scans.scan().written == _OBJECTS - 9
    assert scans.counted() == {"scored": _OBJECTS}


def test_expired_credentials_stop_the_scan_and_are_no_videos_failure(scans: Scans) -> None:
    scans.store.inject(expired_after=11)
    summary = scans.stopped("ExpiredToken")
    assert scans.store.counts()["expired"] == 2, "asked once more, with what credentials there are by then"
    assert scans.counted() == {"scored": 11}
    assert (summary["written"], summary["left"]) == (11, _OBJECTS - 11)
    scans.store.inject()
    assert scans.scan().written == _OBJECTS - 11
    assert scans.counted() == {"scored": _OBJECTS}


def test_after_a_stop_an_actor_asks_for_nothing_more(scans: Scans) -> None:
    scans.store.inject(expired_after=0)
    extract = Extract(ExtractOptions(), 1 << 30, 1 << 30)
    out = extract(plan(Listing([scans.uploads.prefix]), None, "s").rows)
    assert scans.store.counts()["bodies"] == 2
    assert len(out) == _OBJECTS
    assert all("ExpiredToken" in str(stop) for stop in out["stop"].to_pylist())


def test_a_full_disk_for_downloads_stops_the_scan(scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full, monkeypatch.context() as patched:

        def fill() -> None:
            patched.setattr("tempfile.TemporaryFile", lambda **_: full)

        summary = scans.stopped(r"No space left on device\n.*temp_bytes.*TMPDIR", at(9, fill))
    assert scans.counted() == {"scored": 9}
    assert (summary["written"], summary["left"]) == (9, _OBJECTS - 9)
    assert scans.scan().written == _OBJECTS - 9


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB of which 300 kB are free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False, capture_output=True
        ).returncode
    )
    if not made:
        pytest.skip("only root may mount a disk")
    try:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(bytes(free - 300_000))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_of_the_table_stops_the_scan_and_the_next_one_does_the_rest(
    small_disk: Path, tmp_path: Path, seeded: Path
) -> None:
    names = [f"{number:03}.mp4" for number in range(60)]
    videos, sizes = touch(tmp_path / "videos", *names), {"commit_rows": 4, "score_batch": 4}
    settings = scan_settings(videos, small_disk / "out", seeded, **sizes)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        run(settings, quiet=True, extract=Canned)
    assert caught.value.exit_code == 4
    assert str(small_disk) in caught.value.message
    assert "Make room" in caught.value.hint
    kept = DeltaTable(small_disk / "out" / "results").to_pyarrow_table().num_rows
    assert 0 < kept < 60
    (small_disk / "filler").unlink()
    # There was no room to give the claim back either, and this process, which has it, goes on.
    again = scan_settings(videos, small_disk / "out", seeded, take_over=True)
    summary = run(again, quiet=True, extract=Canned)
    assert (summary.exit_code, summary.written) == (0, 60 - kept)
    assert set(outcomes(read_rows(small_disk / "out")).values()) == {"scored"}


@pytest.mark.parametrize(
    "said",
    [
        "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)",
        "Generic LocalFileSystem error: Disk quota exceeded (os error 122)",
    ],
)
def test_what_the_table_library_says_of_a_full_disk_gets_words(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DeltaError(said)

    table = ResultsTable.create(str(tmp_path / "out")).claim("one")
    with monkeypatch.context() as patched:
        patched.setattr("jobs.fence.write_deltalake", full)
        with pytest.raises(StorageError) as caught:
            table.append(sample_rows(2))
    assert caught.value.message.endswith(("results: No space left on device", "results: Disk quota exceeded"))
    table.append(sample_rows(2))
    table.release()
    assert len(read_rows(tmp_path / "out")) == 2


def test_a_table_whose_store_is_gone_is_not_asked_again(
    scans: Scans, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(output._PATIENCE, "retry_timeout", "2s")
    monkeypatch.setattr("jobs.table._LONG_S", 1)
    table = ResultsTable.create(f"s3://{bucket}/out").claim("one")
    scans.store.die()
    asked: list[str] = []
    monkeypatch.setattr(table, "release", lambda: asked.append("release"))
    with pytest.raises(StorageError, match="out/results"), table:
        table.append(sample_rows(2))
    assert not table.answers
    assert not asked, "giving the claim back would have taken as long again"


def test_cutting_for_a_training_stops_as_well(
    tmp_path: Path, seeded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise StorageError("the store is gone")

    monkeypatch.setattr("jobs.stages.open_planned", gone)
    videos = touch(tmp_path / "videos", "a.mp4")
    settings = scan_settings(videos, tmp_path / "out", seeded)
    with pytest.raises(StorageError, match="the store is gone"):
        list(crop_shards.cut([str(videos / "a.mp4")], settings, ExtractOptions(), tmp_path / "crops"))
