"""DuckDB as it is used here: nothing is downloaded, times are UTC, memory is bounded."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import duckdb
import pyarrow as pa

from detector.errors import StorageError
from jobs.fence import Parquet
from jobs.schema import printable


def connect(memory: str = "1GB") -> duckdb.DuckDBPyConnection:
    """An empty database in memory; beyond `memory` it works on disk."""
    connection = duckdb.connect(
        config={
            # Extensions would be fetched from the network; all that is needed is built in.
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": memory,
            "threads": str(len(os.sched_getaffinity(0))),
            # The default is the folder one happens to stand in. DuckDB makes it when needed and removes it.
            "temp_directory": str(Path(tempfile.gettempdir(), f"deepfake-scan-{uuid.uuid4().hex}")),
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def confine(connection: duckdb.DuckDBPyConnection, folders: Sequence[str]) -> None:
    """From here on let `connection` read files below these folders only, for good."""
    # As they are, and as `register` spells them: both are compared as text.
    names = [spelled for folder in folders for spelled in (f"{folder}/", _literal(f"{folder}/"))]
    connection.execute("SET allowed_directories = $names", {"names": names})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def register(connection: duckdb.DuckDBPyConnection, name: str, parquet: Parquet, schema: pa.Schema) -> None:
    """Make the view `name` of a Delta table's files.

    It has the columns of `schema` in that order, null where no file has them, and then those that only the
    table has: tables grow columns. Without files it is empty. DuckDB is told all types, because it would
    otherwise open every file, dozens of times, before the first question.

    Raises:
        StorageError: a file cannot be read.
    """
    connection.register(f"{name}_ours", schema.empty_table())
    connection.register(f"{name}_stored", parquet.schema.empty_table())
    empty = f"FROM {name}_ours UNION ALL BY NAME FROM {name}_stored"
    if not parquet.files:
        connection.execute(f"CREATE VIEW {name} AS {empty}")
        return
    types = {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {empty}").fetchall()}
    folders = takewhile(lambda part: "=" in part, reversed(parquet.files[0].split("/")[:-1]))
    in_paths = {column: types[column] for column, _, _ in (folder.partition("=") for folder in folders)}
    inside = ", ".join(
        f"{_quoted(column)}: {{name: {_quoted(column)}, type: {_quoted(kind)}, default_value: NULL}}"
        for column, kind in types.items()
        if column not in in_paths
    )
    hive = ", ".join(f"{_quoted(column)}: {kind}" for column, kind in in_paths.items())
    files = ", ".join(_quoted(_literal(file)) for file in parquet.files)
    columns = ", ".join('"' + column.replace('"', '""') + '"' for column in types)
    options = f"schema=MAP {{{inside}}}, hive_partitioning=true" + (
        f", hive_types={{{hive}}}" if hive else ""
    )
    query = f"SELECT {columns} FROM read_parquet([{files}], {options})"  # noqa: S608  # all names are quoted
    try:
        connection.execute(f"CREATE VIEW {name} AS {query}")
    except duckdb.Error as error:
        raise StorageError(
            f"{name} cannot be read: {printable(str(error))}",
            hint="Try again, if the table is being purged or optimized right now.",
        ) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(path: str) -> str:
    # DuckDB takes every path for a pattern.
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
