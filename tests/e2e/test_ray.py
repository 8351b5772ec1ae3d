"""The job on Ray with its real stages. One cluster for all tests here: a start takes half a minute."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from detector.faults import MARK
from detector.sandbox import TEST_FAULTS
from detector.types import ExtractOptions
from jobs.cluster import Cluster
from jobs.plan import PLAN
from jobs.scan import run
from jobs.stages import Extract
from jobs.summary import Summary
from tests.canned import Canned, Clocked, Deadly, Slow
from tests.conftest import Scanned
from tests.media import moving_face, write_video
from tests.readers import Readers
from tests.scans import VIDEOS, outcomes, read_rows, scan_settings, touch
from tests.soak.agreement import compare

pytestmark = [pytest.mark.xdist_group("scans"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FAULTS = {"segfault": "decoder_crash", "garbage": "decoder_crash", "hang": "decode_timeout"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two cores that outlives the scans; each scan joins it by this address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv(TEST_FAULTS, "1")
        from ray.cluster_utils import Cluster as Nodes

        node: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False}
        cluster = Nodes(initialize_head=True, head_node_args=node)
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


def scan(
    address: str, videos: Path, output: Path, seeded: Path, extract: type[Extract] = Extract, **flags: Any
) -> Summary:
    settings = scan_settings(videos, output, seeded, address=address, **flags)
    return run(settings, quiet=True, extract=extract)


def faulty(folder: Path) -> Path:
    folder.mkdir()
    for name in FAULTS:
        (folder / f"{name}.mp4").write_bytes(MARK + name.encode())
    return folder


def test_rows_are_those_of_one_process_a_fault_costs_one_row_and_readers_see_no_trouble(
    address: str, scanned: Scanned, seeded: Path, tmp_path: Path
) -> None:
    faults, output = faulty(tmp_path / "faults"), tmp_path / "out"
    with Readers(output) as readers:
        summary = scan(
            address,
            scanned.videos,
            output,
            seeded,
            inputs=[str(scanned.videos), str(faults)],
            video_time_limit_s=30,
            commit_rows=2,
            score_batch=2,
        )
    rows = read_rows(output)
    assert outcomes(rows) == (
        {name: outcome for name, (outcome, _) in VIDEOS.items()}
        | {f"{name}.mp4": reason for name, reason in FAULTS.items()}
    )
    assert (summary.done, summary.written, summary.exit_code) == (17, 17, 3)

    here = {row["uri"]: row for row in read_rows(scanned.output)}
    there = {row["uri"]: row for row in rows if row["uri"] in here}
    for uri, row in here.items():
        different, distance = compare(there[uri], row)
        assert different == []
        assert distance < 1e-5
        assert there[uri]["settings_id"] == row["settings_id"]

    assert readers.complaints == []
    assert set(readers.most.values()) == {17}
    assert min(readers.reads.values()) > 1


def test_the_same_scan_again_needs_no_cluster(scanned: Scanned, seeded: Path) -> None:
    assert scan("192.0.2.1:1", scanned.videos, scanned.output, seeded).to_do == 0


@pytest.mark.slow
def test_a_worker_that_dies_costs_only_the_video_that_it_dies_of(
    address: str, seeded: Path, tmp_path: Path
) -> None:
    names = [f"{i}.mp4" for i in range(12)]
    touch(tmp_path / "videos", "kills.mp4", *names)
    summary = scan(address, tmp_path / "videos", tmp_path / "out", seeded, Deadly)
    assert outcomes(read_rows(tmp_path / "out")) == dict.fromkeys(names, "scored") | {"kills.mp4": "lost"}
    assert (summary.done, summary.exit_code) == (13, 3)


def test_a_deadline_ends_a_run_on_ray_and_the_next_one_completes(
    address: str, seeded: Path, tmp_path: Path
) -> None:
    videos = touch(tmp_path / "videos", *(f"{i:03}.mp4" for i in range(300)))
    first = scan(address, videos, tmp_path / "out", seeded, Slow, deadline="12s")
    assert first.exit_code == 6
    assert first.written + first.left == 300
    assert first.left > 0
    second = scan(address, videos, tmp_path / "out", seeded, Canned)
    assert second.written == first.left
    assert len(outcomes(read_rows(tmp_path / "out"))) == 300


def manifest(folder: Path, *names: str) -> str:
    """A list of objects that nobody looks for: with size and version, no request is made."""
    rows = [f"s3://nowhere/{name},1,1\n" for name in names]
    (folder / "manifest.csv").write_text("".join(["uri,size,version\n", *rows]))
    return str(folder / "manifest.csv")


def test_a_worker_that_dies_while_it_fetches_the_next_video_takes_only_its_own_along(
    address: str, seeded: Path, tmp_path: Path
) -> None:
    names = [f"{i}.mp4" for i in range(12)]
    given = {"inputs": [], "manifests": [manifest(tmp_path, "kills.mp4", *names)]}
    scan(address, tmp_path, tmp_path / "out", seeded, Deadly, **given)
    assert outcomes(read_rows(tmp_path / "out")) == dict.fromkeys(names, "scored") | {"kills.mp4": "lost"}


@pytest.mark.parametrize(("scheme", "at_once"), [("s3://nowhere", 2), ("/nowhere", 1)])
def test_the_next_video_is_fetched_while_one_is_decoded(
    address: str, seeded: Path, tmp_path: Path, scheme: str, at_once: int
) -> None:
    settings = scan_settings(tmp_path, tmp_path / "out", seeded, address=address, extract_actors=1)
    with Cluster(settings, ExtractOptions(), None, Clocked) as cluster:
        rows = [{"uri": f"{scheme}/{i}.mp4", "version": "1", "size": 1, "attempt": 1} for i in range(8)]
        done = pa.concat_tables(cluster.extracted(pa.Table.from_pylist(rows, schema=PLAN))).to_pylist()
    assert len({row["integrity"] for row in done}) == 1, "one actor was asked for"
    spans = [(row["fetch_s"], row["extract_cpu_s"]) for row in done]
    assert max(sum(one <= start < other for one, other in spans) for start, _ in spans) == at_once


def test_what_lies_in_the_current_folder_is_never_run(
    address: str, seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    write_video(uploads / "face.mp4", moving_face(12, (320, 240), face_px=90))
    for name in ("jobs", "detector", "weights"):
        (uploads / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(uploads)
    scan(address, uploads, tmp_path / "out", seeded)
    ran = tmp_path / "ran"
    assert not ran.exists(), f"of the uploads were run: {ran.read_text()}"
    assert outcomes(read_rows(tmp_path / "out")) == {"face.mp4": "scored"}


@pytest.mark.slow
def test_waves_go_through_one_after_the_other(address: str, seeded: Path, tmp_path: Path) -> None:
    touch(tmp_path / "videos", *(f"{i}.mp4" for i in range(40)))
    assert scan(address, tmp_path / "videos", tmp_path / "out", seeded, Canned, wave_size=15).written == 40
    assert len(outcomes(read_rows(tmp_path / "out"))) == 40


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_cluster_of_its_own_ends_with_the_command_and_the_next_scan_completes(
    seeded: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    names = [f"{i:03}.mp4" for i in range(200)]
    videos, output = touch(tmp_path / "videos", *names), tmp_path / "out"
    code_ = (
        "import functools, jobs.scan; from jobs.cli import main; from tests.canned import Slow; "
        "jobs.scan.run = functools.partial(jobs.scan.run, extract=Slow); main()"
    )
    words = ["scan", videos, "--output", output, "--weights", seeded, "--set", "commit_rows=5"]
    command = [sys.executable, "-c", code_, *map(str, words)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload]
    while len(list(output.glob("results/scan_date=*/*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    kept = outcomes(read_rows(output))
    assert 10 <= len(kept) < 200
    assert "Traceback" not in err
    settings = scan_settings(videos, output, seeded, dtype="auto")
    assert run(settings, quiet=True, extract=Canned).written == 200 - len(kept)
    assert outcomes(read_rows(output)) == dict.fromkeys(names, "scored")
