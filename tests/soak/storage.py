"""`make soak BAR=storage`: a store with faults, and objects that change, cost no video and no wrong row.

400 small videos in a real S3 server are scanned on Ray through a proxy that does to bodies what networks do
(`tests.faulty_store`). The table has to be that of an undisturbed scan where 10 % of the answers are a 503,
5 % are torn, 1 % stall for ever, all of them come 200 ms late, and 100 come with a byte changed; also where
everything is a 503 for a minute. A store that is gone for good has to stop the scan within five minutes, and
the same command to do the rest. Then 150 objects are replaced, deleted and added while a scan runs.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
from deltalake import DeltaTable

from jobs.output import open_output
from tests.faulty_store import FaultyStore, faulty_store
from tests.film import moving_face
from tests.media import write_video
from tests.s3 import server
from tests.seeded import seeded_weights
from tests.soak.agreement import compare
from tests.soak.report import write_report
from tests.uploads import Uploads, Version

_VIDEOS, _CHANGED, _FLIPS = 400, 50, 100
_SEED, _FAULT_SEED = 12, 20
_SHARES = {"unavailable": 0.10, "reset": 0.05, "stalled": 0.01}
_LATENCY_S, _OUTAGE_S, _GONE_S = 0.2, 60, 300
# So many bodies are asked for before something happens to all of them.
_BEFORE = 100
_TIMEOUT_S = 900


class Bar:
    """One bucket, scans of it through faulty stores, and what was not as it must be."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.figures: dict[str, object] = {}
        self.complaints: list[str] = []
        self.uploads = Uploads("soak", _SEED)
        self._folder, self._upstream = folder, upstream
        seeded_weights(folder / "seeded.safetensors")
        self._films = [
            write_video(folder / "a.mp4", moving_face(14, (160, 160), face_px=64, seed=seed)).read_bytes()
            for seed in range(4)
        ]
        for _ in range(_VIDEOS):
            self.add()

    def add(self, key: str | None = None) -> None:
        """A video in a new object, or another one of the same length in an old one."""
        key = key or self.uploads.new_key()
        film = self._films[sum(key.encode()) % len(self._films)]
        unused = self.uploads.chance.randbytes(16)
        self.uploads.put(key, film + (8 + len(unused)).to_bytes(4, "big") + b"free" + unused)

    @contextmanager
    def store(self) -> Iterator[FaultyStore]:
        """A faulty store before the bucket."""
        with faulty_store(self._upstream) as store:
            yield store

    def output(self, name: str) -> str:
        """Where the table `name` lies: on this disk, or in the store that has the faults."""
        return "s3://soak/outage" if name == "outage" else str(self._folder / name)

    def scan(self, name: str, store: FaultyStore, code: int) -> float:
        """Scan into the table `name`; seconds that it took. It has to end with that code."""
        words = ["scan", self.uploads.prefix, "--output", self.output(name)]
        words += ["--weights", str(self._folder / "seeded.safetensors")]
        words += ["--set=dtype=float32", "--set=commit_rows=20", "--set=commit_every_s=5"]
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", *words],
            env=os.environ | {"AWS_ENDPOINT_URL": store.url},
            check=False,
            capture_output=True,
            timeout=_TIMEOUT_S,
            text=True,
        )
        seconds = time.monotonic() - began
        self.check(ended.returncode == code, f"{name}: exit {ended.returncode}: {ended.stderr[-400:]!r}")
        print(name, f"exit {ended.returncode}", dict(store.counts()) if code != 4 else "", f"{seconds:.0f} s")
        return seconds

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Of the table `name`."""
        root = open_output(self.output(name))
        delta = DeltaTable(root.at("results"), storage_options=root.storage_options)
        found: list[dict[str, Any]] = pa.table(delta.to_pyarrow_table()).to_pylist()
        return found

    def check(self, holds: bool, complaint: str) -> None:
        """Note a complaint unless something holds."""
        if not holds:
            self.complaints.append(complaint)

    def check_same(self, name: str) -> None:
        """The table has to be that of the scan without faults."""
        clean = {row["uri"]: row for row in self.rows("clean")}
        found = {row["uri"]: row for row in self.rows(name)}
        self.check(len(clean) == len(self.rows(name)) == _VIDEOS, f"{name}: {len(self.rows(name))} rows")
        self.check(clean.keys() == found.keys(), f"{name}: rows of other objects")
        for uri in clean.keys() & found.keys():
            different, _ = compare(found[uri], clean[uri])
            self.check(not different, f"{name}: {uri} differs in {different}")


def main() -> int:
    """Run the bar; 0 if it holds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as made, server(Path(made) / "server") as reached:
        os.environ.update(reached)
        boto3.client("s3").create_bucket(Bucket="soak")
        bar = Bar(Path(made), reached["AWS_ENDPOINT_URL"])
        with bar.store() as store:
            bar.figures["seconds of the scan without faults"] = round(bar.scan("clean", store, 0))
        scored = Counter(row["status"] for row in bar.rows("clean"))
        bar.check(scored == {"scored": _VIDEOS}, f"clean: {scored}")
        for part in (harmed, out_for_a_minute, gone, changed):
            part(bar)
    bar.figures |= {
        "what was not as it must be": len(bar.complaints),
        "seconds": round(time.monotonic() - started),
    }
    write_report("storage", not bar.complaints, bar.figures, bar.complaints[:20])
    return 1 if bar.complaints else 0


