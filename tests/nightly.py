"""Nightly scans of a bucket into a table in it, each a process of its own, and the account kept of them.

The settings are those of `configs/nightly.yaml`. Extraction fetches every object and decodes none of them.
The bucket's content is kept beside (`tests.uploads`), and after every command the table is compared with it:
what each listing saw has its row, once, nothing else has one, and every extraction is accounted for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jobs import query, s3
from tests.seeded import seeded_weights
from tests.soak.counts import counts
from tests.uploads import Uploads, Version

_ROOT = Path(__file__).resolve().parents[1]
_SEED = 7
# A scan leaves alone what changed less than that ago; a store that counts whole seconds makes it one less.
AGE_S = 4
_TIMEOUT_S = 300
# What is scored together in one process: it is in hand, and in no table, while it is extracted.
BATCH = 4
# The failures of these nights, all of which are tried again.
_PASSING = ("changed_during_read", "not_found")
# The command with decoding replaced, and everything else as it is.
_COMMAND = """
import functools
import jobs.scan, jobs.stages
from jobs.cli import main
from tests.canned import Counted, NoSandbox, decoded
jobs.stages.Sandbox, jobs.stages.extract = NoSandbox, decoded
jobs.scan.run = functools.partial(jobs.scan.run, extract=Counted)
main()
"""


class Row(NamedTuple):
    """A row of the table, in the columns that the week is judged by."""

    uri: str
    version: str
    settings_id: str
    attempt: int
    scan_id: str
    reason: str | None
    content_sha256: str | None

    @property
    def of(self) -> Version:
        """Which version of which object it is about."""
        return Version(self.uri, self.version)


@dataclass(frozen=True, slots=True)
class Command:
    """A scan that was started."""

    process: subprocess.Popen[bytes]
    called: Path
    """One line for each video that was extracted."""

    def calls(self) -> list[Version]:
        """The videos that were extracted so far, in that order."""
        if not self.called.exists():
            return []
        lines = self.called.read_text("utf-8").split("\n")[:-1]  # the last one is empty, or half written
        return [Version(*line.split("\t")) for line in lines]

    def reached(self, number: int) -> bool:
        """Wait until so many videos are in hand; False if the scan ended, or hangs, before that."""
        until = time.monotonic() + _TIMEOUT_S
        while len(self.calls()) < number:
            if self.process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def go_on(self) -> None:
        """Let a scan go on that halts."""
        Path(f"{self.called}.go").touch()

    def ended(self) -> tuple[int, str]:
        """Exit code, and what it said."""
        try:
            code = self.process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code, self.called.with_suffix(".said").read_text("utf-8", "replace")


class _Found(NamedTuple):
    """What the product's own queries answer."""

    rows: list[Row]
    latest: list[dict[str, Any]]
    scans: list[dict[str, Any]]


