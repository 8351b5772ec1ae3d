"""Commits to a Delta table that has one writer at a time, tested for lost replies and foreign maintenance.

Every commit carries the next number of ONE application id. Delta does not compare the numbers: it refuses a
commit if that id has committed since the snapshot of the handle, and that is the fence. So all commits of a
scan go through the handle that claimed the table, never through one opened later, and a claim shuts out every
handle older than it. A commit carries an id of its own as well: after a failure, which may be a lost reply
only, the log tells whether it landed.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from detector.errors import StorageError, TableHeldError
from jobs.holder import Holder
from jobs.schema import printable

APP_ID = "deepfake-scan"
ZSTD = WriterProperties(compression="ZSTD", compression_level=3)

Event = Literal["claim", "append", "renew", "release"]
_TRIES = 3


class Parquet(NamedTuple):
    """What a snapshot of a Delta table is made of: its files, and the columns that they may have."""

    files: list[str]
    schema: pa.Schema


class FencedTable:
    """One handle on a Delta table. Not safe for threads: the owner locks."""

    def __init__(self, path: str, delta: DeltaTable, options: dict[str, str] | None = None) -> None:
        self.path = path
        self._options = options
        self._delta = delta
        self._number = delta.transaction_version(APP_ID)

    @property
    def version(self) -> int:
        """Version of the snapshot."""
        return self._delta.version()

    @property
    def schema(self) -> pa.Schema:
        """The table's own schema, with the descriptions that it was made with."""
        return stored_schema(self._delta)

    def files(self) -> list[str]:
        """Paths of the Parquet files that make up the snapshot."""
        # Not file_uris(): it percent-encodes a local path that holds a space.
        adds = pa.table(self._delta.get_add_actions(flatten=True))
        return [f"{self.path}/{name}" for name in adds["path"].to_pylist()]

    def parquet(self) -> Parquet:
        """Files and columns of the snapshot."""
        return Parquet(self.files(), self.schema)

    def refresh(self) -> None:
        """Read the newest snapshot: right before a claim, never during one, when it would open the fence."""
        try:
            self._delta.update_incremental()
        except (DeltaError, OSError) as error:
            raise storage_error(self.path, error) from error
        self._number = self._delta.transaction_version(APP_ID)

    def newest_commit(self) -> dict[str, Any] | None:
        """Metadata of the newest commit that a scan made; `timestamp` in ms since 1970."""
        return _newest_commit(self._delta)

    def commit(self, event: Event, holder: Holder, table: pa.Table) -> None:
        """Append `table`, which may have no rows.

        Raises:
            TableHeldError: another scan has claimed the table since this handle's last commit.
            StorageError: the store failed, and nothing of this is in the table.
        """
        metadata = holder.metadata() | {"event": event, "commit_id": uuid.uuid4().hex}
        try:
            for _ in range(_TRIES):
                if self._try(table, metadata):
                    return
        except (DeltaError, OSError) as error:  # already the snapshot may have to be read
            raise storage_error(self.path, error) from error
        raise StorageError(
            f"the table {printable(self.path)} is being rewritten by something else",
            hint="Let no other program write to it; what is committed is kept. Run the scan again.",
        )

    def _try(self, table: pa.Table, metadata: dict[str, str]) -> bool:
        """One attempt; False if foreign maintenance came between and another may be made."""
        if self._delta.transaction_version(APP_ID) != self._number:  # never seen; the fence would stand open
            raise held(Holder.of(self.newest_commit() or {}))
        number = 0 if self._number is None else self._number + 1
        properties = CommitProperties(
            custom_metadata=metadata, app_transactions=[Transaction(APP_ID, number)]
        )
        try:
            write_deltalake(
                self._delta,
                table,
                mode="append",
                schema_mode="merge",  # releases add columns, and rows of an older one lack them
                writer_properties=ZSTD,
                commit_properties=properties,
            )
        except (DeltaError, OSError) as error:
            if not self._landed(error, metadata["commit_id"], number):
                return False
        self._number = number
        return True

    def _landed(self, error: Exception, commit_id: str, number: int) -> bool:
        """Whether the commit is in the table in spite of `error`; False if it may be tried again."""
        try:
            fresh = DeltaTable(self.path, storage_options=self._options)
            since = fresh.history(max(1, fresh.version() - self._delta.version()))
            newest = fresh.transaction_version(APP_ID)
        except (DeltaError, OSError):
            raise storage_error(self.path, error) from error
        landed = any(commit.get("commit_id") == commit_id for commit in since)
        if newest != (number if landed else self._number):
            raise held(Holder.of(_newest_commit(fresh) or {})) from error
        if not landed and not isinstance(error, CommitFailedError):
            raise storage_error(self.path, error) from error
        # Not yet fenced off: whoever claims the table from here on shuts this new handle out as well. If the
        # commit is not in, somebody optimized or purged; no scan claimed the table, so the plan still holds.
        self._delta = fresh
        return landed


def stored_schema(delta: DeltaTable) -> pa.Schema:
    """A table's schema as pyarrow's, with descriptions."""
    exported: Any = delta.schema().to_arrow()  # of arro3, which pyarrow takes through the Arrow C interface
    return pa.schema(exported)


def _newest_commit(delta: DeltaTable) -> dict[str, Any] | None:
    for limit in (20, None):
        for commit in delta.history(limit):
            if "commit_id" in commit:
                return commit
    return None


def held(holder: Holder) -> TableHeldError:
    """The error of a table that `holder` holds."""
    return TableHeldError(
        f"another scan holds the table: {holder}",
        hint="Wait until it ends (--wait does), or shut it out: --take-over. A scan that was killed on "
        "another machine holds the table for ten minutes more.",
    )


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


_FULL = re.compile(rf"\(os error ({errno.ENOSPC}|{errno.EDQUOT})\)")


def storage_error(path: str, error: Exception) -> StorageError:
    """The error of a store that failed at `path`."""
    said = printable(" ".join(_COLOUR.sub("", str(error)).split()))
    if full := _FULL.search(said):
        return StorageError(
            f"{printable(path)}: {os.strerror(int(full[1]))}",
            hint="Make room on that disk. What is committed is kept; the same command does the rest.",
        )
    return StorageError(
        f"{printable(path)}: {said}",
        hint="What is committed is kept. Put the store right and run the same command again.",
    )
