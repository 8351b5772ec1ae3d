"""A scan on Ray, its stages and waits the real ones, of a store that goes and comes back, or does not."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detector.errors import StorageError
from jobs import s3
from jobs.scan import run
from jobs.summary import Summary
from tests.faulty_store import FaultyStore, faulty_store
from tests.film import moving_face
from tests.media import write_video
from tests.scans import read_rows, scan_settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("s3"), pytest.mark.timeout(900)]

_VIDEOS, _ACTORS = 200, 4


@dataclass(frozen=True, slots=True)
class Scans:
    """Scans of 200 small videos behind a faulty store, by four extracting actors."""

    bucket: str
    store: FaultyStore
    address: str
    folder: Path
    weights: Path

    def scan(self) -> Summary:
        flags = {"inputs": [f"s3://{self.bucket}/uploads/"], "extract_actors": _ACTORS, "score_batch": 4}
        settings = scan_settings(
            self.folder, self.folder / "out", self.weights, address=self.address, commit_rows=20, **flags
        )
        return run(settings, quiet=True)

    def meanwhile(self, act: Callable[[], object]) -> ThreadPoolExecutor:
        """Have `act` called when forty bodies were asked for."""

        def wait() -> None:
            until = time.monotonic() + 300
            while self.store.counts()["bodies"] < 40 and time.monotonic() < until:
                time.sleep(0.2)
            act()

        pool = ThreadPoolExecutor(1)
        pool.submit(wait)
        return pool

    def counted(self) -> Counter[str]:
        return Counter(row["reason"] or row["status"] for row in read_rows(self.folder / "out"))


@pytest.fixture
def scans(
    bucket: str,
    s3_server: dict[str, str],
    tmp_path: Path,
    seeded: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scans]:
    body = write_video(tmp_path / "a.mp4", moving_face(14, (160, 160), face_px=64)).read_bytes()
    with ThreadPoolExecutor(4) as pool:
        keys = [f"uploads/{number:03}.mp4" for number in range(_VIDEOS)]
        list(pool.map(lambda key: s3.client().put_object(Bucket=bucket, Key=key, Body=body), keys))
    with faulty_store(s3_server["AWS_ENDPOINT_URL"]) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        s3.client.cache_clear()
        from ray.cluster_utils import Cluster as Nodes

        node: dict[str, Any] = {
            "num_cpus": _ACTORS,
            "object_store_memory": 200 << 20,
            "include_dashboard": False,
        }
        cluster = Nodes(initialize_head=True, head_node_args=node)
        try:
            yield Scans(bucket, store, cluster.address, tmp_path, seeded)
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]


def test_an_outage_of_a_minute_is_waited_for(scans: Scans) -> None:
    def lose() -> None:
        scans.store.inject(down=True)
        time.sleep(60)
        scans.store.inject()

    with scans.meanwhile(lose):
        assert scans.scan().exit_code == 0
    assert scans.store.counts()["down"] > 2 * _ACTORS, scans.store.counts()
    assert scans.counted() == {"scored": _VIDEOS}


def stopped(scans: Scans) -> tuple[str, dict[str, Any]]:
    """What a scan says that has to stop, and its summary."""
    with pytest.raises(StorageError) as caught:
        scans.scan()
    summary: dict[str, Any] = json.loads((scans.folder / "out" / "summary.json").read_text())
    kept = scans.counted()
    assert kept.keys() == {"scored"}, f"something else was recorded: {kept}"
    assert 0 < kept["scored"] == summary["written"] == _VIDEOS - summary["left"] < _VIDEOS
    assert summary["exit_code"] == 4
    return caught.value.message, summary


@pytest.mark.parametrize("end", ["die", "hang"])
def test_a_store_that_is_gone_for_good_stops_the_scan_within_five_minutes(
    scans: Scans, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    gone: list[float] = []

    def lose() -> None:
        getattr(scans.store, end)()
        gone.append(time.monotonic())

    with scans.meanwhile(lose):
        said, _ = stopped(scans)
    seconds = time.monotonic() - gone[0]
    print(f"{end}: {seconds:.0f} s")
    assert seconds < 300, f"it stopped {seconds:.0f} s after the store was gone"
    assert "does not answer any more" in said


def test_credentials_that_expire_stop_the_scan_and_the_next_one_does_the_rest(scans: Scans) -> None:
    with scans.meanwhile(lambda: scans.store.inject(expired_after=60)):
        said, summary = stopped(scans)
    assert "ExpiredToken" in said
    scans.store.inject()
    assert scans.scan().written == summary["left"]
    assert scans.counted() == {"scored": _VIDEOS}
