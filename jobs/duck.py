"""DuckDB as it is used here: nothing is downloaded, times are UTC, memory is bounded."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from detector.errors import StorageError
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
    # As they are, and as `register_files` spells them: both are compared as text.
    names = [spelled for folder in folders for spelled in (f"{folder}/", _literal(f"{folder}/"))]
    connection.execute("SET allowed_directories = $names", {"names": names})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def register_files(
    connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str], schema: pa.Schema
) -> None:
    """Make the view `name` of Parquet files below `column=value` folders.

    It has the columns of `schema` in that order, null where no file has them, and then those that only a file
    has: tables grow columns. Without files it is empty.

    Raises:
        StorageError: a file cannot be read.
    """
    connection.register(f"{name}_schema", schema.empty_table())
    query = f"FROM {name}_schema"
    if files:
        try:
            found = connection.read_parquet(
                [_literal(file) for file in files], hive_partitioning=True, union_by_name=True
            )
        except duckdb.Error as error:
            raise StorageError(
                f"{name} cannot be read: {printable(str(error))}",
                hint="Try again, if the table is being purged or optimized right now.",
            ) from error
        found.create_view(f"{name}_files")
        query += f" UNION ALL BY NAME FROM {name}_files"
    connection.execute(f"CREATE VIEW {name} AS {query}")


def _literal(path: str) -> str:
    # DuckDB takes every path for a pattern.
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
