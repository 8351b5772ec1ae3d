"""The table as the review page reads it: what waits, and one video with all that was seen in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from detector.errors import StorageError
from jobs import query
from jobs.review.decisions import Key
from jobs.review.queue import REFRESH_S, Item
from jobs.schema import printable
from jobs.tidy import tidied

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
        clock: Seconds that never go back.
    """

    def __init__(self, output: str, clock: Callable[[], float]) -> None:
        self._output, self._clock = output, clock
        self._opened_at = float("-inf")
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

    def one(self, video_id: str, *, now: bool = False) -> dict[str, Any] | None:
        """The row of a video, with `today`'s verdict and scores in `tracks` and `persons`; None without one.

        Args:
            video_id: Of the video.
            now: Read the table again; otherwise what is known may be a minute old.

        Raises:
            DeepfakeScanError: the table cannot be read.
        """
        with self._lock:
            age_s = self._clock() - self._opened_at
            if now or self._connection is None or age_s >= REFRESH_S:
                self._open_again()
            kept = self._rows
        if (row := kept.get(video_id)) is not None:
            return row
        rows = self._ask(_ONE, video_id=video_id)
        if not rows:
            return None
        row = tidied(rows[0])
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
        self._connection, self._rows = None, {}  # nothing of before is left where this fails
        self._connection, self._opened_at = query.connect(self._output), self._clock()
        return self._connection
