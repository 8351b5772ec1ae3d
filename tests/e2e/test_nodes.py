"""A cluster of three nodes, one of which goes away while it holds clips."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.weights import read
from jobs.scan import run
from tests.canned import Placed
from tests.scans import outcomes, read_rows, scan_settings, touch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_STORE = 80 << 20
_VIDEOS = 100


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three nodes of one core each on this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": _STORE}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()


def on_disk(output: Path) -> int:
    return len(list(output.glob("results/scan_date=*/*.parquet")))


def test_a_node_that_goes_takes_no_video_along(nodes: Any, seeded: Path, tmp_path: Path) -> None:
    names = [f"{number:03}.mp4" for number in range(_VIDEOS)]
    videos, output = touch(tmp_path / "videos", *names), tmp_path / "out"
    gone: list[str] = []
    spilled: list[str] = []

    def take_one_away() -> None:
        from ray._private.internal_api import memory_summary

        while on_disk(output) < 4:
            time.sleep(0.2)
        spilled.append(memory_summary(nodes.address, stats_only=True))
        node = nodes.worker_nodes.copy().pop()
        gone.append(node.node_id)
        nodes.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=take_one_away, daemon=True)
    thread.start()
    settings = scan_settings(videos, output, seeded, address=nodes.address, commit_rows=8, score_batch=4)
    side = settings.extract_options(read(seeded).header).crop.size
    assert _VIDEOS * Placed.frames * side**2 * 3 > 3 * _STORE, "more has to pass through than fits"
    summary = run(settings, quiet=True, extract=Placed)
    thread.join()

    rows = read_rows(output)
    assert outcomes(rows) == dict.fromkeys(names, "scored")
    assert (summary.done, summary.written, summary.exit_code) == (_VIDEOS, _VIDEOS, 0)
    placed = {row["integrity"] for row in rows}
    assert len(placed) == 3, "every node extracts"
    early = [row["integrity"] for row in rows if row["integrity"] == gone[0]]
    assert 0 < len(early) < _VIDEOS / 2, "it went while there was work left"
    assert "Spilled" not in spilled[0], spilled[0]
