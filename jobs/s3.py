"""Videos on S3: the client, addresses, and listing by pages.

An address is `s3://bucket/key` with the key as it is: nothing in it is quoted or normalised, so every key
survives into the table and back. boto3 does all of it, because of the clients that were tried it alone lists
and opens every odd key. Endpoint, region, profile and credentials are found by the usual AWS means;
`AWS_SKIP_SIGNATURE=true` reads public buckets without credentials, here as in delta-rs.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from detector.errors import InputError, StorageError
from jobs.listed import Listed, Selection, suffix
from jobs.s3_errors import CREDENTIALS, NOT_US, error_code, is_outage
from jobs.schema import printable

if TYPE_CHECKING:
    from s3fs import S3FileSystem
    from types_boto3_s3 import S3Client

_SCHEME = "s3://"
_THREADS = 8
_PAGES_AHEAD = 32
_Source = Callable[[], Iterator[list[Listed]]]
_Queue = queue.Queue[list[Listed] | Exception | None]
_MISSING = frozenset(("404", "NoSuchKey", "NotFound"))
_IDLE_S = 30


class Address(NamedTuple):
    """A bucket, and a key or prefix in it."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"


def parse(uri: str) -> Address:
    """The address that `s3://bucket/key` names.

    Raises:
        InputError: it names no bucket.
    """
    bucket, _, key = uri[len(_SCHEME) :].partition("/")
    if not bucket:
        raise InputError(f"{printable(uri)} names no bucket", hint="Write it as s3://bucket/prefix/.")
    return Address(bucket, key)


@lru_cache(maxsize=2)
def client(*, bodies: bool = False) -> S3Client:
    """The process's client; it may be used by several threads. That for bodies tries nothing twice by itself.

    Whoever asks for a body tries all of it again; tries within tries multiply, and so do their waits.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1 if bodies else 5},
        connect_timeout=10,
        read_timeout=_IDLE_S if bodies else 60,
        max_pool_connections=2 * _THREADS,
        user_agent_extra="deepfake-scan",
    )
    if unsigned():
        config = config.merge(Config(signature_version=UNSIGNED))
    # boto3 itself reads AWS_DEFAULT_REGION only.
    region = os.environ.get("AWS_REGION") or None
    found: S3Client = boto3.session.Session(region_name=region).client("s3", config=config)
    return found


def unsigned() -> bool:
    """Whether requests are to be sent without credentials."""
    return os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")


def filesystem() -> S3FileSystem:
    """S3 as files, for what reads files: manifests, and DuckDB over the table."""
    import s3fs

    return s3fs.S3FileSystem(anon=unsigned(), use_listings_cache=False, skip_instance_cache=True)


def list_s3(selection: Selection, name: str) -> Iterator[Listed]:
    """The objects behind a key, a prefix (as a folder) or a pattern with `*` or `?`.

    Raises:
        InputError: there is nothing, or the store refuses to list it.
        StorageError: the store cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    where = parse(name)
    try:
        yield from _listed(selection, where)
    except ClientError as error:
        if error_code(error) in NOT_US:
            raise StorageError(
                f"{printable(name)} cannot be listed: {error_code(error)}", hint=CREDENTIALS
            ) from error
        raise InputError(
            f"{printable(name)} cannot be listed: {error_code(error)}",
            hint="Check the name, the region, and that s3:ListBucket is allowed on the bucket.",
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"{printable(name)} cannot be listed: {error}", hint=CREDENTIALS) from error


def _listed(selection: Selection, where: Address) -> Iterator[Listed]:
    if where.key and not where.key.endswith("/"):
        single = _single(where)  # also of a key that looks like a pattern
        if single is not None:
            yield single
            return
    if any(sign in where.key for sign in "*?"):
        yield from _matching(selection, where)
        return
    if where.key and not where.key.endswith("/"):
        where = where._replace(key=f"{where.key}/")
    found = False
    for item in _below(where):
        found = True
        if is_taken(selection, item, where):
            yield item
    if not found:
        raise InputError(
            f"there is nothing at {printable(str(where))}",
            hint="A prefix is taken as a folder; for names that merely begin with it add *.",
        )


