"""Scans of which parts are killed, each followed by the same scan again where it did not end well.

A trial is a scan of short real videos through the real stages and the real sandbox. What has to hold after
it: every video has the row that an undisturbed scan gives it, once, and nothing of the scan is left.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from deltalake import DeltaTable

from jobs import query
from jobs.output import open_output
from jobs.table import ResultsTable
from tests.film import moving_face
from tests.media import write_video
from tests.seeded import seeded_weights
from tests.soak.agreement import compare
from tests.soak.counts import counts
from tests.soak.victims import GONE_S, Command, actor_of, kill, wait_for_a_video, wait_for_one

SEED = 19
_TIMEOUT_S = 300
_SOON_S = 3.0
# A child lives for some hundredths of a second, a helper and an actor until they are killed.
_LEFT_ALIVE_S = {"child": 0.06, "helper": 0.5, "scoring actor": 3.0}
# The command on a cluster of two nodes, of which the second can go.
_ON_TWO_NODES = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 80 << 20}
nodes = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
nodes.add_node(**node)
sys.argv += ["--address", nodes.address]
from jobs.cli import main
try:
    main()
finally:
    nodes.shutdown()
"""


@dataclass(frozen=True, slots=True)
class Part:
    """So many kills of each victim, at most `per_scan` in a scan; `address`: that of a scan, or `nodes`."""

    victims: tuple[str, ...]
    address: str
    kills: int
    per_scan: int = 1

    @property
    def name(self) -> str:
        """For people, and for the seed."""
        return f"{' and '.join(self.victims)}, {self.address}"


@dataclass(slots=True)
class Trial:
    """What was killed in one scan, and what was not as it must be after it."""

    kills: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    kept: int = 0
    again: bool = False
    lost: int = 0
    gone_s: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def look(self, command: Command) -> None:
        """Note what a command that has ended left behind."""
        left, seconds = command.left_behind(GONE_S)
        self.complaints += [f"left behind: {one}" for one in left]
        self.gone_s = max(self.gone_s, seconds)


@dataclass(frozen=True, slots=True)
class Store:
    """Where a trial reads and writes: folders, or prefixes of a bucket."""

    name: str
    videos: str
    outputs: str


class Site:
    """The videos on all stores, and what an undisturbed scan makes of them.

    Args:
        folder: Short, because Ray puts sockets below it.
        stores: Where outputs go, by name; a bucket has to be there already.
        videos: How many.
    """

    def __init__(self, folder: Path, stores: Mapping[str, str], videos: int) -> None:
        self._folder, self.videos, self._scans = folder, videos, 0
        self._weights = folder / "seeded.safetensors"
        seeded_weights(self._weights)
        self.stores = [self._filled(name, top) for name, top in stores.items()]
        self.span_s = 0.0
        self._clean: dict[str, dict[str, dict[str, Any]]] = {}
        for store in self.stores:
            output = f"{store.outputs}/clean"
            self.span_s = self._span(store, output)
            self._clean[store.name] = {row["uri"]: row for row in _latest(output)}
            assert all(row["status"] == "scored" for row in self._clean[store.name].values())

    def _filled(self, name: str, top: str) -> Store:
        local = self._folder / "videos"
        if not local.exists():
            local.mkdir()
            for seed in range(self.videos):
                frames = moving_face(14, (160, 160), face_px=64, seed=seed)
                write_video(local / f"{seed:03}.mp4", frames)
        if not top.startswith("s3://"):
            return Store(name, str(local), top)
        bucket, _, prefix = top.removeprefix("s3://").partition("/")
        for path in sorted(local.iterdir()):
            boto3.client("s3").upload_file(str(path), bucket, f"{prefix}/videos/{path.name}")
        return Store(name, f"{top}/videos/", top)

    def _span(self, store: Store, output: str) -> float:
        """Seconds from the first sign of the table to the end of an undisturbed scan in one process."""
        with self.scan(store, "in-process", output) as command:
            while command.running and not ResultsTable.exists(output):
                time.sleep(0.05)
            began = time.monotonic()
            if code := command.ended(_TIMEOUT_S):
                raise RuntimeError(f"the undisturbed scan ended with {code}: {command.said}")
            return time.monotonic() - began

    def scan(self, store: Store, address: str, output: str) -> Command:
        """Start the command."""
        start = ["-c", _ON_TWO_NODES] if address == "nodes" else ["-m", "jobs"]
        words = ["scan", store.videos, "--output", output, "--weights", str(self._weights)]
        sets = ["commit_rows=10", "commit_every_s=1", "score_batch=4", "dtype=float32"]
        words += [f"--set={one}" for one in sets]
        if address != "nodes":
            words += ["--address", address]
        environment = {"PYTHONWARNINGS": "ignore"}
        self._scans += 1
        temp = self._folder / f"t{self._scans}"
        return Command([sys.executable, *start, *words], environment, temp)

    def complaints(self, store: Store, output: str) -> list[str]:
        """What of a table is not as an undisturbed scan leaves it, in words."""
        rows, clean = _latest(output), self._clean[store.name]
        times = Counter(row["uri"] for row in rows)
        found = [f"{uri}: no row" for uri in clean.keys() - times.keys()]
        found += [f"{uri}: {n} rows" for uri, n in times.items() if n > 1 or uri not in clean]
        for row in rows:
            different, _ = compare(row, clean.get(row["uri"], {}))
            if different:
                found.append(f"{row['uri']}: {row['status']} {row['reason'] or ''}, {', '.join(different)}")
        counted = counts(output)
        if len({n for reader, n in counted.items() if reader != "videos"}) > 1:
            found.append(f"readers count differently: {counted}")
        twice = _asked(output, "SELECT uri FROM results GROUP BY uri, version, attempt HAVING count(*) > 1")
        return found + [f"{row['uri']}: the same attempt twice" for row in twice]


