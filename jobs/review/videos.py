"""The table as the review page reads it: what waits, and one video with all that was seen in it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from detector.errors import StorageError
from jobs import query
from jobs.page import verdict_at
from jobs.review.decisions import Key
from jobs.review.queue import Item
from jobs.schema import printable

_WAITING = """
SELECT today.video_id, today.uri, today.version, verdict_today AS verdict, p_fake_today AS p_fake
FROM today SEMI JOIN current USING (uri, version)
WHERE verdict_today IN ('flagged', 'uncertain')
ORDER BY verdict_today, p_fake_today DESC, today.uri
"""
_KEPT_ROWS = 100
_ONE = "SELECT * FROM today WHERE video_id = $video_id"


class Videos:
    """The newest snapshot of the table. For several threads.

    Args:
        output: Of the scans.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._rows: dict[str, dict[str, Any]] = {}

    def waiting(self, decided: Callable[[], set[Key]]) -> Sequence[Item]:
        """Flagged and then uncertain videos as they are now, the highest score first, that nobody decided.

        Raises:
            DeepfakeScanError: the table cannot be read.
        """
        with self._lock:
            self._connection = None
        done = decided()
        return [
            Item(row["video_id"], row["verdict"], row["p_fake"])
            for row in self._ask(_WAITING)
            if (row["uri"], row["version"]) not in done
        ]

    def one(self, video_id: str) -> dict[str, Any] | None:
        """The row of a video, with `today`'s verdict and scores in `tracks` and `persons`; None without one.

        Raises:
            DeepfakeScanError: the table cannot be read.
        """
        kept = self._rows
        if (row := kept.get(video_id)) is not None:
            return row
        rows = self._ask(_ONE, video_id=video_id)
        if not rows:
            return None
        row = _as_of_today(rows[0])
        if len(kept) < _KEPT_ROWS:  # a player asks for one video dozens of times
            kept[video_id] = row
        return row

    def _ask(self, text: str, **values: object) -> list[dict[str, Any]]:
        with self._lock:  # a connection is for one thread at a time, and its views are its own
            for last in (False, True):
                connection = self._connection or self._open_again()
                try:
                    found: pa.Table = connection.sql(text, params=values or None).to_arrow_table()
                    return found.to_pylist()
                except duckdb.Error as error:
                    # Files of the snapshot go when the table is purged or optimized.
                    self._connection = None
                    if last:
                        raise StorageError(f"the table cannot be read: {printable(str(error))}") from error
        raise AssertionError

    def _open_again(self) -> duckdb.DuckDBPyConnection:
        self._connection, self._rows = query.connect(self._output), {}
        return self._connection


def _as_of_today(row: dict[str, Any]) -> dict[str, Any]:
    """Scores of faces and people by the calibration of today, as the video's own is."""
    slope, bias = row["slope_today"], row["bias_today"]
    parts = [*(row["tracks"] or ()), *(row["persons"] or ())]
    for part in parts if slope is not None else ():
        if part["logit"] is not None:
            part["p_fake"] = 1 / (1 + math.exp(min(700, -(part["logit"] * slope + bias))))  # exp has an end
    for person in row["persons"] or ():
        person["verdict"] = verdict_at(person["p_fake"], row["flag_today"], row["uncertain_today"])
    return row
