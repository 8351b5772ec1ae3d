"""A bucket into which people upload from day to day, and what a test itself knows of its content."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from jobs import s3

_ACCOUNTS = ("anna", "ben/2026", "Zoë & co", "100% [new] #1")


class Version(NamedTuple):
    """One content of one object, as a scan calls it."""

    uri: str
    etag: str


class Uploads:
    """Objects below `s3://bucket/uploads/`; names, contents and who changes what follow from the seed.

    Attributes:
        now: What lies there, by key.
        sha256: Of everything that ever lay there.
    """

    def __init__(self, bucket: str, seed: int) -> None:
        self.prefix = f"s3://{bucket}/uploads/"
        self.chance = random.Random(seed)
        self.now: dict[str, Version] = {}
        self.sha256: dict[Version, str] = {}
        self._bucket = bucket
        self._bodies: dict[Version, bytes] = {}
        self._named = 0
        self._changed = 0.0
        s3.client().put_object(Bucket=bucket, Key="uploads/notes.txt", Body=b"No video by its name.")

    def put(self, key: str, body: bytes | None = None) -> Version:
        """Upload an object, or another content of it."""
        body = self.chance.randbytes(self.chance.randint(20, 3000)) if body is None else body
        etag = s3.client().put_object(Bucket=self._bucket, Key=key, Body=body)["ETag"].strip('"')
        version = Version(f"s3://{self._bucket}/{key}", etag)
        self.now[key], self.sha256[version] = version, hashlib.sha256(body).hexdigest()
        self._bodies[version] = body
        self._changed = time.time()
        return version

    def replace(self, version: Version) -> None:
        """Upload another content of the same length, which the ETag alone tells apart."""
        self.put(s3.parse(version.uri).key, self.chance.randbytes(len(self._bodies[version])))

    def put_back(self, version: Version) -> None:
        """Upload a content that the object has had before."""
        key = s3.parse(version.uri).key
        if self.put(key, self._bodies[version]) != version:
            raise RuntimeError(f"the store calls the same content of {key} by another ETag")

    def delete(self, key: str) -> Version:
        """Remove an object; what it was."""
        s3.client().delete_object(Bucket=self._bucket, Key=key)
        return self.now.pop(key)

    def new_key(self) -> str:
        """The name of an object that was never there."""
        self._named += 1
        return f"uploads/{self.chance.choice(_ACCOUNTS)}/{self._named:04}.mp4"

    def a_day(self, added: int, changed: int = 0, deleted: int = 0) -> None:
        """So many new objects, others with new content, and some that are gone."""
        touched = self.chance.sample(sorted(self.now), changed + deleted)
        for key in touched[:changed]:
            self.put(key)
        for key in touched[changed:]:
            self.delete(key)
        for _ in range(added):
            self.put(self.new_key())

    def versions(self) -> set[Version]:
        """What lies there now."""
        return set(self.now.values())

    def grow_older_than(self, seconds: float) -> None:
        """Wait until nothing that lies there is younger."""
        time.sleep(max(0.0, self._changed + seconds + 0.2 - time.time()))

    @contextmanager
    def still_growing(self, key: str) -> Iterator[list[Version]]:
        """While the block runs, an object is put anew several times a second; all that it was so far.

        However long a scan takes to start, its listing meets an object that has just changed.
        """
        parts, ended = [self.put(key, b"part 0")], threading.Event()

        def write() -> None:
            while not ended.wait(0.2):
                parts.append(self.put(key, b"part %d" % len(parts)))

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                yield parts
            finally:
                ended.set()
                writing.result()
