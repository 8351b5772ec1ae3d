"""One planned video, open for reading, wherever it lies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from jobs.download import TempDisk, Wanted, download
from jobs.local import open_version, scheme_of


def is_downloaded(uri: str) -> bool:
    """Whether a video has to be fetched before it can be opened."""
    return scheme_of(uri) == "s3"


@dataclass(frozen=True, slots=True)
class Opened:
    """A body, and what is known of it because it passed through here."""

    file: BinaryIO
    fetch_s: float
    """Time to download and open, without waiting for room."""
    integrity: str | None = None
    """`checksum` or `length` of a download; None for a local file."""
    content_sha256: str | None = None
    version_id: str | None = None
    """What the store calls this version, where it keeps versions."""


@contextmanager
def open_planned(
    planned: Mapping[str, Any], max_bytes: int, disk: TempDisk | None = None
) -> Iterator[Opened]:
    """The very version that was planned (columns uri, version, size), open for reading.

    What has to be downloaded first waits for room on `disk`.

    Raises:
        VideoError: it is not there, not the version that was planned, larger than `max_bytes`, or cannot be
            read.
    """
    if is_downloaded(planned["uri"]):
        wanted = Wanted(planned["uri"], planned["version"], planned["size"], planned.get("version_id"))
        with download(wanted, max_bytes, disk) as got:
            yield Opened(got.file, got.seconds, got.integrity, got.sha256, got.version_id)
    else:
        started = time.monotonic()
        with open_version(planned["uri"], planned["version"], max_bytes) as file:
            yield Opened(file, time.monotonic() - started)
