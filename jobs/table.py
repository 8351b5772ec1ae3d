"""The table of results: one Delta table, append-only, with one writer at a time.

    OUT/results/scan_date=2026-11-25/part-….parquet     the rows; `_delta_log` beside says which files count
    OUT/scans/                                          a row when a scan starts, one when it ends
    OUT/reviews/                                        a row for each decision of a person

A scan claims the table, holds it by its commits (by empty ones every two minutes while videos take long) and
releases it. The claim of a scan that did not is dead when its process provably is, or after ten minutes of
silence. `jobs.fence` keeps the table right where that was wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal, Self

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from detector.errors import InputError, StorageError, TableHeldError
from jobs.columns import described_as
from jobs.fence import ZSTD, Event, FencedTable, Parquet, held, storage_error, stored_schema
from jobs.holder import Holder
from jobs.output import Output, open_output
from jobs.schema import RESULTS, REVIEWS, SCANS, SCHEMA_VERSION, printable, to_arrow

CLAIM_S = 600
RENEW_S = 120
_LONG_S = 30

_CONFIGURATION: dict[str, str | None] = {
    # Nothing but an explicit purge or optimize, which lift it, may make a plain glob wrong.
    "delta.appendOnly": "true",
    # A checkpoint is a Parquet file that `**/*.parquet` takes for rows; opening reads the commits since.
    "delta.checkpointInterval": "1000",
    # History is how a lost reply is told from a lost commit, and what comparing two days rests on.
    "delta.enableExpiredLogCleanup": "false",
    # Not uri and message: a name that was purged must not survive as a minimum or maximum in the log.
    "delta.dataSkippingStatsColumns": "settings_id,scanned_at,modified_at,status,reason,verdict,p_fake",
}
SMALL_PROPERTIES = {
    # No texts: a name that was purged must not survive in the log.
    "delta.dataSkippingStatsColumns": "at"
}


class ResultsTable:
    """The table of results below `OUT`.

    Reading needs no claim. Writing: `with table.claim(scan_id): table.append(rows)`.

    Attributes:
        answers: False where the store failed only after long, as it would whatever else it is asked for.
    """

    def __init__(self, output: Output, fenced: FencedTable) -> None:
        self.output = output
        self._fenced = fenced
        self._lock = threading.RLock()
        self._holder: Holder | None = None
        self._last_commit = 0.0
        self._released = threading.Event()
        self._renewer: threading.Thread | None = None
        self.answers = True

    @classmethod
    def open(cls, output: str) -> Self:
        """The table that earlier scans wrote.

        Raises:
            InputError: there is none.
        """
        root = open_output(output)
        path = root.at("results")
        try:
            delta = DeltaTable(path, storage_options=root.storage_options)
        except TableNotFoundError:
            raise InputError(
                f"{printable(output)} holds no results",
                hint=f"Scan something first: deepfake-scan scan FOLDER --output {printable(output)}",
            ) from None
        except (DeltaError, OSError) as error:
            raise storage_error(path, error) from error
        if not {"uri", "version", "settings_id", "attempt"} <= {f.name for f in delta.schema().fields}:
            raise InputError(f"{printable(path)} is a Delta table of something else")
        return cls(root, FencedTable(path, delta, root.storage_options))

    @classmethod
    def create(cls, output: str) -> Self:
        """The table, made if it is not there yet.

        Raises:
            StorageError: the store fails, or cannot keep two writers apart.
        """
        root = open_output(output)
        if not _is_table(root, "results"):
            root.require_fences()
        _create(root, "results", RESULTS, ["scan_date"], _CONFIGURATION)
        return cls.open(output)

    @staticmethod
    def exists(output: str) -> bool:
        """True if `open` would find a table."""
        root = open_output(output)
        return _is_table(root, "results")

    @property
    def version(self) -> int:
        """Version of the snapshot that this handle reads."""
        return self._fenced.version

    def files(self) -> list[str]:
        """Paths of the Parquet files that make up the snapshot."""
        with self._lock:
            return self._fenced.files()

    def parquet(self) -> Parquet:
        """Files and columns of the snapshot."""
        with self._lock:
            return self._fenced.parquet()

    def scans(self) -> Parquet:
        """Files and columns of `scans`, as of now."""
        path, options = self.output.at("scans"), self.output.storage_options
        if not _is_table(self.output, "scans"):
            return Parquet([], SCANS)
        try:
            return FencedTable(path, DeltaTable(path, storage_options=options), options).parquet()
        except (DeltaError, OSError) as error:
            raise storage_error(path, error) from error

    def holder(self) -> Holder | None:
        """The scan that holds the table right now, as far as this host can know."""
        commit = self._fenced.newest_commit()
        if commit is None or commit["event"] == "release":
            return None
        holder = Holder.of(commit)
        silent_s = time.time() - commit["timestamp"] / 1000
        return None if silent_s > CLAIM_S or holder.provably_dead() else holder

    def claim(self, scan_id: str, *, take_over: bool = False) -> Self:
        """Become the one writer, on the newest snapshot; what no commit ever named is removed.

        Args:
            scan_id: Of the scan that will write.
            take_over: Shut out a scan that seems to be alive: its next commit fails.

        Raises:
            TableHeldError: another scan holds the table.
            StorageError: the store cannot keep two writers apart.
        """
        self.output.require_fences()
        self._fenced.refresh()
        if (holder := self.holder()) and not take_over:
            raise held(holder)
        self._holder = Holder.here(scan_id)
        self._released.clear()
        try:
            self._commit("claim")
        except BaseException:
            self._holder = None
            raise
        self._remove_orphans()
        self._renewer = threading.Thread(target=self._renew, name="renew-claim", daemon=True)
        self._renewer.start()
        return self

    def append(self, rows: Sequence[Mapping[str, Any]] | pa.Table) -> int:
        """Commit rows of `RESULTS`, all or none, as one file; the version that holds them.

        Raises:
            TableHeldError: another scan took the table over. Its plan will have taken in whatever is in it.
            StorageError: the store failed, and none of these rows is in the table.
        """
        table = rows if isinstance(rows, pa.Table) else to_arrow(rows)
        if len(table):
            self._commit("append", table.cast(described_as(RESULTS, self._fenced.schema)))
        return self.version

    def renew(self) -> None:
        """Show life, and that nobody else holds the table.

        Raises:
            TableHeldError: another scan took it over.
            StorageError: the store failed.
        """
        self._commit("renew")

    def release(self) -> None:
        """Let the next scan in."""
        self._released.set()
        if self._renewer is not None:
            self._renewer.join()
            self._renewer = None
        if self._holder is not None:
            self._commit("release")
            # Files of a commit that failed and was made again would be counted twice by a glob.
            self._remove_orphans()
            self._holder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.release()
            return
        with suppress(TableHeldError, StorageError):  # what is on its way says more
            if self.answers:
                self.release()

    def record_scan(self, event: Literal["start", "end"], values: Mapping[str, Any]) -> None:
        """Add a row to `OUT/scans`; `values` are columns of `SCANS` beyond those that are known here."""
        known: dict[str, Any] = {"event": event, "at": datetime.now(UTC), "schema_version": SCHEMA_VERSION}
        if self._holder is not None:
            known |= {"scan_id": self._holder.scan_id, "host": self._holder.host}
        table = pa.Table.from_pylist([known | dict(values)], schema=SCANS)
        with self._timed():
            create_scans(self.output)
            try:
                append_unclaimed(self.output, "scans", table)
            except (DeltaError, OSError) as error:
                raise storage_error(self.output.at("scans"), error) from error

    def _commit(self, event: Event, table: pa.Table | None = None) -> None:
        if self._holder is None:
            raise ValueError("claim the table before writing to it")
        with self._lock, self._timed():
            self._fenced.commit(
                event,
                self._holder,
                described_as(RESULTS, self._fenced.schema).empty_table() if table is None else table,
            )
            self._last_commit = time.monotonic()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Note whether the store answers, if only with an error."""
        began = time.monotonic()
        try:
            yield
            self.answers = True
        except StorageError:
            self.answers = time.monotonic() - began < _LONG_S
            raise

    def _renew(self) -> None:
        """Show life while videos take long. A claim lost meanwhile comes out at the next append."""
        while not self._released.wait(RENEW_S / 10):
            if time.monotonic() - self._last_commit >= RENEW_S:
                try:
                    self._commit("renew")
                except TableHeldError:
                    return
                except StorageError:
                    continue

    def _remove_orphans(self) -> None:
        """Delete data files that no commit names: what a killed scan left, which only a glob would read.

        Only files older than this handle's last commit. A scan that took the table over since, while this
        process slept, writes younger ones; whoever wrote the older ones is fenced off and cannot commit them.
        """
        with self._lock:
            log = f"results/_delta_log/{self.version:020}.json"
            self.output.remove_older("results", log, set(self.files()))


