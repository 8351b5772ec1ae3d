"""Rows on a terminal or as JSON. Names come from strangers: what could move the cursor is spelled out."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.schema import printable

# A pipe has no width; rows must not be cut there.
_PIPE_COLUMNS = 10_000


def print_table(table: pa.Table) -> None:
    """Print an Arrow table on stdout."""
    rows = _rows(table)
    print_rows(rows, list(rows[0]) if rows else table.column_names)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print rows on stdout, a column per key."""
    columns = columns or (list(rows[0]) if rows else [])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False).print(table)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:.3f}", justify="right")
    if isinstance(value, int):
        return Text(f"{value:,}", justify="right")
    return Text(printable(str(value)))


def rows_as_json(table: pa.Table) -> Any:
    """An Arrow table as JSON can hold it: dates as ISO 8601, what is no number as null."""
    return plain(_rows(table))


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows by column name; columns of one name, as joins make them, are numbered."""
    given = table.column_names
    before = [given[:place].count(name) for place, name in enumerate(given)]
    names = [f"{name}_{number}" if number else name for name, number in zip(given, before, strict=True)]
    columns = [_values(column) for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    try:
        return list(column.to_pylist())
    except OverflowError:  # SQL has times that Python has not: infinity, and years from 10,000 on
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar[Any]) -> Any:
    try:
        return scalar.as_py()
    except OverflowError:
        return "beyond the calendar"


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
