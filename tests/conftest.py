"""Fixtures for all tests."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from tests.shared import shared_data_folder, why_missing

# Tests run side by side: with a second thread in each, all wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# They also make each other slow: how long an example takes says nothing about the code.
hypothesis.settings.register_profile("beside-others", deadline=None)
hypothesis.settings.load_profile("beside-others")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared test data; the test is skipped where it is missing."""
    folder = shared_data_folder()
    if missing := why_missing(folder):
        pytest.skip(missing)
    return folder


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file with a small untrained network, so that no test depends on what ships."""
    from tests.seeded import seeded_weights

    path = tmp_path_factory.mktemp("weights") / "seeded.safetensors"
    seeded_weights(path)
    return path


@dataclass(frozen=True, slots=True)
class Scanned:
    """The videos of `tests.scans.VIDEOS`, and what one scan in this process made of them."""

    videos: Path
    output: Path
    exit_code: int | None
    closing: str


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory, seeded: Path) -> Scanned:
    """A finished scan, to be read only. Tests that use it share the xdist group `scans`."""
    from jobs.scan import run
    from tests.scans import make_videos, scan_settings

    folder = tmp_path_factory.mktemp("scanned")
    videos = make_videos(folder / "videos")
    summary = run(scan_settings(videos, folder / "out", seeded), quiet=True)
    return Scanned(videos, folder / "out", summary.exit_code, summary.closing())


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server for the whole run; tests that use it belong to the xdist group `s3`."""
    from tests.s3 import server

    with server(tmp_path_factory.mktemp("s3") / "data") as environment:
        yield environment


@pytest.fixture
def bucket(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh bucket, which the environment of the test reaches."""
    from jobs import s3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    s3.client.cache_clear()
    made = f"test-{secrets.token_hex(6)}"
    s3.client().create_bucket(Bucket=made)
    yield made
    s3.client.cache_clear()
