"""A whole object on its way to a temporary file, pinned to the version that was listed.

Whole, because only a whole body can be verified: a ranged read checks nothing. boto3 compares the checksum
that the object was stored with; the length is compared in any case.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import IO, Any, BinaryIO, cast

from detector.errors import VideoError
from detector.types import Reason
from jobs.s3 import client, error_code, of_version, parse

_CHUNK = 1 << 20
_TRIES = 3
_REASONS = {
    "PreconditionFailed": (Reason.CHANGED_DURING_READ, "the object is not the one that was listed"),
    "412": (Reason.CHANGED_DURING_READ, "the object is not the one that was listed"),
    "NoSuchKey": (Reason.NOT_FOUND, "the object is gone"),
    "404": (Reason.NOT_FOUND, "the object is gone"),
    "NoSuchVersion": (Reason.NOT_FOUND, "this version of the object is gone"),
    "AccessDenied": (Reason.ACCESS_DENIED, "the store refuses to hand the object out"),
    "403": (Reason.ACCESS_DENIED, "the store refuses to hand the object out"),
    "InvalidObjectState": (Reason.ARCHIVED, "the object lies in an archive class and must be restored first"),
}


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
        VideoError: too_large, changed_during_read, not_found, access_denied, archived; fetch_failed after
            three whole reads.
    """
    if wanted.size > max_bytes:
        raise VideoError(Reason.TOO_LARGE, f"{wanted.size} bytes; at most {max_bytes} are read")
    with (
        disk.room(wanted.size) if disk else nullcontext(),
        tempfile.TemporaryFile(prefix="deepfake-scan-") as file,
    ):
        started = time.monotonic()
        body = _fetched(wanted, cast("IO[bytes]", file))
        file.seek(0)
        yield replace(body, seconds=time.monotonic() - started)


def _fetched(wanted: Wanted, file: IO[bytes]) -> Downloaded:
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    last: Exception | None = None
    for number in range(_TRIES):
        if number:
            time.sleep(random.uniform(0.5, 1.5) * number)
            file.seek(0)
            file.truncate()
        try:
            return _read(wanted, file)
        except ClientError as error:
            code = error_code(error)
            if code in _REASONS:
                raise VideoError(*_REASONS[code]) from error
            last = error
        except (BotoCoreError, HTTPError, OSError, _ShortBodyError) as error:
            last = error
    raise VideoError(Reason.FETCH_FAILED, f"{type(last).__name__}: {last}") from last


class _ShortBodyError(Exception):
    """The body has another length than the listing said."""


def _read(wanted: Wanted, file: IO[bytes]) -> Downloaded:
    where = parse(wanted.uri)
    answer: Any = client().get_object(
        Bucket=where.bucket,
        Key=where.key,
        IfMatch=f'"{wanted.version}"',
        ChecksumMode="ENABLED",
        **of_version(wanted.version_id),
    )
    if answer["ContentLength"] != wanted.size:  # a manifest may say anything, and the disk has room for that
        answer["Body"].close()
        raise VideoError(
            Reason.CHANGED_DURING_READ, f"it has {answer['ContentLength']} bytes, {wanted.size} were listed"
        )
    digest, length = hashlib.sha256(), 0
    for chunk in iter(lambda: answer["Body"].read(_CHUNK), b""):
        file.write(chunk)
        digest.update(chunk)
        length += len(chunk)
    if length != wanted.size:
        raise _ShortBodyError(f"{length} bytes came, {wanted.size} were listed")
    whole = answer.get("ChecksumType") != "COMPOSITE"
    checked = whole and any(name.startswith("Checksum") and name != "ChecksumType" for name in answer)
    integrity = "checksum" if checked else "length"
    return Downloaded(cast("BinaryIO", file), integrity, digest.hexdigest(), answer.get("VersionId"))
