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
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from detector.errors import VideoError
from detector.types import Reason
from jobs.s3 import client, error_code, parse

_CHUNK = 1 << 20
_TRIES = 3
_REASONS = {
    "PreconditionFailed": (Reason.CHANGED_DURING_READ, "the object is not the one that was listed"),
    "412": (Reason.CHANGED_DURING_READ, "the object is not the one that was listed"),
    "NoSuchKey": (Reason.NOT_FOUND, "the object is gone"),
    "404": (Reason.NOT_FOUND, "the object is gone"),
    "AccessDenied": (Reason.ACCESS_DENIED, "the store refuses to hand the object out"),
    "403": (Reason.ACCESS_DENIED, "the store refuses to hand the object out"),
    "InvalidObjectState": (Reason.ARCHIVED, "the object lies in an archive class and must be restored first"),
}


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A body in a temporary file that has no name; it goes when it is closed."""

    file: BinaryIO
    integrity: str
    """`checksum` where the store kept one of the whole object, else `length`."""
    sha256: str
    version_id: str | None
    """None where the bucket keeps no versions."""


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
def download(
    uri: str, version: str, size: int, max_bytes: int, disk: TempDisk | None = None
) -> Iterator[Downloaded]:
    """One object, read whole and verified.

    Args:
        uri: `s3://bucket/key`.
        version: Its ETag as it was listed, without quotes.
        size: Its size as it was listed.
        max_bytes: A larger one is not asked for.
        disk: What it has to find room on.

    Raises:
        VideoError: too_large, changed_during_read, not_found, access_denied, archived; fetch_failed after
            three whole reads.
    """
    if size > max_bytes:
        raise VideoError(Reason.TOO_LARGE, f"{size} bytes; at most {max_bytes} are read")
    with (
        disk.room(size) if disk else nullcontext(),
        tempfile.TemporaryFile(prefix="deepfake-scan-") as file,
    ):
        body = _fetched(uri, version, size, cast("IO[bytes]", file))
        file.seek(0)
        yield body


def _fetched(uri: str, version: str, size: int, file: IO[bytes]) -> Downloaded:
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    last: Exception | None = None
    for number in range(_TRIES):
        if number:
            time.sleep(random.uniform(0.5, 1.5) * number)
            file.seek(0)
            file.truncate()
        try:
            return _read(uri, version, size, file)
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


def _read(uri: str, version: str, size: int, file: IO[bytes]) -> Downloaded:
    where = parse(uri)
    answer: Any = client().get_object(
        Bucket=where.bucket, Key=where.key, IfMatch=f'"{version}"', ChecksumMode="ENABLED"
    )
    digest, length = hashlib.sha256(), 0
    for chunk in iter(lambda: answer["Body"].read(_CHUNK), b""):
        file.write(chunk)
        digest.update(chunk)
        length += len(chunk)
    if length != size:
        raise _ShortBodyError(f"{length} bytes came, {size} were listed")
    whole = answer.get("ChecksumType") != "COMPOSITE"
    checked = whole and any(name.startswith("Checksum") and name != "ChecksumType" for name in answer)
    integrity = "checksum" if checked else "length"
    return Downloaded(cast("BinaryIO", file), integrity, digest.hexdigest(), answer.get("VersionId"))
