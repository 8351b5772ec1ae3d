"""Videos on local disk: folders, single files and patterns are listed; one version is opened.

- A folder is walked with everything below it, hidden files too. Links to files are followed, links to folders
  are not: they make circles, and lead out of what was named. A folder that was itself named may be a link.
- Names: a local uri is the absolute path as it is. Where the name is not UTF-8, which no table can hold, it
  is a percent-encoded `file://` URI. Both open again with `open_local`.
"""

# os.path keeps names as they are; a Path would normalise them.
# ruff: noqa: PTH100, PTH111, PTH112, PTH116, PTH119, PTH120

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from glob import has_magic
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

from detector.errors import InputError, VideoError
from detector.types import Reason
from jobs.listed import Listed, Selection, suffix
from jobs.schema import printable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def scheme_of(name: str) -> str | None:
    """`s3` of `s3://bucket/key`, None for a plain path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name)
    return match[1].lower() if match else None


def local_uri(path: str) -> str:
    """What the table calls the absolute `path` (as `os.fsdecode` gives it)."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def uri_of(path: str) -> str:
    """What the table calls a local path, however it is written."""
    return local_uri(_absolute(path))


def local_path(uri: str) -> str | None:
    """The path of a local `uri` or input, None where the scheme is another."""
    scheme = scheme_of(uri)
    if scheme == "file":
        return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost")))
    return uri if scheme is None else None


def local_version(status: os.stat_result) -> str:
    """What stands in for an ETag on local disk: a change of the content changes mtime or size."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def open_local(uri: str) -> BinaryIO:
    """The file behind `uri`, open for reading.

    Raises:
        VideoError: not_found, access_denied, not_video (no regular file) or fetch_failed.
    """
    path = local_path(uri) or ""
    try:
        # Not blocking: a pipe put in the file's place would otherwise hold the worker for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise VideoError(_open_reason(error), getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VideoError(Reason.NOT_VIDEO, "it is not a regular file")
    return os.fdopen(descriptor, "rb")


@contextmanager
def open_version(uri: str, version: str, max_bytes: int) -> Iterator[BinaryIO]:
    """The very version that was listed, open for reading.

    Raises:
        VideoError: as `open_local`; too_large above `max_bytes`; changed_during_read where the file is not,
            or after the body no longer is, the version that was listed.
    """
    with open_local(uri) as file:
        status = os.fstat(file.fileno())
        _same(status, version)
        if status.st_size > max_bytes:
            raise VideoError(Reason.TOO_LARGE, f"{status.st_size} bytes; at most {max_bytes} are read")
        yield file
        _same(os.fstat(file.fileno()), version)


def _same(status: os.stat_result, version: str) -> None:
    if local_version(status) != version:
        raise VideoError(Reason.CHANGED_DURING_READ, "the file is not the one that was listed")


def _open_reason(error: OSError | ValueError) -> Reason:
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return Reason.NOT_FOUND
    if isinstance(error, PermissionError):
        return Reason.ACCESS_DENIED
    # A socket in the file's place, or a device without a driver.
    return Reason.NOT_VIDEO if error.errno in (errno.ENXIO, errno.ENODEV) else Reason.FETCH_FAILED


def list_local(selection: Selection, name: str) -> Iterator[Listed]:
    """The files behind a folder, a file or a pattern.

    Raises:
        InputError: it does not exist, cannot be read, or matches nothing.
    """
    path = _absolute(local_path(name) or "")
    if os.path.isdir(path):
        yield from _walk(selection, path)
    elif os.path.lexists(path):
        yield _named(path)
    elif has_magic(path):
        yield from _matching(selection, path)
    else:
        raise InputError(
            f"{printable(path)} does not exist",
            hint="Check the spelling, and that the disk is mounted. Patterns need quotes: 'videos/*.mp4'.",
        )


def _absolute(path: str) -> str:
    if not path or "\0" in path:
        raise InputError(f"'{printable(path)}' is not a path", hint="Name a folder or a video.")
    path = os.path.expanduser(path)
    # `link/..` is not where the text alone leads.
    return os.path.realpath(path) if ".." in Path(path).parts else os.path.abspath(path)


def one_local(name: str) -> Listed | None:
    """The one file of that very name, None where there is none; nothing in the name is a pattern.

    A folder, or whatever else is no file, is there, and what opens it says what it is.
    """
    path = _absolute(local_path(name) or "")
    try:
        return _listed(path, os.stat(path))
    except OSError:
        return None


def _named(path: str) -> Listed:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{printable(path)} is neither a file nor a folder", hint="Name one or the other.")
    return _listed(path, status)


def _matching(selection: Selection, pattern: str) -> Iterator[Listed]:
    """Files and, as the shell would hand them over, folders that match. `**` reaches into folders by itself.

    A pattern that spells out a suffix (`*.dat`) takes what it matches; any other is filtered as a folder is.
    """
    recursive = "**" in pattern
    spelled_out = suffix(pattern) not in ("", ".") and not has_magic(suffix(pattern))
    top = os.path.dirname(re.split(r"[*?[]", pattern, maxsplit=1)[0])
    found = False
    for path in _glob(pattern):
        found = True
        if os.path.isdir(path):
            if not recursive:
                yield from _walk(selection, path)
            continue
        inside = os.path.relpath(path, top)
        if not _is_own(selection, path) and selection.takes(
            os.path.basename(path), inside, spelled_out=spelled_out
        ):
            yield from _entry(selection, path)
    if not found:
        raise InputError(f"nothing matches {printable(pattern)}", hint="Check the spelling of the pattern.")


def _glob(pattern: str) -> Iterator[str]:
    # Of pathlib, because `**` of the glob module follows links to folders, in circles too.
    pattern = pattern + "/*" if pattern.endswith("**") else pattern
    try:
        yield from map(str, Path("/").glob(pattern.strip("/")))
    except ValueError as error:
        raise InputError(f"{printable(pattern)}: {error}", hint="Write it as 'videos/**/*.mp4'.") from error


def _walk(selection: Selection, top: str) -> Iterator[Listed]:
    """Everything below a folder. Its folders are kept on a list, not on the stack: trees can be deep."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if folder == top:
                raise InputError(f"{printable(top)} cannot be listed: {error.strerror}") from error
            selection.skipped["folder that cannot be listed"] += 1
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if os.path.realpath(entry.path) in selection.own:
                    selection.skipped["folder of results"] += 1
                else:
                    folders.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                selection.skipped["link to a folder"] += 1
            elif entry.name == "summary.json" and _is_own(selection, entry.path):
                continue
            elif selection.takes(entry.name, os.path.relpath(entry.path, top)):
                yield from _entry(selection, entry.path)


def _is_own(selection: Selection, path: str) -> bool:
    """True, and counted, for a file that the scan itself writes."""
    real = os.path.realpath(path)
    if not any(real == own or real.startswith(f"{own}/") for own in selection.own):
        return False
    selection.skipped["file of results"] += 1
    return True


def _entry(selection: Selection, path: str) -> Iterator[Listed]:
    try:
        status = os.stat(path)
    except OSError:
        selection.skipped["file that went away, or a broken link"] += 1
        return
    if stat.S_ISREG(status.st_mode):
        yield _listed(path, status)
    else:
        selection.skipped["not a regular file"] += 1


def _listed(path: str, status: os.stat_result) -> Listed:
    try:
        modified = _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        modified = None
    return Listed(local_uri(path), status.st_size, local_version(status), modified)