def _matching(selection: Selection, where: Address) -> Iterator[Listed]:
    """Keys that match a pattern, whose `*` reaches over slashes; one with a suffix takes whatever matches."""
    literal = where.key[: min(where.key.index(sign) for sign in "*?" if sign in where.key)]
    spelled_out = suffix(where.key) not in ("", ".") and not any(sign in suffix(where.key) for sign in "*?")
    found = False
    for item in _below(where._replace(key=literal)):
        if not fnmatchcase(parse(item.uri).key, where.key.replace("[", "[[]")):
            continue
        found = True
        # As in a folder: what `exclude` names is meant from the last slash before the pattern on.
        top = where._replace(key=literal[: literal.rfind("/") + 1])
        if is_taken(selection, item, top, spelled_out=spelled_out):
            yield item
    if not found:
        raise InputError(
            f"nothing matches {printable(str(where))}", hint="Check the spelling of the pattern."
        )


def is_taken(selection: Selection, item: Listed, top: Address, *, spelled_out: bool = False) -> bool:
    """True if an object found below `top` is to be scanned; else it is counted."""
    if any(item.uri == own or item.uri.startswith(f"{own}/") for own in selection.own):
        selection.skipped["object of results"] += 1
        return False
    key = parse(item.uri).key
    if key.endswith("/"):
        selection.skipped["marker of a folder"] += 1
        return False
    inside = key.removeprefix(top.key)
    return selection.takes(key.rpartition("/")[2], inside, spelled_out=spelled_out)


def head(where: Address, version_id: str | None = None) -> Listed | None:
    """One object, or that version of it, as a listing would show it; None where there is none.

    Raises:
        botocore.exceptions.ClientError: the store refuses.
    """
    from botocore.exceptions import ClientError

    try:
        found = client().head_object(Bucket=where.bucket, Key=where.key, **of_version(version_id))
    except ClientError as error:
        if error_code(error) in _MISSING:
            return None
        raise
    modified = found["LastModified"].astimezone(UTC)
    version = found["ETag"].strip('"')
    return Listed(
        str(where), found["ContentLength"], version, modified, found.get("StorageClass"), version_id
    )


def is_answering(bucket: str) -> bool:
    """Whether the store answers a small request, be it with a refusal."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client(bodies=True).head_bucket(Bucket=bucket)
    except ClientError as error:
        return not is_outage(error)
    except (BotoCoreError, OSError):
        return False
    return True


def of_version(version_id: str | None) -> dict[str, Any]:
    """What a request has to say of a version; nothing where the newest is meant."""
    return {"VersionId": version_id} if version_id else {}


def _single(where: Address) -> Listed | None:
    """The object of that very name; without the right to look at it, a prefix is tried."""
    from botocore.exceptions import ClientError

    try:
        return head(where)
    except ClientError as error:
        if error_code(error) in ("403", "AccessDenied"):
            return None
        raise


def _below(where: Address) -> Iterator[Listed]:
    """Every object whose key begins with that. Folders at the top are listed side by side.

    Where the top level has more entries than one page holds, everything is listed in one row.
    """
    top = client().list_objects_v2(Bucket=where.bucket, Prefix=where.key, Delimiter="/")
    folders = [entry["Prefix"] for entry in top.get("CommonPrefixes", [])]
    if top["IsTruncated"] or len(folders) < 2:
        for page in _pages(where):
            yield from page
        return
    yield from _page(where.bucket, top.get("Contents", []))
    yield from _side_by_side([partial(_pages, where._replace(key=key)) for key in folders])


def _pages(where: Address) -> Iterator[list[Listed]]:
    paginator = client().get_paginator("list_objects_v2")
    for page in paginator.paginate(Bucket=where.bucket, Prefix=where.key):
        yield _page(where.bucket, page.get("Contents", []))


def _page(bucket: str, entries: Sequence[Any]) -> list[Listed]:
    return [
        Listed(
            f"{_SCHEME}{bucket}/{entry['Key']}",
            entry["Size"],
            entry["ETag"].strip('"'),
            entry["LastModified"].astimezone(UTC),
            entry.get("StorageClass"),
        )
        for entry in entries
    ]


def _side_by_side(sources: Sequence[_Source]) -> Iterator[Listed]:
    """The pages of several sources as they come, a few threads at a time; the first error ends it."""
    pages = _Queue(_PAGES_AHEAD)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(_THREADS, "s3-list")
    left = len(sources)
    try:
        for source in sources:
            pool.submit(_feed, source, pages, stopped)
        while left:
            page = pages.get()
            if isinstance(page, Exception):
                raise page
            left -= page is None
            yield from page or ()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        while not pages.empty():  # lets a thread go that waits for room
            pages.get_nowait()


def _feed(source: _Source, pages: _Queue, stopped: threading.Event) -> None:
    """Puts the pages of a source, then None; an error in its place."""
    try:
        for page in source():
            pages.put(page)
            if stopped.is_set():
                return
        pages.put(None)
    except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
        pages.put(error)
