"""Playback by Range: the right bytes of the very version, from disk and from S3, a piece at a time."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import s3
from jobs.review.playback import Span, UnsatisfiableError, content_type, span_of
from jobs.schema import video_id
from jobs.table import ResultsTable
from tests.jobs.review.conftest import Shown, row_of
from tests.jobs.samples import sample_row

SIZE = 256 * 40


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, 100)),
        ("Bytes=10-19", Span(10, 20)),
        ("bytes=90-1000", Span(90, 100)),
        ("bytes=-10", Span(90, 100)),
        ("bytes=-1000", Span(0, 100)),
        ("bytes= 1 - 2 ", Span(1, 3)),
        (None, None),
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0-1, 0-1, 0-1, 0-1", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=0x1-2", None),
        ("bytes=+1-2", None),
        ("bytes=\u0661-\u0662", None),
        (f"bytes={'9' * 400}-", None),
    ],
)
def test_a_range_is_one_span_or_none(header: str | None, span: Span | None) -> None:
    assert span_of(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=999999999999999999-"])
def test_a_range_behind_the_end_is_told(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        span_of(header, 100)
    with pytest.raises(UnsatisfiableError):
        span_of("bytes=0-", 0)


@given(header=st.text(alphabet="bytes=-, 0123456789", max_size=30), size=st.integers(0, 1000))
def test_whatever_is_asked_a_span_lies_inside(header: str, size: int) -> None:
    try:
        span = span_of(header, size)
    except UnsatisfiableError:
        return
    assert span is None or 0 <= span.start < span.end <= size


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", "video/mp4"),
        ("matroska,webm", "video/x-matroska"),
        ("avi", "video/x-msvideo"),
        ("text/html", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_the_type_comes_from_a_fixed_list(container: str | None, kind: str) -> None:
    assert content_type(container) == kind


def test_bytes_come_as_they_lie_on_disk(shown: Shown) -> None:
    client, whole = shown.browser(), shown.path().read_bytes()
    path = f"{shown.page()}/media"
    answer = client.get(path)
    assert (answer.status_code, answer.content) == (200, whole)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["cache-control"] == "no-store"
    for asked, start, end in (("5-9", 5, 10), ("-7", SIZE - 7, SIZE), ("10000-", 10000, SIZE)):
        answer = client.get(path, headers={"range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, whole[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    answer = client.get(path, headers={"range": "bytes=0-1,5-6"})
    assert (answer.status_code, answer.content) == (200, whole), "several ranges are answered whole"
    answer = client.get(path, headers={"range": f"bytes={SIZE}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    tag = client.head(path).headers["etag"]
    for given_tag, status in ((tag, 206), ('"other"', 200), ("Tue, 24 Nov 2026 00:00:00 GMT", 200)):
        headers = {"range": "bytes=0-1", "if-range": given_tag}
        assert client.get(path, headers=headers).status_code == status, given_tag
    answer = client.head(path, headers={"range": "bytes=0-9"})
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (206, "10", b"")


def test_a_video_that_changed_or_went_is_told(shown: Shown) -> None:
    client, path = shown.browser(), f"{shown.page()}/media"
    shown.path().write_bytes(b"x" * SIZE)
    for method in ("GET", "HEAD"):
        assert client.request(method, path).status_code == 410
    assert "not the one that was listed" in client.get(path).text
    shown.path().unlink()
    assert client.get(path).status_code == 410
    os.mkfifo(shown.path())
    assert client.get(path).status_code == 410, "a pipe would hold the server for ever"


def test_memory_stays_flat_and_nothing_stays_open(shown: Shown) -> None:
    with shown.path(3).open("r+b") as file:
        file.truncate(512 << 20)
    row = row_of(shown.path(3), 0.1, "not_flagged")
    with ResultsTable.open(str(shown.output)).claim("two") as table:
        table.append([row])
    client, path = shown.browser(), f"/videos/{row['video_id']}/media"
    client.get(path, headers={"range": "bytes=0-0"})
    before, got = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    with client.stream("GET", path) as answer:
        for piece in answer.iter_raw():
            got += len(piece)
    assert got == 512 << 20
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 64, f"{grown:.0f} MiB more for a body of 512 MiB"
    for _ in range(5):  # players leave in the middle all the time
        with client.stream("GET", path) as answer:
            next(answer.iter_raw())
    deadline = time.monotonic() + 10
    while _open_files(shown.path(3)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _open_files(shown.path(3)) == 0


def _open_files(path: Path) -> int:
    return [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()].count(path)


@pytest.mark.xdist_group("s3")
def test_bytes_come_from_s3_as_they_were_scanned(bucket: str, shown: Shown, tmp_path: Path) -> None:
    body = bytes(range(256)) * 4000
    s3.client().put_object(Bucket=bucket, Key="a [1] #%41.mp4", Body=body)
    uri = f"s3://{bucket}/a [1] #%41.mp4"
    [found] = [s3.head(s3.parse(uri))]
    assert found is not None
    row: dict[str, Any] = sample_row() | {"uri": uri, "version": found.version, "size_bytes": len(body)}
    row["video_id"] = video_id(uri, found.version)
    with ResultsTable.open(str(shown.output)).claim("two") as table:
        table.append([row])
    client, path = shown.browser(), f"/videos/{row['video_id']}/media"
    assert client.get(path).content == body
    answer = client.get(path, headers={"range": "bytes=300000-700000"})
    assert (answer.status_code, answer.content) == (206, body[300000:700001])
    answer = client.head(path)
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(body)))
    s3.client().put_object(Bucket=bucket, Key="a [1] #%41.mp4", Body=body[:-1])
    answer = client.get(path)
    assert (answer.status_code, "is not the one that was scanned" in answer.text) == (410, True)
    s3.client().delete_object(Bucket=bucket, Key="a [1] #%41.mp4")
    assert client.get(path).status_code == 410
