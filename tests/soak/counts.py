"""What five readers count in a table on disk or on S3: Delta's own, and four over the plain glob."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
from deltalake import DeltaTable

from jobs import s3
from jobs.local import scheme_of
from jobs.output import open_output

_GLOB = "scan_date=*/*.parquet"


def counts(output: str) -> dict[str, int]:
    """Rows by reader, and `videos`: different uris by Delta."""
    root = open_output(output)
    results = root.at("results")
    table = DeltaTable(results, storage_options=root.storage_options).to_pyarrow_table()
    files: Any = None
    if scheme_of(output) == "s3":
        files = s3.filesystem()
        paths = [f"s3://{path}" for path in sorted(files.glob(f"{results}/{_GLOB}"))]
    else:
        paths = sorted(map(str, Path(results).glob(_GLOB)))
    with duckdb.connect() as connection:
        root.readable_by(connection)
        rows = connection.read_parquet(paths, hive_partitioning=True, union_by_name=True)
        by_duckdb = int(rows.count("*").fetchall()[0][0])
    return {
        "deltalake": len(table),
        "videos": len(set(table["uri"].to_pylist())),
        "DuckDB": by_duckdb,
        "pyarrow": ds.dataset([p.removeprefix("s3://") for p in paths], filesystem=files).count_rows(),
        "pandas": sum(len(pd.read_parquet(_open(files, path), columns=["uri"])) for path in paths),
        "polars": sum(pl.read_parquet(_open(files, path)).height for path in paths),
    }


def _open(files: Any, path: str) -> Any:
    return files.open(path) if files else path
