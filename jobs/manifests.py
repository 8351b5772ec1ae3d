"""Lists of videos that somebody else made: a manifest in Parquet, CSV or JSON lines, or an S3 Inventory.

A manifest has a column `uri` and, where known, `size` (bytes), `version` (the ETag on S3), `version_id`,
`modified_at` and `storage_class`; every further column is carried through to the table's `extra`. What it
names is taken whatever its suffix. A row without size or version costs a request.

An S3 Inventory is named by its `manifest.json`; it is a listing, so suffixes and patterns apply.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from detector.errors import InputError, StorageError
from jobs.listed import NOT_FOUND, Listed, Selection, suffix
from jobs.local import one_local, scheme_of
from jobs.s3 import Address, filesystem, head, is_taken, parse
from jobs.s3_errors import error_code
from jobs.schema import printable

_KNOWN = ("uri", "size", "version", "version_id", "modified_at", "storage_class")
_INVENTORY = "manifest.json"
_TOO_MANY = "\0"
# Not there, and not to be seen: who may not list a bucket is told 403 of what is not there.
_NOT_SHOWN = frozenset(("403", "404", "AccessDenied", "NoSuchKey", "NoSuchVersion", "NoSuchBucket"))
_AT_ONCE = 1000
_THREADS = 16

_Row = Mapping[str, Any]


def list_manifest(selection: Selection, name: str) -> Iterator[Listed]:
    """The videos that a manifest names.

    Raises:
        InputError: it cannot be read, or has no column `uri`.
        StorageError: the store of what it names cannot be reached.
    """
    from botocore.exceptions import BotoCoreError

    try:
        if name.rpartition("/")[2] == _INVENTORY:
            yield from _inventory(selection, name)
        else:
            yield from _completed(_rows(name), name)
    except InputError as error:
        raise InputError(f"manifest {printable(name)}: {error.message}", hint=error.hint) from error
    except BotoCoreError as error:
        raise StorageError(f"manifest {printable(name)}: {printable(str(error))}") from error
    # ValueError: JSON, numbers, times, text that is not UTF-8; RecursionError: JSON nested too deeply.
    except (OSError, ValueError, OverflowError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"manifest {printable(name)} cannot be read: {printable(str(error))}") from error


@contextmanager
def _open(name: str) -> Iterator[IO[bytes]]:
    """A file on disk or on S3."""
    if scheme_of(name) == "s3":
        where = parse(name)
        with filesystem().open(f"{where.bucket}/{where.key}", "rb") as file:
            yield file
    else:
        with Path(name).expanduser().open("rb") as file:
            yield file


def is_manifest(name: str) -> bool:
    """Whether an input names a list of videos, by its suffix, and no video."""
    return suffix(name) in _readers() or name.rpartition("/")[2] == _INVENTORY


def _readers() -> Mapping[str, Callable[[IO[bytes]], Iterable[_Row]]]:
    return {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}


def _rows(name: str) -> Iterator[_Row]:
    reader = _readers().get(suffix(name))
    if reader is None:
        raise InputError(
            "its form is not told by its suffix",
            hint=f"Name a file that ends in {', '.join(_readers())}, or the {_INVENTORY} of an S3 Inventory.",
        )
    with _open(name) as file:
        for number, row in enumerate(reader(file), start=1):
            if not row.get("uri"):
                raise InputError(
                    f"row {number}: there is no `uri`",
                    hint="One column has to be named uri and hold s3:// addresses or paths.",
                )
            yield row


def _parquet(file: IO[bytes]) -> Iterator[_Row]:
    for batch in pq.ParquetFile(file).iter_batches(_AT_ONCE):
        yield from batch.to_pylist()


def _csv(file: IO[bytes]) -> Iterator[_Row]:
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    try:
        reader = csv.DictReader(text, restkey=_TOO_MANY)
        if not reader.fieldnames:
            raise InputError("it is empty, without a line of column names")
        for row in reader:
            if _TOO_MANY in row:
                raise InputError(f"line {reader.line_num} has more fields than there are columns")
            yield row
    finally:
        text.detach()  # whoever opened the file closes it


def _json_lines(file: IO[bytes]) -> Iterator[_Row]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise InputError(f"line {number} is not an object of JSON")
            yield row


def _completed(rows: Iterable[_Row], manifest: str) -> Iterator[Listed]:
    """In order; size and version are asked for where a row does not have them, several at a time."""
    iterator = enumerate(rows, start=1)
    with ThreadPoolExecutor(_THREADS, "manifest") as pool:
        while chunk := list(islice(iterator, _AT_ONCE)):
            yield from pool.map(lambda numbered: _listed(numbered[0], numbered[1], manifest), chunk)


def _listed(number: int, row: _Row, manifest: str) -> Listed:
    uri = str(row["uri"])
    scheme = scheme_of(uri)
    if scheme not in (None, "file", "s3"):
        raise InputError(f"row {number}: {printable(uri)} cannot be scanned by this release")
    if scheme is None and scheme_of(manifest) is None:
        uri = str(Path(manifest).expanduser().absolute().parent / uri)
    extra = tuple(
        (str(name), _text(value)) for name, value in row.items() if name not in _KNOWN and value is not None
    )
    version_id = _optional(row, "version_id")
    if row.get("version") and row.get("size") not in (None, "") and scheme == "s3":
        found = Listed(
            uri,
            _size(row["size"]),
            str(row["version"]).strip('"'),
            _time(row.get("modified_at")),
            _optional(row, "storage_class"),
            version_id,
        )
    else:
        found = _asked(uri, version_id) or Listed(uri, 0, NOT_FOUND, None)
    texts = (found.uri, found.version, *(text for pair in extra for text in pair))
    if any(not _in_utf8(text) for text in texts):
        raise InputError(f"row {number}: {printable(uri)}: the row holds half a character (a lone surrogate)")
    return replace(found, extra=extra or None)


def _asked(uri: str, version_id: str | None) -> Listed | None:
    """What there is, None where there is nothing, or nothing that may be seen: its row will say which."""
    from botocore.exceptions import ClientError

    if scheme_of(uri) != "s3":
        return one_local(uri)
    try:
        return head(parse(uri), version_id)
    except ClientError as error:
        if error_code(error) in _NOT_SHOWN:
            return None
        raise StorageError(f"{printable(uri)}: {printable(str(error))}") from error


def _optional(row: _Row, name: str) -> str | None:
    value = row.get(name)
    return None if value in (None, "") else str(value)


def _size(value: object) -> int:
    size = int(str(value))
    if not 0 <= size < 1 << 62:
        raise ValueError(f"{size} is no size of a file")
    return size


def _in_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _time(value: object) -> datetime | None:
    if isinstance(value, str) and value:
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _inventory(selection: Selection, name: str) -> Iterator[Listed]:
    with _open(name) as file:
        described = json.load(file)
    if not isinstance(described, dict) or not {"destinationBucket", "files"} <= described.keys():
        raise InputError(
            "it is not that of an S3 Inventory",
            hint="A list of videos of your own needs another name: it is told by its suffix.",
        )
    if described.get("fileFormat") != "Parquet":
        raise InputError(
            f"it is an S3 Inventory in {described.get('fileFormat')}",
            hint="Let the inventory be written as Parquet.",
        )
    bucket, parts = described["destinationBucket"], described["files"]
    keys = [part.get("key") if isinstance(part, dict) else None for part in parts] if parts else []
    if not all(isinstance(text, str) for text in (bucket, *keys)):
        raise InputError("its destinationBucket and the keys of its files have to be text")
    bucket = bucket.rpartition(":")[2]
    for part in parts:
        with _open(str(Address(bucket, part["key"]))) as file:
            for row in _parquet(file):
                if row.get("is_latest") is False or row.get("is_delete_marker"):
                    continue
                item = _inventoried(row)
                if is_taken(selection, item, Address(row["bucket"], "")):
                    yield item


def _inventoried(row: _Row) -> Listed:
    missing = [name for name in ("bucket", "key", "size", "e_tag") if row.get(name) is None]
    if missing:
        raise InputError(
            f"the S3 Inventory lacks {', '.join(missing)}",
            hint="Let it have the optional fields Size and ETag (and LastModifiedDate, StorageClass).",
        )
    return Listed(
        str(Address(row["bucket"], row["key"])),
        row["size"],
        row["e_tag"].strip('"'),
        _time(row.get("last_modified_date")),
        row.get("storage_class"),
        row.get("version_id") or None,
    )
