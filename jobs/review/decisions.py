"""What people decided: `OUT/reviews`, a small Delta table to which rows are only ever added.

Several servers and people may add at once. The standing decision of a video version is its newest row that
was not taken back. A row whose commit went through while its reply was lost may stand in it twice, under one
`review_id`, and counts once.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from detector.errors import InputError, StorageError
from jobs import query
from jobs.export import write
from jobs.fence import storage_error
from jobs.output import open_output
from jobs.schema import REVIEWS, SCHEMA_VERSION, plain
from jobs.table import ResultsTable, append_unclaimed, create_reviews

NOTE_CHARS = 2000
WHO_CHARS = 64
_MOST_SHOWN = 4096
_LABEL_COLUMNS = ("uri", "label", "group")
_TRIES = 40

Row = dict[str, Any]
Key = tuple[str, str]
"""A video version: uri and version."""

# A decision holds for the content that was seen, so that of an older version is no label.
_LABELS = """
SELECT uri, version, coalesce(nullif(extra['group'], ''), uri) AS "group" FROM current
"""


class Decision(StrEnum):
    """What a row says."""

    FAKE = "fake"
    REAL = "real"
    UNSURE = "unsure"
    UNDONE = "undone"


class Shown(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What was on the screen when it was decided; times in seconds."""

    blurred: bool = True
    grey: bool = True
    muted: bool = True
    played_s: float = 0.0
    """How long the video played."""
    clear_s: float = 0.0
    """Of this, not blurred."""
    segments: list[int] = msgspec.field(default_factory=list)
    """Which of the row's segments were played or jumped to, from 0."""
    preview: bool = False
    """The small preview was shown in place of the file."""


def shown_from(text: str) -> str | None:
    """What a page says was shown, checked; None where it says nothing, as without script.

    Raises:
        ValueError: it is something else.
    """
    if not text:
        return None
    if len(text) > _MOST_SHOWN:
        raise ValueError("too long")
    found = msgspec.json.decode(text.encode(), type=Shown)
    if not 0 <= found.played_s < 1e9 or not 0 <= found.clear_s < 1e9:
        raise ValueError("no time")
    return json.dumps(msgspec.to_builtins(found))


class Reviews:
    """The table of reviews below an output."""

    def __init__(self, output: str) -> None:
        self.output = open_output(output)
        self._read: tuple[int, list[Row]] = (-1, [])

    def add(self, video: Mapping[str, Any], who: str, decision: Decision, **more: Any) -> str:
        """Add a row about a video; its `review_id`.

        Args:
            video: Its row as it was shown: video_id, uri, version, the ids behind its score, p_fake.
            who: Decided.
            decision: What.
            **more: note, shown, undoes.

        Raises:
            StorageError: it could not be written, and is not in the table.
        """
        known = {name: video.get(name) for name in REVIEWS.names if name in video}
        row = known | {
            "review_id": secrets.token_hex(8),
            "decision": str(decision),
            "who": plain(who, WHO_CHARS),
            "at": datetime.now(UTC),
            "note": plain(more.get("note") or "", NOTE_CHARS) or None,
            "shown": more.get("shown"),
            "undoes": more.get("undoes"),
            "schema_version": SCHEMA_VERSION,
        }
        self._append(pa.Table.from_pylist([row], schema=REVIEWS))
        return str(row["review_id"])

    def _append(self, table: pa.Table) -> None:
        path = self.output.at("reviews")
        create_reviews(self.output)
        for attempt in range(_TRIES):
            try:
                append_unclaimed(self.output, "reviews", table)
                return
            except CommitFailedError:  # a purge, or many at once
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 1)))
            except (DeltaError, OSError) as error:
                raise storage_error(path, error) from error
        raise StorageError(f"{path}: others write to it all the time", hint="Decide again.")

    def rows(self) -> list[Row]:
        """All rows, the oldest first, each once.

        Raises:
            StorageError: they cannot be read.
        """
        path, options = self.output.at("reviews"), self.output.storage_options
        try:
            if not DeltaTable.is_deltatable(path, options):
                return []
            table = DeltaTable(path, storage_options=options)
            version, rows = self._read
            if table.version() != version:
                stored = {row["review_id"]: row for row in table.to_pyarrow_table().to_pylist()}
                rows = sorted(stored.values(), key=lambda row: (row["at"], row["review_id"]))
                self._read = (table.version(), rows)
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise storage_error(path, error) from error
        return rows


def standing(rows: Iterable[Row]) -> dict[Key, Row]:
    """The decision that stands, by video version; rows come the oldest first."""
    rows = list(rows)
    undone = {row["undoes"] for row in rows if row["decision"] == Decision.UNDONE}
    return {
        (row["uri"], row["version"]): row
        for row in rows
        if row["decision"] != Decision.UNDONE and row["review_id"] not in undone
    }


def export(output: str, path: Path, *, labels: bool) -> int:
    """Writes reviews to a file, whole or not at all; how many lines.

    Args:
        output: Of the scans.
        path: Ends in `.parquet` or `.csv`.
        labels: Only decisions `fake` and `real` that stand, on videos as they are now, with the columns
            uri, label, group that `calibrate` and `evaluate` take. The group is what the manifest said,
            else the video itself.

    Raises:
        InputError: there is no table, or the ending is another.
        StorageError: it cannot be read or written.
    """
    if labels and path.suffix.lower() != ".csv":
        raise InputError(
            "labels are a CSV", hint="Example: deepfake-scan review export OUT --labels -o l.csv"
        )
    ResultsTable.open(output)
    rows = Reviews(output).rows()
    table = _labels(output, rows) if labels else pa.Table.from_pylist(rows, schema=REVIEWS)
    return write(table.to_reader(), path)


def _labels(output: str, rows: Sequence[Row]) -> pa.Table:
    decided = {
        key: row["decision"]
        for key, row in standing(rows).items()
        if row["decision"] in (Decision.FAKE, Decision.REAL)
    }
    with query.connect(output) as connection:
        videos = query.sql(connection, _LABELS).to_pylist()
    found = [
        {"uri": video["uri"], "label": decided[video["uri"], video["version"]], "group": video["group"]}
        for video in sorted(videos, key=lambda video: str(video["uri"]))
        if (video["uri"], video["version"]) in decided
    ]
    return pa.Table.from_pylist(found, schema=pa.schema([(name, pa.string()) for name in _LABEL_COLUMNS]))