def trial(site: Site, part: Part, number: int, wanted: Mapping[str, int]) -> Trial:
    """One scan with the kills of a part, at most `wanted` of each victim."""
    store, result = site.stores[number % len(site.stores)], Trial()
    output = f"{store.outputs}/{part.name.replace(' ', '-').replace(',', '')}-{number}"
    with site.scan(store, part.address, output) as command:
        chance = random.Random(f"{SEED} {part.name} {number}")
        _Hunt(site, part, command, output, chance).kill(wanted, result)
        code = command.ended(_TIMEOUT_S)
        result.kept = rows_in(output)
        if code not in ((0, -9) if "driver" in result.kills else (0, 3)):
            result.complaints.append(f"exit code {code}: {command.said}")
        # Ray's last may take a minute, and the next scan does not wait for it.
        left, result.gone_s = command.left_behind(_SOON_S)
        if code:
            result.again = True
            with site.scan(store, part.address, output) as after:  # at once: what was killed may still die
                if code := after.ended(_TIMEOUT_S):
                    result.complaints.append(f"exit code {code} of the scan after it: {after.said}")
                result.look(after)
        if left:
            result.look(command)
    result.lost = len(_asked(output, "SELECT uri FROM results WHERE reason = 'lost'"))
    result.complaints += site.complaints(store, output)
    result.complaints = [f"{part.name} {number}: {text}" for text in result.complaints]
    return result


@dataclass(frozen=True, slots=True)
class _Hunt:
    """The kills in one scan."""

    site: Site
    part: Part
    command: Command
    output: str
    chance: random.Random

    def kill(self, wanted: Mapping[str, int], result: Trial) -> None:
        """Kill one victim after the other, next the one of which most are left to kill."""
        while self.command.running and not ResultsTable.exists(self.output):
            time.sleep(0.05)
        while self.command.running and sum(result.kills.values()) < self.part.per_scan:
            left = {victim: count - result.kills.get(victim, 0) for victim, count in wanted.items()}
            kind = max(left, key=left.__getitem__)
            if left[kind] <= 0:
                return
            after_s = self._moment(kind)
            victim = wait_for_one(self.command, kind, self.chance)
            actor = actor_of(victim) if victim and victim.is_helper else None
            if victim and kill(victim, after_s):
                result.kills[kind] = result.kills.get(kind, 0) + 1
                if actor:
                    wait_for_a_video(self.command, actor)
            else:
                result.missed += 1

    def _moment(self, kind: str) -> float:
        """Wait a random time, and say for how many seconds the victim that is met then is left alive."""
        if kind not in ("driver", "raylet"):
            time.sleep(self.chance.uniform(0, 1))
            return self.chance.uniform(0, _LEFT_ALIVE_S[kind])
        if self.part.address == "in-process":
            return self.chance.uniform(0, self.site.span_s)
        # Half a minute of a scan on Ray is its start: one in three drivers dies in that. A node that goes
        # while pools start holds them up for `cluster._POOL_START_S`, which no bar has the time for.
        earliest = -self.site.videos // 3 if kind == "driver" else 1
        rows = self.chance.randrange(earliest, self.site.videos * 3 // 4)
        while self.command.running and rows_in(self.output) < rows:
            time.sleep(0.2)
        return self.chance.uniform(0, 2 if rows > 0 else 20)


def rows_in(output: str) -> int:
    """Rows that are committed."""
    root = open_output(output)
    table = DeltaTable(root.at("results"), storage_options=root.storage_options)
    return len(table.to_pyarrow_table(columns=["uri"]))


def _latest(output: str) -> list[dict[str, Any]]:
    return _asked(output, "SELECT * FROM latest")


def _asked(output: str, question: str) -> list[dict[str, Any]]:
    with contextlib.closing(query.connect(output)) as connection:
        rows: list[dict[str, Any]] = query.sql(connection, question).to_pylist()
        return rows
