"""A whole object on its way to a temporary file, pinned to the version that was listed.

Whole, because only a whole body can be verified: a ranged read checks nothing. boto3 compares the checksum
that the object was stored with; the length is compared in any case. `jobs.retry` tells how long a body is
asked for again, and who is to blame in the end.
"""

from __future__ import annotations

import hashlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from errno import EFBIG
from typing import IO, Any, BinaryIO, cast

from detector.errors import StorageError, VideoError
from detector.types import Reason
from jobs.retry import BadBodyError, Retry, SlowBodyError
from jobs.s3 import client, of_version, parse

# A read returns when it is full, so the smaller, the sooner is a slow body seen to be slow.
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object as it was listed."""

    uri: str
    """`s3://bucket/key`."""
    version: str
    """Its ETag, without quotes."""
    size: int
    """Bytes."""
    version_id: str | None = None
    """Of a version that is not, or may no longer be, the newest."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A body in a temporary file that has no name; it goes when it is closed."""

    file: BinaryIO
    integrity: str
    """`checksum` where the store kept one of the whole object, else `length`."""
    sha256: str
    version_id: str | None
    """None where the bucket keeps no versions."""
    seconds: float = 0.0
    """That it took, without the wait for room."""


class TempDisk:
    """Room for the bodies that are on disk at the same time; for several threads.

    Args:
        most_bytes: Of them together. A body that is larger waits until it is alone.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most, self._taken = most_bytes, 0
        self._changed = threading.Condition()

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, and keep it."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + size <= self._most)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


@contextmanager
def download(wanted: Wanted, max_bytes: int, disk: TempDisk | None = None) -> Iterator[Downloaded]:
    """One object, read whole and verified.

    Args:
        wanted: As it was listed.
        max_bytes: A larger one is not asked for.
        disk: What it has to find room on.

    Raises:
        VideoError: too_large, changed_during_read, not_found, access_denied, archived; fetch_failed where
            this object cannot be had.
        StorageError: no object can be had: the store is gone, our credentials are refused, or the temporary
            disk is full.
    """
    if wanted.size > max_bytes:
        raise VideoError(Reason.TOO_LARGE, f"{wanted.size} bytes; at most {max_bytes} are read")
    with disk.room(wanted.size) if disk else nullcontext(), _temporary() as file:
        started = time.monotonic()
        body = _fetched(wanted, file)
        file.seek(0)
        yield replace(body, seconds=time.monotonic() - started)


def _temporary() -> IO[bytes]:
    """A file without a name or a buffer, which would fail when it is closed."""
    try:
        return cast("IO[bytes]", tempfile.TemporaryFile(prefix="deepfake-scan-", buffering=0))
    except OSError as error:
        raise _disk_error(error) from error


def _disk_error(error: OSError) -> StorageError:
    folder = f"{tempfile.tempdir} on {socket.gethostname()}" if tempfile.tempdir else socket.gethostname()
    return StorageError(
        f"videos cannot be downloaded to {folder}: {error.strerror or error}",
        hint="Make room there, lower temp_bytes (what they take on each node) or max_bytes, or set TMPDIR to "
        "a larger disk before Ray starts. What is committed is kept; the same command does the rest.",
    )


def _fetched(wanted: Wanted, file: IO[bytes]) -> Downloaded:
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    retry = Retry(parse(wanted.uri))
    while True:
        try:
            return _read(wanted, file, retry)
        except (BotoCoreError, ClientError, HTTPError, OSError, BadBodyError, SlowBodyError) as error:
            retry.wait_after(error)
        file.seek(0)
        file.truncate()


def _read(wanted: Wanted, file: IO[bytes], retry: Retry) -> Downloaded:
    where = parse(wanted.uri)
    answer: Any = client(bodies=True).get_object(
        Bucket=where.bucket,
        Key=where.key,
        IfMatch=f'"{wanted.version}"',
        ChecksumMode="ENABLED",
        **of_version(wanted.version_id),
    )
    with closing(answer["Body"]) as body:
        if answer["ContentLength"] != wanted.size:  # a manifest may say anything; there is room for that much
            raise VideoError(
                Reason.CHANGED_DURING_READ,
                f"it has {answer['ContentLength']} bytes, {wanted.size} were listed",
            )
        digest, length = hashlib.sha256(), 0
        came = time.monotonic()
        for chunk in iter(lambda: body.read(_CHUNK), b""):
            came, before = time.monotonic(), came
            retry.note(len(chunk), came - before)
            _write(file, chunk)
            digest.update(chunk)
            length += len(chunk)
    if length != wanted.size:
        raise BadBodyError(f"{length} bytes came, {wanted.size} were listed")
    whole = answer.get("ChecksumType") != "COMPOSITE"
    checked = whole and any(name.startswith("Checksum") and name != "ChecksumType" for name in answer)
    integrity = "checksum" if checked else "length"
    return Downloaded(cast("BinaryIO", file), integrity, digest.hexdigest(), answer.get("VersionId"))


def _write(file: IO[bytes], chunk: bytes) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        if error.errno == EFBIG:  # there is room, but not for so large a file
            raise VideoError(Reason.FETCH_FAILED, f"{tempfile.tempdir}: {error.strerror}") from error
        raise _disk_error(error) from error
