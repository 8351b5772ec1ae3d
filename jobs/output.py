"""`--output`: a folder or an S3 prefix that holds the tables and the summary of scans.

    OUT/results/   OUT/scans/   OUT/reviews/   OUT/summary.json

Both kinds answer the same questions, so that nothing above here asks where it writes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from detector.errors import InputError, StorageError
from jobs.local import scheme_of
from jobs.s3 import Address, client, filesystem, head, parse
from jobs.s3_errors import error_code
from jobs.schema import RESULTS, printable

if TYPE_CHECKING:
    import duckdb

# delta-rs reads these in a path as something else, or panics.
_UNUSABLE = "%[]^|\\"
# delta-rs gives up after ten tries, which are two seconds, where a store refuses connections.
_PATIENCE = {
    "max_retries": "1000",
    "retry_timeout": "70s",
    "backoff_config.init_backoff": "500ms",
    "backoff_config.max_backoff": "5s",
}
_KEPT = "What is committed is kept. Put the store right and run the same command again."


class Output(Protocol):
    """Where results are written."""

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What delta-rs has to be told beside the environment."""
        ...

    def at(self, name: str) -> str:
        """Path or URI of a table or file below."""
        ...

    def prepare(self, name: str) -> None:
        """Make a place for a new table.

        Raises:
            InputError: something else lies there.
        """
        ...

    def require_fences(self) -> None:
        """Try what a claim rests on.

        Raises:
            StorageError: two writers could both believe that a commit was theirs.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place, whole.

        Raises:
            StorageError: the store is full, or gone.
        """
        ...

    def read(self, name: str) -> bytes | None:
        """A file, None where there is none."""
        ...

    def keeps_versions(self) -> bool:
        """Whether what is deleted or replaced can still be had; False where that is not told."""
        ...

    def remove_older(self, table: str, commit: str, known: set[str]) -> None:
        """Delete the data files of a table that are not `known` and older than a file of its log."""
        ...

    def readable_by(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let DuckDB read what lies below."""
        ...

    def __str__(self) -> str: ...


def open_output(output: str) -> Output:
    """The folder or prefix that a setting names.

    Raises:
        InputError: it cannot hold a Delta table.
    """
    scheme = scheme_of(output)
    if scheme == "s3":
        where = parse(output)
        key = where.key.strip("/")
        _check_name(f"s3://{where.bucket}/{key}".rstrip("/"))
        # delta-rs takes it for a URL: these lead elsewhere than the key says.
        odd = {sign for sign in "?#" if sign in key} | ({"", ".", ".."} & {*key.split("/")} if key else set())
        if odd:
            raise InputError(
                f"{printable(output)} cannot hold a Delta table: its prefix has {_spelled(odd)}",
                hint="Choose an output whose prefix has plain characters.",
            )
        return S3Output(where._replace(key=key))
    if scheme is not None:
        raise InputError(
            f"{printable(output)}: results cannot be written to {scheme}:// by this release",
            hint="Name a folder, or s3://bucket/prefix.",
        )
    path = Path(output).expanduser().absolute()
    _check_name(str(path) if output else "")
    return LocalOutput(path)


def _spelled(parts: set[str]) -> str:
    return printable(" ".join(part or "//" for part in sorted(parts)))


def _check_name(name: str) -> None:
    bad = {c for c in name if c in _UNUSABLE or not c.isprintable()}
    # A folder `detector=hog` would be read as a column, and win over the one in the files.
    bad |= {part for part in name.split("/") if "=" in part and part.partition("=")[0] in RESULTS.names}
    if bad or not name:
        found = printable(" ".join(sorted(bad)))
        raise InputError(
            f"{printable(name)} cannot hold a Delta table: its path has {found}",
            hint="Choose an output whose whole path has plain characters.",
        )


@dataclass(frozen=True, slots=True)
class LocalOutput:
    """A folder, absolute."""

    root: Path

    @property
    def storage_options(self) -> None:
        """None are needed."""
        return

    def at(self, name: str) -> str:
        """As `Output.at`."""
        return str(self.root / name)

    def prepare(self, name: str) -> None:
        """As `Output.prepare`."""
        path = self.root / name
        # Cleaning up would take a stranger's Parquet files for orphans.
        if path.is_dir() and any(entry.name != "_delta_log" for entry in path.iterdir()):
            raise _something_else(str(path))
        path.mkdir(parents=True, exist_ok=True)

    def require_fences(self) -> None:
        """A file system that links without overwriting is taken for granted."""

    def write(self, name: str, data: bytes) -> None:
        """As `Output.write`."""
        temporary = self.root / f".{name}.{os.getpid()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(self.root / name)
        except OSError as error:
            raise StorageError(f"{printable(str(self))}: {error.strerror}", hint=_KEPT) from error

    def read(self, name: str) -> bytes | None:
        """As `Output.read`."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{printable(str(self))}: {error.strerror}", hint=_KEPT) from error

    def keeps_versions(self) -> bool:
        """As `Output.keeps_versions`."""
        return False

    def remove_older(self, table: str, commit: str, known: set[str]) -> None:
        """As `Output.remove_older`; the staging files of delta-rs (`*.parquet#1`) are among them."""
        committed = (self.root / commit).stat().st_mtime_ns
        for path in (self.root / table).glob("scan_date=*/*.parquet*"):
            with suppress(FileNotFoundError):
                if str(path) not in known and path.stat().st_mtime_ns < committed:
                    path.unlink()

    def readable_by(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Local files are."""

    def __str__(self) -> str:
        return str(self.root)


@dataclass(frozen=True, slots=True)
class S3Output:
    """A prefix, its key without slashes at the ends."""

    where: Address

    @property
    def storage_options(self) -> dict[str, str]:
        """delta-rs reads the AWS variables by itself, but wants to be told that http is meant."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        return _PATIENCE | ({"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {})

    def at(self, name: str) -> str:
        """As `Output.at`."""
        return str(self._below(name))

    def prepare(self, name: str) -> None:
        """As `Output.prepare`."""
        where = self._below(f"{name}/")
        with self._told():
            found = client().list_objects_v2(Bucket=where.bucket, Prefix=where.key, Delimiter="/")
        folders = {entry["Prefix"] for entry in found.get("CommonPrefixes", [])}
        if found.get("Contents") or folders - {f"{where.key}_delta_log/"}:
            raise _something_else(str(where))

    def require_fences(self) -> None:
        """Two writes to one new key, of which the second has to be refused."""
        from botocore.exceptions import ClientError

        where = self._below(f".probe-{secrets.token_hex(8)}")
        with self._told():
            client().put_object(Bucket=where.bucket, Key=where.key, Body=b"", IfNoneMatch="*")
            try:
                client().put_object(Bucket=where.bucket, Key=where.key, Body=b"", IfNoneMatch="*")
            except ClientError as error:
                if error_code(error) in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
                    return
                raise
            finally:
                client().delete_object(Bucket=where.bucket, Key=where.key)
        raise StorageError(
            f"{self}: this store overwrites an object that was to be written only if new (If-None-Match)",
            hint="Two scans could overwrite each other's commits there. Write to AWS S3 or another store "
            "that has conditional writes, or to a local folder.",
        )

    def write(self, name: str, data: bytes) -> None:
        """As `Output.write`."""
        where = self._below(name)
        with self._told():
            client().put_object(Bucket=where.bucket, Key=where.key, Body=data)

    def read(self, name: str) -> bytes | None:
        """As `Output.read`."""
        where = self._below(name)
        with self._told():
            if head(where) is None:
                return None
            return client().get_object(Bucket=where.bucket, Key=where.key)["Body"].read()

    def keeps_versions(self) -> bool:
        """As `Output.keeps_versions`."""
        from botocore.exceptions import ClientError

        with self._told(), suppress(ClientError):  # not everybody may ask, and not every store knows
            return client().get_bucket_versioning(Bucket=self.where.bucket).get("Status") == "Enabled"
        return False

    def remove_older(self, table: str, commit: str, known: set[str]) -> None:
        """As `Output.remove_older`; both ages are by the store's clock."""
        named = self._below(commit)
        with self._told():
            committed = client().head_object(Bucket=named.bucket, Key=named.key)["LastModified"]
            for entry in self._entries(f"{table}/scan_date="):
                key = entry["Key"]
                uncommitted = ".parquet" in key and str(Address(named.bucket, key)) not in known
                if uncommitted and entry["LastModified"] < committed:
                    client().delete_object(Bucket=named.bucket, Key=key)

    def readable_by(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Through s3fs: DuckDB's own extension would have to be fetched from the network."""
        connection.register_filesystem(filesystem())

    def __str__(self) -> str:
        return str(self.where)

    def _below(self, name: str) -> Address:
        return self.where._replace(key=f"{self.where.key}/{name}" if self.where.key else name)

    def _entries(self, name: str) -> Iterator[Mapping[str, Any]]:
        """What a listing says of each object whose key begins with that."""
        where = self._below(name)
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=where.key)
        for page in pages:
            yield from cast("list[Mapping[str, Any]]", page.get("Contents", []))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the store as errors for people."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise StorageError(
                f"{self}: {printable(str(error))}",
                hint=f"{_KEPT} Needed: s3:PutObject, s3:GetObject, s3:DeleteObject, s3:ListBucket.",
            ) from error


def _something_else(name: str) -> InputError:
    return InputError(f"{printable(name)} holds something else", hint="Name an empty or new output.")
