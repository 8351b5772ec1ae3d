"""One planned video, open for reading, wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from jobs.download import download
from jobs.local import open_version, scheme_of


@dataclass(frozen=True, slots=True)
class Opened:
    """A body, and what is known of it because it passed through here."""

    file: BinaryIO
    integrity: str | None = None
    """`checksum` or `length` of a download; None for a local file."""
    content_sha256: str | None = None


@contextmanager
def open_planned(planned: Mapping[str, Any], max_bytes: int) -> Iterator[Opened]:
    """The very version that was planned (columns uri, version, size), open for reading.

    Raises:
        VideoError: it is not there, not the version that was planned, larger than `max_bytes`, or cannot be
            read.
    """
    if scheme_of(planned["uri"]) == "s3":
        with download(planned["uri"], planned["version"], planned["size"], max_bytes) as got:
            yield Opened(got.file, got.integrity, got.sha256)
    else:
        with open_version(planned["uri"], planned["version"], max_bytes) as file:
            yield Opened(file)
