"""Which files are to be scanned: folders, single files and patterns on local disk, each as one `Listed`.

- A folder is walked with everything below it, hidden files too. Links to files are followed, links to folders
  are not: they make circles, and lead out of what was named. A folder that was itself named may be a link.
- Videos are told by suffix; `include` patterns replace that. A file that was named is always taken.
- What is passed over is counted in `Listing.skipped`, never silently dropped.

Names: a local uri is the absolute path as it is. Where the name is not UTF-8, which no table can hold, it is
a percent-encoded `file://` URI. Both open again with `open_uri`.
"""

# os.path keeps names as they are; a Path would normalise them.
# ruff: noqa: PTH100, PTH111, PTH112, PTH116, PTH119, PTH122

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

from detector.errors import InputError, VideoError
from detector.types import Reason
from jobs.schema import printable

SUFFIXES = frozenset(
    f".{s}"
    for s in "mp4 m4v mov mkv webm avi ts mts m2ts flv wmv asf 3gp 3g2 mpg mpeg ogv gif".split()  # noqa: SIM905
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Listed:
    """One version of one video. `size` in bytes, `modified_at` in UTC, None where no calendar holds it."""

    uri: str
    size: int
    version: str
    modified_at: datetime | None
    storage_class: str | None = None


class Listing:
    """The files behind `inputs`; iterate over it once.

    A file that several inputs name comes several times; `plan` takes it once.

    Attributes:
        skipped: After the iteration, how many entries were passed over, by suffix or by what they are.
    """

    def __init__(self, inputs: Sequence[str], include: Sequence[str] = (), output: str | None = None) -> None:
        self.inputs = tuple(inputs)
        self.skipped: Counter[str] = Counter()
        self._results = _result_folders(output)
        self._include = tuple(p.lower() for p in include)

    def __iter__(self) -> Iterator[Listed]:
        if not self.inputs:
            raise InputError("nothing to scan", hint="Name a folder, a video, or a quoted pattern.")
        for name in self.inputs:
            yield from _lister(name)(self, name)

    def is_ours(self, folder: str) -> bool:
        """True if the scan itself writes this folder."""
        return bool(self._results) and os.path.realpath(folder) in self._results

    def takes(self, name: str, inside: str) -> bool:
        """True if the file, at `inside` below its input, looks like a video; else it is counted."""
        if self._include:
            name, inside = name.lower(), inside.lower()
            taken = any(fnmatch(name, p) or fnmatch(inside, p) for p in self._include)
        else:
            taken = suffix(name) in SUFFIXES
        if not taken:
            self.skipped[_kind(name)] += 1
        return taken


def _result_folders(output: str | None) -> frozenset[str]:
    """What a scan writes below its output, which may lie among the videos."""
    if output is None:
        return frozenset()
    return frozenset(os.path.realpath(f"{output}/{name}") for name in ("results", "scans"))


def suffix(name: str) -> str:
    """The suffix of a file name, lower case with its dot, "" where it has none."""
    return os.path.splitext(name)[1].lower()


def _kind(name: str) -> str:
    ending = suffix(name)
    if not ending:
        return "no suffix"
    # Dates and hashes behind a dot would make the count endless.
    return ending if len(ending) <= 8 and ending[1:].isalnum() and ending.isascii() else "other suffix"


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
    scheme = _scheme(uri)
    if scheme == "file":
        return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://").removeprefix("localhost")))
    return uri if scheme is None else None


def local_version(status: os.stat_result) -> str:
    """What stands in for an ETag on local disk: a change of the content changes mtime or size."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def open_uri(uri: str) -> BinaryIO:
    """The file behind `uri`, open for reading.

    Raises:
        VideoError: not_found, access_denied, not_video (no regular file) or fetch_failed.
    """
    path = local_path(uri)
    if path is None:
        raise VideoError(Reason.FETCH_FAILED, f"{_scheme(uri)}:// cannot be read by this release")
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
def open_listed(planned: Mapping[str, Any], max_bytes: int) -> Iterator[BinaryIO]:
    """The very version that was planned (columns uri, version), open for reading.

    Raises:
        VideoError: as `open_uri`; too_large above `max_bytes`; changed_during_read where the file is not, or
            after the body no longer is, the version that was listed.
    """
    with open_uri(planned["uri"]) as file:
        status = os.fstat(file.fileno())
        _same(status, planned["version"])
        if status.st_size > max_bytes:
            raise VideoError(Reason.TOO_LARGE, f"{status.st_size} bytes; at most {max_bytes} are read")
        yield file
        _same(os.fstat(file.fileno()), planned["version"])


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


def _scheme(name: str) -> str | None:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name)
    return match[1].lower() if match else None


def _lister(name: str) -> Callable[[Listing, str], Iterable[Listed]]:
    """Further stores are further entries here."""
    listers = {None: _list_local, "file": _list_local}
    scheme = _scheme(name)
    if scheme not in listers:
        raise InputError(
            f"{printable(name)}: {scheme}:// cannot be scanned by this release",
            hint="Name a folder, a video, or a quoted pattern on a local or mounted disk.",
        )
    return listers[scheme]


def _list_local(listing: Listing, name: str) -> Iterator[Listed]:
    path = _absolute(local_path(name) or "")
    if os.path.isdir(path):
        yield from _walk(listing, path)
    elif os.path.lexists(path):
        yield _named(path)
    elif has_magic(path):
        yield from _matching(listing, path)
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


def _named(path: str) -> Listed:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{printable(path)} is neither a file nor a folder", hint="Name one or the other.")
    return _listed(path, status)


def _matching(listing: Listing, pattern: str) -> Iterator[Listed]:
    """Files and, as the shell would hand them over, folders that match. `**` reaches into folders by itself.

    A pattern that spells out a suffix (`*.dat`) takes what it matches; any other is filtered as a folder is.
    """
    recursive = "**" in pattern
    spelled_out = suffix(pattern) not in ("", ".") and not has_magic(suffix(pattern))
    found = False
    for path in _glob(pattern):
        found = True
        if os.path.isdir(path):
            if not recursive:
                yield from _walk(listing, path)
            continue
        name = os.path.basename(path)
        if spelled_out or listing.takes(name, name):
            yield from _entry(listing, path)
    if not found:
        raise InputError(f"nothing matches {printable(pattern)}", hint="Check the spelling of the pattern.")


def _glob(pattern: str) -> Iterator[str]:
    # Of pathlib, because `**` of the glob module follows links to folders, in circles too.
    pattern = pattern + "/*" if pattern.endswith("**") else pattern
    try:
        yield from map(str, Path("/").glob(pattern.strip("/")))
    except ValueError as error:
        raise InputError(f"{printable(pattern)}: {error}", hint="Write it as 'videos/**/*.mp4'.") from error


def _walk(listing: Listing, top: str) -> Iterator[Listed]:
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
            listing.skipped["folder that cannot be listed"] += 1
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if listing.is_ours(entry.path):
                    listing.skipped["folder of results"] += 1
                else:
                    folders.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                listing.skipped["link to a folder"] += 1
            elif listing.takes(entry.name, os.path.relpath(entry.path, top)):
                yield from _entry(listing, entry.path)


def _entry(listing: Listing, path: str) -> Iterator[Listed]:
    try:
        status = os.stat(path)
    except OSError:
        listing.skipped["file that went away, or a broken link"] += 1
        return
    if stat.S_ISREG(status.st_mode):
        yield _listed(path, status)
    else:
        listing.skipped["not a regular file"] += 1


def _listed(path: str, status: os.stat_result) -> Listed:
    try:
        modified = _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        modified = None
    return Listed(local_uri(path), status.st_size, local_version(status), modified)
