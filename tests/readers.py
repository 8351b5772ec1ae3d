"""Everyone who reads the table while a scan writes it: never an error, a partial row or a duplicate."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

_COLUMNS = ["uri", "version", "attempt", "status", "verdict"]


def _deltalake(output: Path) -> pa.Table:
    return pa.table(DeltaTable(str(output / "results")).to_pyarrow_table(columns=_COLUMNS))


def _polars(output: Path) -> pa.Table:
    return pl.scan_delta(str(output / "results")).select(_COLUMNS).collect().to_arrow()


def _duckdb(output: Path) -> pa.Table:
    with duckdb.connect() as connection:
        files = connection.read_parquet(f"{output}/results/scan_date=*/*.parquet")
        return files.select(*_COLUMNS).to_arrow_table()


def _pandas(output: Path) -> pa.Table:
    files = output.glob("results/scan_date=*/*.parquet")
    frames = [pd.read_parquet(file, columns=_COLUMNS) for file in files]
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False)


READERS: dict[str, Callable[[Path], pa.Table]] = {
    "deltalake": _deltalake,
    "polars": _polars,
    "DuckDB": _duckdb,
    "pandas": _pandas,
}


def documented_readers(store: Literal["disk", "S3"] = "disk") -> list[str]:
    """The lines of Python of docs/table.md, which read the table at `OUT` into `rows`, one per reader."""
    page = (Path(__file__).parents[1] / "docs" / "table.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return [block for block in blocks if (", from S3" in block.partition("\n")[0]) == (store == "S3")]


class Readers:
    """Reads over and over in a thread while the block runs, from the first committed row on.

    Attributes:
        complaints: What any reader saw that must not be, in words.
        reads: How often each reader read.
        most: The most rows that each saw.
    """

    def __init__(self, output: Path) -> None:
        self.complaints: list[str] = []
        self.reads: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._output = output
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if any(self._output.glob("results/scan_date=*/*.parquet")):
            self._round()  # once more, when all is written

    def _loop(self) -> None:
        while not self._ended.wait(0.2):
            if any(self._output.glob("results/scan_date=*/*.parquet")):
                self._round()

    def _round(self) -> None:
        for name, read in READERS.items():
            try:
                self._check(name, read(self._output))
            except Exception as error:  # noqa: BLE001  # whatever a reader raises is what we look for
                self.complaints.append(f"{name}: {type(error).__name__}: {error}")

    def _check(self, name: str, table: pa.Table) -> None:
        self.reads[name] += 1
        keys = Counter(zip(*(table[column].to_pylist() for column in _COLUMNS[:3]), strict=True))
        self.complaints += [f"{name}: {n} times {key}" for key, n in keys.items() if n > 1]
        nulls = sum(table[column].null_count for column in _COLUMNS)
        if nulls:
            self.complaints.append(f"{name}: {nulls} values are missing")
        if len(table) < self.most[name]:
            self.complaints.append(f"{name}: {self.most[name]} rows, then {len(table)}")
        self.most[name] = max(self.most[name], len(table))
