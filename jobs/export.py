"""A view as one plain file: Parquet with its types, or CSV that a spreadsheet may open."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from detector.errors import InputError, StorageError
from jobs.files import storage_error
from jobs.printing import plain
from jobs.schema import printable

VIEWS = ("latest", "today", "current", "people", "tracks", "results")
_ROWS = 10_000
# What a spreadsheet would take for a formula: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(connection: duckdb.DuckDBPyConnection, view: str, path: Path) -> int:
    """Writes a view to a file, whole or not at all; the number of rows.

    Args:
        connection: From `query.connect`.
        view: One of `VIEWS`.
        path: Ends in `.parquet` or `.csv`.

    Raises:
        InputError: another view, or another ending.
        StorageError: it cannot be read or written.
    """
    if path.suffix.lower() not in _WRITERS or view not in VIEWS:
        raise InputError(
            f"{printable(str(path))}: {view} cannot be exported so",
            hint=f"Views: {', '.join(VIEWS)}; files end in .parquet or .csv.",
        )
    try:
        return write(connection.table(view).to_arrow_reader(_ROWS), path)
    except duckdb.Error as error:
        raise StorageError(printable(str(error))) from error


def write(reader: pa.RecordBatchReader, path: Path) -> int:
    """Writes rows to a file that ends in `.parquet` or `.csv`, whole or not at all; how many there were.

    Raises:
        InputError: another ending.
        StorageError: it cannot be written.
    """
    path = path.expanduser()
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{printable(str(path))}: files end in .parquet or .csv")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        rows = writer(reader, temporary)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _parquet(reader: pa.RecordBatchReader, path: Path) -> int:
    rows = 0
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += len(batch)
    return rows


def _csv(reader: pa.RecordBatchReader, path: Path) -> int:
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(reader.schema.names)
        for batch in reader:
            _write_rows(writer.writerow, batch)
            rows += len(batch)
    return rows


def _write_rows(write: Callable[[list[Any]], Any], batch: pa.RecordBatch) -> None:
    for row in batch.to_pylist():
        write([_cell(value) for value in row.values()])


def _cell(value: object) -> object:
    """Nested values as JSON; text that a spreadsheet would run gets a quotation mark in front."""
    if isinstance(value, (list, tuple, Mapping)):
        return json.dumps(plain(value), ensure_ascii=False)
    shown = plain(value)
    return f"'{shown}" if isinstance(shown, str) and shown.startswith(_FORMULA) else shown


_WRITERS: dict[str, Callable[[pa.RecordBatchReader, Path], int]] = {".parquet": _parquet, ".csv": _csv}
