"""Small files that are there whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detector.errors import StorageError, TableHeldError
from jobs.schema import printable


def write_whole(path: Path, content: str | bytes) -> None:
    """Put text or bytes in place of a file; where that fails, what was there stays.

    Raises:
        StorageError: the disk is full, or gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def make_folder(path: Path) -> None:
    """A folder that is there from now on.

    Raises:
        StorageError: something else is, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes on any machine that shares the disk's locks out of a folder.

    Raises:
        TableHeldError: one of them is in it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TableHeldError(
                f"another training writes to {printable(str(folder))}",
                hint="Wait for it, or name another output.",
            ) from None
        yield


def storage_error(path: Path, error: OSError) -> StorageError:
    """The error of a disk that failed at a path."""
    return StorageError(
        f"{printable(str(path))}: {error.strerror or error}", hint="Put the disk right, or name another."
    )
