"""A small table with videos that lie on disk, and a review server over it in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from jobs.local import local_version
from jobs.review.app import open_app
from jobs.review.guard import Door
from jobs.review.serve import configuration
from jobs.review.site import Site
from jobs.schema import video_id
from jobs.table import ResultsTable
from tests.jobs.samples import sample_row

TOKEN = "t" * 43
NAMES = ("first.mp4", 'it\'s "second" <b>.mp4', "third.mp4", "calm.mp4")
SCORES = ((0.97, "flagged"), (0.93, "flagged"), (0.7, "uncertain"), (0.1, "not_flagged"))


def row_of(path: Path, p_fake: float, verdict: str) -> dict[str, Any]:
    """A row about a file that is there."""
    status = path.stat()
    version = local_version(status)
    return sample_row() | {
        "uri": str(path),
        "version": version,
        "video_id": video_id(str(path), version),
        "size_bytes": status.st_size,
        "container": "mov,mp4,m4a,3gp,3g2,mj2",
        "p_fake": p_fake,
        "verdict": verdict,
    }


@dataclass
class Shown:
    """A review server whose clock stands still until it is moved."""

    output: Path
    rows: list[dict[str, Any]]
    """Of the videos, in the order of the queue; the last is not in it."""
    site: Site
    seconds: list[float]
    """What the clock says; the first is read."""
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self.site.door.port

    def path(self, number: int = 0) -> Path:
        """The file of a video."""
        return Path(self.rows[number]["uri"])

    def page(self, number: int = 0) -> str:
        """The page of a video."""
        return f"/videos/{self.rows[number]['video_id']}"

    def browser(self, name: str | None = "ann") -> httpx.Client:
        """A browser that was let in, in which a name was given."""
        headers = {"sec-fetch-site": "same-origin"}
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=30)
        self.clients.append(client)
        client.get(f"/?token={TOKEN}")
        if name is not None:
            client.post("/who", data={"who": name})
        return client

    def seen(self, client: httpx.Client, number: int = 0) -> str:
        """What the page of a video has to hand back with a decision."""
        return client.get(self.page(number)).text.split('name="seen" value="')[1].split('"')[0]

    def decide(
        self, client: httpx.Client, number: int, decision: str = "fake", **more: str
    ) -> httpx.Response:
        """Open the page of a video and decide."""
        fields = {"decision": decision, "seen": self.seen(client, number)} | more
        return client.post(f"{self.page(number)}/decision", data=fields)

    def written(self) -> list[dict[str, Any]]:
        """All rows of `reviews`."""
        return self.site.reviews.rows()


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    """Two flagged videos, an uncertain one, and one that is not flagged."""
    with made(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The same for several tests, none of which decides anything."""
    with made(tmp_path_factory.mktemp("review")) as one:
        yield one


@contextmanager
def made(root: Path, keep: Path | None = None) -> Iterator[Shown]:
    """A table and its server."""
    folder = root / "videos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(bytes(range(256)) * 40)
    rows = [row_of(folder / name, *score) for name, score in zip(NAMES, SCORES, strict=True)]
    with ResultsTable.create(str(root / "out")).claim("one") as table:
        table.append(rows)
    with served_table(root / "out", rows, keep) as one:
        yield one


@contextmanager
def served_table(
    output: Path, rows: Sequence[dict[str, Any]] = (), keep: Path | None = None
) -> Iterator[Shown]:
    """The server of a table that is there."""
    seconds = [1000.0]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        door = Door(frozenset({f"127.0.0.1:{port}"}), port, TOKEN)
        site = Site(str(output), door, clock=lambda: seconds[0])
        one = Shown(output, list(rows), site, seconds)
        with _running(site, listening, keep):
            yield one
            for client in one.clients:
                client.close()


@contextmanager
def _running(site: Site, listening: socket.socket, keep: Path | None) -> Iterator[None]:
    with open_app(site, keep) as app:
        server = uvicorn.Server(configuration(app))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
