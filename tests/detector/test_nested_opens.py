"""No file makes its decoder open another file or a socket: every system call of every process is watched."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.hostile import MARK, write_all
from tests.traced import SOCKETS, Call, Traced, traced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
# What a child opens before it looks at the video: nowhere, and how much memory is in use; then its helper
# looks for what it left running.
OWN = {"/dev/null", "/proc/self/statm", "/proc/thread-self/children"}
READ = {"elsewhere.mp4", "secret.mp4"}  # the one that points elsewhere holds its pictures, too


class Host:
    """A listener on loopback, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def files(host: Host, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("hostile"), host.port)


def watched(way: str, files: Sequence[Path], folder: Path) -> Traced:
    """The files, read in one of `tests.hostile.WAYS`."""
    (folder / "list").write_text("".join(f"{path}\n" for path in files))
    words = [sys.executable, "-m", "tests.hostile", way, str(folder / "list")]
    return traced(words, folder, cwd=ROOT)


def foreign(run: Traced, files: Sequence[Path], own: set[str]) -> list[Call]:
    """Calls that name another path than the input (the first process) or `own` (the others), or a socket."""
    inputs = {str(path) for path in files}
    return [
        call
        for call in run.after(MARK)
        if call.name in SOCKETS
        or (call.path and call.path not in (inputs if call.pid == run.first_pid else own))
    ]


def complaint(calls: Sequence[Call]) -> str:
    return "\n".join(
        [f"{len(calls)} calls that no input may cause:", *(call.line[:300] for call in calls[:20])]
    )


def answers(run: Traced) -> dict[str, str]:
    """What became of each file."""
    return dict(line.rsplit("\t", 1) for line in run.out.splitlines())


def opens(run: Traced, path: str) -> int:
    return sum(call.path == path for call in run.after(MARK))


@pytest.mark.parametrize(("way", "own"), [("sandbox", OWN), ("no-walls", set())])
def test_of_all_files_only_the_input_is_opened_and_no_socket_is_made(
    way: str, own: set[str], files: list[Path], host: Host, tmp_path: Path
) -> None:
    host.asked.clear()
    run = watched(way, files, tmp_path)

    calls = foreign(run, files, own)
    assert not calls, complaint(calls)
    assert host.asked == []
    found = answers(run)
    assert set(found) == {path.name for path in files}, "not every file was read"
    assert {name for name, answer in found.items() if answer == "read"} == READ
    assert set(found.values()) <= {"read", "not_video", "no_video_stream", "no_frames"}
    assert len(files) >= 2 * 40, "80 files: 40 and their copies named .mp4"
    assert all(opens(run, str(path)) == 1 for path in files), "the watching missed opens"
    assert all(opens(run, path) >= len(files) for path in own), "the children were not watched"


@pytest.mark.parametrize(
    ("way", "name", "opened"),
    [
        ("no-leash", "relative.ffconcat", "secret.mp4"),
        ("no-leash", "relative-ffconcat.mp4", "secret.mp4"),
        ("no-leash", "absolute.m3u8", "segment.ts"),
        ("no-leash", "master.m3u8", "secret.txt"),
        ("no-leash", "vobsub-idx.mp4", "vobsub-idx.sub"),
        ("by-name", "img%03d.png", "img000.png"),
    ],
)
def test_without_the_list_of_formats_the_watching_sees_the_other_file(
    way: str, name: str, opened: str, files: list[Path], tmp_path: Path
) -> None:
    [path] = [path for path in files if path.name == name]
    calls = foreign(watched(way, [path], tmp_path), files, {str(path)})
    assert [call for call in calls if call.path.endswith(opened)], complaint(calls)


@pytest.mark.parametrize("name", ["web.m3u8", "rtp-sdp.mp4"])
def test_without_the_list_of_formats_the_watching_sees_sockets(
    name: str, files: list[Path], host: Host, tmp_path: Path
) -> None:
    host.asked.clear()
    [path] = [path for path in files if path.name == name]
    calls = foreign(watched("no-leash", [path], tmp_path), files, set())
    assert [call for call in calls if call.name in SOCKETS], complaint(calls)
    assert (host.asked == ["/a.ts"]) == (name == "web.m3u8")