def _is_table(root: Output, name: str) -> bool:
    try:
        return DeltaTable.is_deltatable(root.at(name), root.storage_options)
    except (DeltaError, OSError) as error:
        raise storage_error(root.at(name), error) from error


def create_scans(root: Output) -> None:
    """The table of scans below an output, made if it is not there yet."""
    _create(root, "scans", SCANS, [], {"delta.appendOnly": "true", **SMALL_PROPERTIES})


def create_reviews(root: Output) -> None:
    """The table of reviews below an output, made if it is not there yet."""
    _create(root, "reviews", REVIEWS, [], {"delta.appendOnly": "true", **SMALL_PROPERTIES})


def append_unclaimed(root: Output, name: str, table: pa.Table) -> None:
    """Add rows to a table beside `results`, which needs no claim.

    Raises:
        CommitFailedError: it was being rewritten; nothing of this is in it.
        DeltaError, OSError: the store failed.
    """
    delta = DeltaTable(root.at(name), storage_options=root.storage_options)
    described = table.cast(described_as(table.schema, stored_schema(delta)))
    write_deltalake(delta, described, mode="append", schema_mode="merge", writer_properties=ZSTD)


def _create(
    root: Output,
    name: str,
    schema: pa.Schema,
    partition_by: list[str],
    configuration: Mapping[str, str | None],
) -> None:
    path, options = root.at(name), root.storage_options
    try:
        if DeltaTable.is_deltatable(path, options):
            return
        root.prepare(name)
        with suppress(CommitFailedError):  # another scan made it a moment ago
            DeltaTable.create(
                path,
                schema,
                mode="ignore",
                partition_by=partition_by,
                configuration=configuration,
                storage_options=options,
            )
    except (DeltaError, OSError) as error:
        raise storage_error(path, error) from error