class Week:
    """Scans of one bucket into one table in it, and the account that is kept of them.

    Attributes:
        complaints: What was not as it must be, in words.
        figures: What each command did.
        expected: The versions that `latest` has to hold, no more and no fewer.
        rows: The rows of the table after the last command.
    """

    def __init__(self, folder: Path, bucket: str, *, commit_rows: int) -> None:
        self.uploads = Uploads(bucket, _SEED)
        self.bucket, self.output, self.commit_rows = bucket, f"s3://{bucket}/out", commit_rows
        self.complaints: list[str] = []
        self.figures: dict[str, object] = {}
        self.expected: set[Version] = set()
        self.rows: set[Row] = set()
        self.calls = self.lost = 0
        self._folder, self._started = folder, 0
        self._ends: list[tuple[object, ...]] = []
        seeded_weights(folder / "seeded.safetensors")
        seeded_weights(folder / "other.safetensors", seed=1)
        settings = yaml.safe_load((_ROOT / "configs" / "nightly.yaml").read_text("utf-8")) | {
            "inputs": [self.uploads.prefix],
            "output": self.output,
            "min_age": f"{AGE_S}s",
            "weights": str(folder / "seeded.safetensors"),
            "address": "in-process",
            "commit_rows": commit_rows,
        }
        (folder / "nightly.yaml").write_text(yaml.safe_dump(settings), "utf-8")

    def check(self, holds: bool, complaint: str) -> None:
        """Note a complaint unless something holds."""
        if not holds:
            self.complaints.append(complaint)

    def weights(self, name: str) -> tuple[str, str]:
        """The words of a command that name other weights."""
        return "--weights", str(self._folder / f"{name}.safetensors")

    def start(self, *words: str, pace_s: float = 0.0, hold_at: int = 0) -> Command:
        """The nightly command, so many seconds slower per video, halting at one of them."""
        self._started += 1
        called = self._folder / f"{self._started}.called"
        environment = {"CALLED": str(called), "PACE_S": str(pace_s), "HOLD_AT": str(hold_at)}
        with called.with_suffix(".said").open("wb") as said:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _COMMAND,
                    "scan",
                    "--config",
                    str(self._folder / "nightly.yaml"),
                    *words,
                ],
                cwd=_ROOT,
                env=os.environ | environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        return Command(process, called)

    def due(self, listed: set[Version]) -> set[Version]:
        """What of a listing the table does not answer yet."""
        return listed - {row.of for row in self.rows if row.reason not in _PASSING}

    def settle(
        self,
        name: str,
        command: Command,
        listed: set[Version],
        *,
        code: int = 0,
        failures: Mapping[Version, str] | None = None,
    ) -> str:
        """Wait for the end of a scan that saw `listed`, and compare what it did with what it had to do.

        Those that end with 0 have to have done all of it, others some; what it said.
        """
        ended, said = command.ended()
        due, before, calls = self.due(listed), self.rows, command.calls()
        found = self._found()
        self.rows = set(found.rows)
        new = self.rows - before
        written = {row.of for row in new}
        lost = len(calls) - len(new)
        self.check(ended == code, f"{name}: exit code {ended}, not {code}: {said[-400:]!r}")
        self.check(before <= self.rows, f"{name}: {len(before - self.rows)} rows are gone or changed")
        twice = [version for version, n in Counter(calls).items() if n > 1]
        self.check(not twice, f"{name}: extracted twice: {twice[:3]}")
        more = set(calls) - due
        self.check(not more, f"{name}: extracted {len(more)} that were not due, e.g. {sorted(more)[:3]}")
        self.check(written <= set(calls), f"{name}: {len(written - set(calls))} rows that nobody extracted")
        # Only a kill loses what is in hand: rows up to a commit, and a batch that is still extracted.
        most = self.commit_rows - 1 + BATCH if code == -signal.SIGKILL else 0
        self.check(0 <= lost <= most, f"{name}: {lost} extractions without a row, at most {most} may be")
        if code == 0:
            self.check(written == due, f"{name}: {len(written)} of {len(due)} that were due have a row")
        else:
            some = bool(written) and written < due
            self.check(some, f"{name}: it was to end in the middle: {len(written)} of {len(due)} rows")
        self._check_rows(name, new, before, failures or {})
        self.expected |= written if code else listed
        self.calls, self.lost = self.calls + len(calls), self.lost + lost
        self._ends.append((None if code < 0 else code, len(listed), len(due), 0 if code < 0 else len(new)))
        self._check_table(name, found)
        if code >= 0:  # right after a kill a glob may see a file that nobody committed, until the next claim
            read = counts(self.output)
            read.pop("videos")
            self.check(set(read.values()) == {len(self.rows)}, f"{name}: {len(self.rows)} rows, but {read}")
        did = f"{len(listed)} listed, {len(due)} due, {len(calls)} extracted, {len(new)} rows"
        self.figures[name] = f"exit code {ended}: {did}"
        print(name, self.figures[name], flush=True)
        return said

    def stored(self) -> dict[str, str]:
        """All that lies below the output but what claims leave: ETag by key."""
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="out/")
        found = {entry["Key"]: entry["ETag"] for page in pages for entry in page["Contents"]}
        return {key: etag for key, etag in found.items() if not key.startswith("out/results/_delta_log/")}

    def _found(self) -> _Found:
        with query.connect(self.output) as connection:
            rows = query.sql(connection, f"SELECT {', '.join(Row._fields)} FROM results")  # noqa: S608
            latest = query.sql(connection, "SELECT uri, version FROM latest")
            scans = query.scans(connection).to_pylist()
        return _Found([Row(**row) for row in rows.to_pylist()], latest.to_pylist(), scans[::-1])

    def _check_rows(
        self, name: str, new: set[Row], before: set[Row], failures: Mapping[Version, str]
    ) -> None:
        tried, scans = Counter(row.of for row in before), {row.scan_id for row in before}
        self.check(len({row.scan_id for row in new}) <= 1, f"{name}: not all rows name one scan")
        self.check(not scans & {row.scan_id for row in new}, f"{name}: its rows name an earlier scan")
        for row in new:
            reason = failures.get(row.of)
            right = row.reason == reason and row.attempt == tried[row.of] + 1
            right &= bool(reason) or row.content_sha256 == self.uploads.sha256[row.of]
            self.check(right, f"{name}: {row}, expected {reason or 'a score of that very content'}")

    def _check_table(self, name: str, found: _Found) -> None:
        keys = Counter((row.uri, row.version, row.settings_id, row.attempt) for row in found.rows)
        twice = [key for key, n in keys.items() if n > 1]
        self.check(not twice, f"{name}: {len(twice)} rows are there twice, e.g. {twice[:2]}")
        latest = Counter(Version(row["uri"], row["version"]) for row in found.latest)
        more, fewer = set(latest) - self.expected, self.expected - set(latest)
        self.check(not more, f"{name}: latest has {len(more)} that no night saw, e.g. {sorted(more)[:2]}")
        self.check(not fewer, f"{name}: latest lacks {len(fewer)}, e.g. {sorted(fewer)[:2]}")
        self.check(set(latest.values()) == {1}, f"{name}: latest has a version twice")
        told = [
            tuple(scan[key] for key in ("exit_code", "listed", "planned", "done")) for scan in found.scans
        ]
        self.check(told == self._ends, f"{name}: query scans tells {told}, not {self._ends}")
        killed = [scan["ended_at"] is None for scan in found.scans]
        self.check(killed == [end[0] is None for end in self._ends], f"{name}: ends are missing in scans")
