"""S3 in: what is listed, what is opened, and that every key survives; on a real server."""

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer

from detector.errors import InputError, StorageError, VideoError
from detector.types import Clips, Extraction, ExtractOptions, Facts, Reason
from jobs import s3
from jobs.download import TempDisk, Wanted, _fetched, download
from jobs.listed import Listed
from jobs.listing import Listing, Narrowed
from jobs.plan import plan
from jobs.stages import Extract

pytestmark = pytest.mark.xdist_group("s3")

ODD_KEYS = (
    "a b.mp4",
    "a#1.mp4",
    "100%.mp4",
    "%41.mp4",
    "[1].mp4",
    "{x}*?.mp4",
    "new\nline.mp4",
    "tab\t.mp4",
    "ü日本.mp4",
    "quote'\"&<>.mp4",
    "+plus+.mp4",
    "deep/" * 190 + "x.mp4",
)
# SeaweedFS rewrites these; moto keeps them.
REWRITTEN_KEYS = ("dir//x.mp4", "/leading.mp4", "./dot.mp4", "a/../b.mp4", "back\\slash.mp4")


def _put(bucket: str, *keys: str, body: bytes = b"body") -> None:
    for key in keys:
        s3.client().put_object(Bucket=bucket, Key=key, Body=body)


def _keys(listing: Listing) -> list[str]:
    return sorted(s3.parse(item.uri).key for item in listing)


def _wanted(item: Listed, size: int | None = None) -> Wanted:
    return Wanted(item.uri, item.version, item.size if size is None else size, item.version_id)


def _read(item) -> bytes:
    with download(_wanted(item), 1 << 30) as got:
        return got.file.read()


def test_a_prefix_is_a_folder_and_what_is_no_video_is_counted(bucket: str) -> None:
    _put(bucket, "in/a.mp4", "in/deep/b.MOV", "in/notes.txt", "in/results/c.mp4", "inside.mp4", "other/d.mp4")
    for prefix in ("in", "in/"):
        listing = Listing([f"s3://{bucket}/{prefix}"], output=f"s3://{bucket}/in")
        assert _keys(listing) == ["in/a.mp4", "in/deep/b.MOV"]
        assert dict(listing.skipped) == {".txt": 1, "object of results": 1}
    assert len(_keys(Listing([f"s3://{bucket}"]))) == 5
    assert _keys(Listing([f"s3://{bucket}/in/", f"s3://{bucket}/other/"], ["d.*"])) == ["other/d.mp4"]


def test_a_key_that_is_named_is_taken_and_patterns_are_matched(bucket: str) -> None:
    _put(bucket, "in/a.bin", "in/b.mp4", "in/2024-1.mp4", "in/2024-2.mp4", "in/[1].mp4")
    assert _keys(Listing([f"s3://{bucket}/in/a.bin"])) == ["in/a.bin"]
    assert _keys(Listing([f"s3://{bucket}/in/2024-*"])) == ["in/2024-1.mp4", "in/2024-2.mp4"]
    assert _keys(Listing([f"s3://{bucket}/*.bin"])) == ["in/a.bin"]
    assert _keys(Listing([f"s3://{bucket}/in/[1].mp4"])) == ["in/[1].mp4"]


def test_an_object_is_listed_with_what_the_table_says_of_it(bucket: str) -> None:
    _put(bucket, "a.mp4")
    [item] = Listing([f"s3://{bucket}/"])
    [named] = Listing([f"s3://{bucket}/a.mp4"])
    assert item.uri == f"s3://{bucket}/a.mp4"
    assert item.size == 4
    assert item.version == hashlib.md5(b"body", usedforsecurity=False).hexdigest()
    assert item.modified_at is not None
    assert (named.uri, named.size, named.version) == (item.uri, item.size, item.version)


def test_every_key_survives_into_the_listing_and_back(bucket: str) -> None:
    _put(bucket, *ODD_KEYS)
    listed = list(Listing([f"s3://{bucket}/"], ["*"]))
    assert sorted(s3.parse(item.uri).key for item in listed) == sorted(ODD_KEYS)
    assert {_read(item) for item in listed} == {b"body"}


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of the imitation that keeps odd keys and archive classes, which SeaweedFS does not."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    s3.client.cache_clear()
    bucket = f"odd-{uuid.uuid4().hex}"  # moto's buckets are the process's, not the server's
    s3.client().create_bucket(Bucket=bucket)
    yield bucket
    s3.client.cache_clear()
    server.stop()


