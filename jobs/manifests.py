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

from detector.errors import DeepfakeScanError, InputError, StorageError
from jobs.listed import NOT_FOUND, Listed, Selection, suffix
from jobs.local import list_local, scheme_of
from jobs.s3 import Address, filesystem, head, is_taken, parse
from jobs.schema import printable

_KNOWN = ("uri", "size", "version", "version_id", "modified_at", "storage_class")
_INVENTORY = "manifest.json"
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
    except BotoCoreError as error:
        raise StorageError(f"manifest {printable(name)}: {printable(str(error))}") from error
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: JSON, text that is not UTF-8
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


def _rows(name: str) -> Iterator[_Row]:
    readers: dict[str, Callable[[IO[bytes]], Iterable[_Row]]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
    }
    reader = readers.get(suffix(name))
    if reader is None:
        raise InputError(
            f"manifest {printable(name)}: its form is not told by its suffix",
            hint=f"Name a file that ends in {', '.join(readers)}, or the {_INVENTORY} of an S3 Inventory.",
        )
    with _open(name) as file:
        for number, row in enumerate(reader(file), start=1):
            if not row.get("uri"):
                raise InputError(
                    f"manifest {printable(name)}, row {number}: there is no `uri`",
                    hint="One column has to be named uri and hold s3:// addresses or paths.",
                )
            yield row


def _parquet(file: IO[bytes]) -> Iterator[_Row]:
    for batch in pq.ParquetFile(file).iter_batches(_AT_ONCE):
        yield from batch.to_pylist()


def _csv(file: IO[bytes]) -> Iterator[_Row]:
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    try:
        yield from csv.DictReader(text)
    finally:
        text.detach()  # whoever opened the file closes it


def _json_lines(file: IO[bytes]) -> Iterator[_Row]:
    yield from (json.loads(line) for line in file if line.strip())


def _completed(rows: Iterable[_Row], manifest: str) -> Iterator[Listed]:
    """In order; size and version are asked for where a row does not have them, several at a time."""
    iterator = iter(rows)
    with ThreadPoolExecutor(_THREADS, "manifest") as pool:
        while chunk := list(islice(iterator, _AT_ONCE)):
            yield from pool.map(lambda row: _listed(row, manifest), chunk)


def _listed(row: _Row, manifest: str) -> Listed:
    uri = str(row["uri"])
    if scheme_of(uri) is None and scheme_of(manifest) is None:
        uri = str(Path(manifest).expanduser().absolute().parent / uri)
    extra = tuple(
        (str(name), _text(value)) for name, value in row.items() if name not in _KNOWN and value is not None
    )
    if row.get("version") and row.get("size") not in (None, "") and scheme_of(uri) == "s3":
        return Listed(
            uri,
            int(row["size"]),
            str(row["version"]).strip('"'),
            _time(row.get("modified_at")),
            row.get("storage_class") or None,
            row.get("version_id") or None,
            extra or None,
        )
    return replace(_asked(uri) or Listed(uri, 0, NOT_FOUND, None), extra=extra or None)


def _asked(uri: str) -> Listed | None:
    from botocore.exceptions import ClientError

    if scheme_of(uri) == "s3":
        try:
            return head(parse(uri))
        except ClientError:  # the scan asks again, and its row says what the store answered
            return None
    try:
        return next(iter(list_local(Selection(), uri)))
    except DeepfakeScanError:
        return None


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
    if described.get("fileFormat") != "Parquet":
        raise InputError(
            f"manifest {printable(name)}: an S3 Inventory in {described.get('fileFormat')}",
            hint="Let the inventory be written as Parquet.",
        )
    bucket = described["destinationBucket"].rpartition(":")[2]
    for part in described["files"]:
        with _open(str(Address(bucket, part["key"]))) as file:
            for row in _parquet(file):
                if row.get("is_latest") is False or row.get("is_delete_marker"):
                    continue
                item = Listed(
                    str(Address(row["bucket"], row["key"])),
                    row["size"],
                    row["e_tag"].strip('"'),
                    _time(row.get("last_modified_date")),
                    row.get("storage_class"),
                    row.get("version_id"),
                )
                if is_taken(selection, item, Address(row["bucket"], "")):
                    yield item
