"""A browser, and the review server with its upload page in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from jobs.table import ResultsTable
from tests.browser import chromium
from tests.e2e.guests import Watched, watched
from tests.film import Actor, film, moving_face
from tests.jobs.samples import sample_row
from tests.media import write_video


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of a face in 720p."""
    frames = film(250, (1280, 720), 25, [Actor(face_px=220, seed=4)])
    return write_video(tmp_path_factory.mktemp("clip") / "my holiday.mp4", frames)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = moving_face(30, (320, 240), face_px=90, seed=5)
    return write_video(tmp_path_factory.mktemp("small") / "face.mp4", frames)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in which nothing waits."""
    path = tmp_path_factory.mktemp("table") / "out"
    with ResultsTable.create(str(path)).claim("one") as table:
        table.append([sample_row() | {"p_fake": 0.1, "verdict": "not_flagged"}])
    return path


@pytest.fixture(scope="module")
def server(decided: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(decided, tmp_path_factory.mktemp("server")) as running:
        yield running