def harmed(bar: Bar) -> None:
    """Answers that are refused, torn, stalled, late and changed."""
    with bar.store() as store:
        store.inject(seed=_FAULT_SEED, latency_s=_LATENCY_S, flips=_FLIPS, **_SHARES)
        seconds = bar.scan("harmed", store, 0)
        counts = store.counts()
    least = {name: share * _VIDEOS for name, share in _SHARES.items()} | {"flipped": _FLIPS}
    for name, number in least.items():
        bar.check(counts[name] >= number, f"harmed: {counts[name]} {name} injected, {number:.0f} were stated")
    bar.check_same("harmed")
    bar.figures |= {
        "faults: bodies asked for, seconds of the scan": f"{counts['bodies']}, {seconds:.0f}",
        "faults: 503; torn by RST; stalled for ever; one byte changed": "; ".join(
            str(counts[name]) for name in least
        ),
    }


def out_for_a_minute(bar: Bar) -> None:
    """Nothing but 503 for a while, for the table as well, which lies in the same store."""
    with bar.store() as store:

        def lose() -> None:
            store.inject(down=True)
            time.sleep(_OUTAGE_S)
            store.inject()

        meanwhile = _meanwhile(store, lose)
        seconds = bar.scan("outage", store, 0)
        meanwhile.join()
        refused = store.counts()["down"]
    bar.check(refused >= 10, f"outage: only {refused} requests were refused")
    bar.check_same("outage")
    bar.figures["503 for 60 s: requests refused, seconds of the scan"] = f"{refused}, {seconds:.0f}"


def gone(bar: Bar) -> None:
    """A store that takes connections and answers nothing any more, and the same command afterwards."""
    with bar.store() as store:
        at: list[float] = []

        def lose() -> None:
            store.hang()
            at.append(time.monotonic())

        meanwhile = _meanwhile(store, lose)
        bar.scan("gone", store, 4)
        meanwhile.join()
        seconds = time.monotonic() - at[0]
    bar.check(seconds < _GONE_S, f"gone: it stopped {seconds:.0f} s after the store was gone")
    kept = Counter(row["status"] for row in bar.rows("gone"))
    bar.check(kept.keys() == {"scored"} and kept.total() < _VIDEOS, f"gone: {kept} were kept")
    with bar.store() as store:
        bar.scan("gone", store, 0)
    bar.check_same("gone")
    bar.figures["gone for good: seconds until exit 4, rows kept"] = f"{seconds:.0f}, {kept.total()}"


def changed(bar: Bar) -> None:
    """Objects that are replaced and deleted before they are read, and others that come, while a scan runs."""
    uploads, listed = bar.uploads, dict(bar.uploads.now)
    touched: dict[str, str] = {}
    with bar.store() as store:

        def change() -> None:
            read = {path.removeprefix("/soak/") for path in store.asked()}
            unread = sorted(listed.keys() - read)
            keys = random.Random(_SEED).sample(unread, 2 * _CHANGED)
            for number, key in enumerate(keys):
                if number % 2:
                    uploads.delete(key)
                    touched[key] = "not_found"
                else:
                    bar.add(key)
                    touched[key] = "changed_during_read"
                if number < _CHANGED:
                    bar.add()

        meanwhile = _meanwhile(store, change)
        bar.scan("changed", store, 3)
        meanwhile.join()
        rows = bar.rows("changed")
        _check_changed(bar, rows, listed, touched)
        bar.scan("changed", store, 0)
    reasons = Counter(row["reason"] for row in rows)
    last = {Version(row["uri"], row["version"]): row for row in bar.rows("changed")}
    missing = uploads.versions() - {of for of, row in last.items() if row["status"] == "scored"}
    bar.check(not missing, f"changed: the next scan left {len(missing)} versions without a score")
    bar.figures |= {
        "objects replaced, deleted, added while a scan ran": f"{_CHANGED}, {_CHANGED}, {_CHANGED}",
        "rows of that scan: scored; changed_during_read; not_found": (
            f"{reasons[None]}; {reasons['changed_during_read']}; {reasons['not_found']}"
        ),
    }


def _check_changed(
    bar: Bar, rows: list[dict[str, Any]], listed: dict[str, Version], touched: dict[str, str]
) -> None:
    """Each row is about the version that was listed, by the bytes that were scored; others have a reason."""
    found = {Version(row["uri"], row["version"]): row for row in rows}
    bar.check(len(touched) == 2 * _CHANGED, f"changed: only {len(touched)} objects were touched")
    bar.check(found.keys() == set(listed.values()), "changed: rows of other versions than were listed")
    bar.check(len(rows) == len(found), "changed: a version has two rows")
    for key, version in listed.items():
        row = found.get(version)
        if row is None:
            continue
        if row["reason"] is None:
            right = row["content_sha256"] == bar.uploads.sha256[version]
        else:
            right = row["reason"] == touched.get(key)
        bar.check(right, f"changed: {key}: {row['status']}, {row['reason']}, expected {touched.get(key)}")
    for reason in ("not_found", "changed_during_read"):
        count = sum(row["reason"] == reason for row in rows)
        bar.check(count > _CHANGED // 2, f"changed: only {count} were read after the change: {reason}")


def _meanwhile(store: FaultyStore, act: Callable[[], None]) -> threading.Thread:
    """Has `act` called when so many bodies were asked for."""

    def wait() -> None:
        until = time.monotonic() + _TIMEOUT_S
        while store.counts()["bodies"] < _BEFORE and time.monotonic() < until:
            time.sleep(0.1)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


if __name__ == "__main__":
    sys.exit(main())