def test_keys_that_stores_like_to_tidy_survive(moto: str) -> None:
    _put(moto, *REWRITTEN_KEYS)
    listed = list(Listing([f"s3://{moto}/"]))
    assert sorted(s3.parse(item.uri).key for item in listed) == sorted(REWRITTEN_KEYS)
    assert {_read(item) for item in listed} == {b"body"}


def test_many_folders_are_listed_side_by_side_and_completely(bucket: str) -> None:
    keys = [f"{folder:02}/{number:03}.mp4" for folder in range(12) for number in range(9)]
    _put(bucket, *keys, "top.mp4")
    assert _keys(Listing([f"s3://{bucket}/"])) == sorted([*keys, "top.mp4"])
    before = threading.active_count()
    started = iter(Listing([f"s3://{bucket}/"]))
    next(started)
    started.close()  # type: ignore[attr-defined]
    assert threading.active_count() - before <= 8  # they end by themselves; none waits for ever


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s3://{bucket}/nothing/", "there is nothing at"),
        ("s3://{bucket}/no*.mp4", "nothing matches"),
        ("s3://no-such-bucket-here/", "cannot be listed: NoSuchBucket"),
        ("s3:///key", "names no bucket"),
    ],
)
def test_an_input_that_is_not_there_is_told(bucket: str, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(Listing([name.format(bucket=bucket)]))


def test_wrong_credentials_and_a_dead_endpoint_are_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3.client.cache_clear()
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        list(Listing([f"s3://{bucket}/"]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3.client.cache_clear()
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        list(Listing([f"s3://{bucket}/"]))


# --- bodies -----------------------------------------------------------------------------------------------


def test_a_body_comes_whole_verified_and_without_a_name(bucket: str, tmp_path: Path) -> None:
    body = os.urandom(3 << 20)
    _put(bucket, "a.mp4", body=body)
    [item] = Listing([f"s3://{bucket}/"])
    with download(_wanted(item), 1 << 30) as got:
        assert got.file.read() == body
        assert got.integrity == "checksum"
        assert got.sha256 == hashlib.sha256(body).hexdigest()
        assert os.fstat(got.file.fileno()).st_nlink == 0


def _reason(item, max_bytes: int = 1 << 30) -> Reason:
    with pytest.raises(VideoError) as caught, download(_wanted(item), max_bytes):
        pass
    return caught.value.reason


def test_the_version_id_of_a_versioned_bucket_is_told(bucket: str) -> None:
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    answer = s3.client().put_object(Bucket=bucket, Key="a.mp4", Body=b"body")
    [item] = Listing([f"s3://{bucket}/"])
    with download(_wanted(item), 1 << 30) as got:
        assert got.version_id == answer["VersionId"]


def test_an_object_in_an_archive_is_archived_and_not_denied(moto: str) -> None:
    s3.client().put_object(Bucket=moto, Key="a.mp4", Body=b"body", StorageClass="GLACIER")
    [item] = Listing([f"s3://{moto}/"])
    assert item.storage_class == "GLACIER"
    assert _reason(item) is Reason.ARCHIVED


def test_the_next_body_is_fetched_while_one_is_decoded(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(bucket, "a.mp4", "b.mp4")
    fetched = threading.Barrier(2, timeout=30)

    def fetch(*arguments: Any) -> Any:
        body = _fetched(*arguments)
        fetched.wait()
        return body

    decoding: list[int] = []

    def decode(*_: Any) -> Extraction:
        decoding.append(1)
        assert len(decoding) == 1, "two videos were decoded at a time"
        time.sleep(0.2)
        decoding.pop()
        return Extraction(Facts(), Clips.none())

    monkeypatch.setattr("jobs.download._fetched", fetch)
    monkeypatch.setattr("jobs.stages.extract", decode)
    extract = Extract(ExtractOptions(), 1 << 30, 1 << 30)
    rows = plan(Listing([f"s3://{bucket}/"]), None, "s").rows
    with ThreadPoolExecutor(2) as pool:
        done = pa.concat_tables(pool.map(lambda i: extract(rows.slice(i, 1)), range(2)))
    extract.close()
    failures = [json.loads(facts)["failure"] for facts in done["facts"].to_pylist()]
    assert failures == [None, None], done["facts"].to_pylist()


def test_bodies_take_no_more_disk_together_than_there_is_for_them() -> None:
    disk, held, most = TempDisk(100), [], 0
    lock = threading.Lock()

    def keep(size: int) -> None:
        nonlocal most
        with disk.room(size):
            with lock:
                held.append(size)
                most = max(most, sum(held))
            time.sleep(0.01)
            with lock:
                held.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, [40, 60, 30, 99, 1, 50] * 5))
    assert 60 < most <= 100
    with disk.room(1000):  # alone, or it would wait for ever
        pass


def test_another_version_a_missing_one_and_a_large_one_are_told_apart(bucket: str) -> None:
    _put(bucket, "a.mp4")
    [item] = Listing([f"s3://{bucket}/"])
    assert _reason(item, max_bytes=3) is Reason.TOO_LARGE
    _put(bucket, "a.mp4", body=b"else")
    assert _reason(item) is Reason.CHANGED_DURING_READ
    s3.client().delete_object(Bucket=bucket, Key="a.mp4")
    assert _reason(item) in (Reason.NOT_FOUND, Reason.CHANGED_DURING_READ)


def test_a_body_that_is_larger_than_a_manifest_said_is_refused_before_it_is_read(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(bucket, "a.mp4", body=b"x" * 100_000)
    [item] = Listing([f"s3://{bucket}/"])
    monkeypatch.setattr("jobs.download._CHUNK", 1)
    monkeypatch.setattr("jobs.download.hashlib.sha256", lambda: pytest.fail("the body was read"))
    with (
        pytest.raises(VideoError, match="100000 bytes, 1 were listed") as caught,
        download(_wanted(item, 1), 1 << 30),
    ):
        pass
    assert caught.value.reason is Reason.CHANGED_DURING_READ


def test_an_older_version_that_a_manifest_names_is_the_one_that_is_read(bucket: str, tmp_path: Path) -> None:
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    older = s3.client().put_object(Bucket=bucket, Key="a.mp4", Body=b"older")
    _put(bucket, "a.mp4", body=b"newer!")
    rows = [
        {"uri": f"s3://{bucket}/a.mp4", "version_id": older["VersionId"]},
        {
            "uri": f"s3://{bucket}/a.mp4",
            "version_id": older["VersionId"],
            "size": 5,
            "version": older["ETag"],
        },
    ]
    for row in rows:
        (tmp_path / "list.jsonl").write_text(json.dumps(row))
        [item] = Listing([], manifests=[str(tmp_path / "list.jsonl")])
        assert _read(item) == b"older"


def test_a_key_that_looks_like_a_pattern_can_be_named(bucket: str) -> None:
    _put(bucket, "q?x=1.mp4", "qAx=1.mp4", "a*.mp4", "ab.mp4")
    assert _keys(Listing([f"s3://{bucket}/q?x=1.mp4"])) == ["q?x=1.mp4"]
    assert _keys(Listing([f"s3://{bucket}/a*.mp4"])) == ["a*.mp4"]
    assert _keys(Listing([f"s3://{bucket}/q*.mp4"], ["*"])) == ["q?x=1.mp4", "qAx=1.mp4"]


def test_what_a_pattern_finds_can_be_excluded_and_is_nothing_of_the_scans_own(bucket: str) -> None:
    _put(bucket, "in/a.mp4", "in/trash/b.mp4", "in/results/c.mp4", "in/summary.json")
    listing = Listing(
        [f"s3://{bucket}/in/*.mp4"], output=f"s3://{bucket}/in", narrowed=Narrowed(exclude=["trash/*"])
    )
    assert _keys(listing) == ["in/a.mp4"]
    assert dict(listing.skipped) == {"excluded": 1, "object of results": 1}
    everything = Listing([f"s3://{bucket}/in/"], ["*"], output=f"s3://{bucket}/in")
    assert _keys(everything) == ["in/a.mp4", "in/trash/b.mp4"]
