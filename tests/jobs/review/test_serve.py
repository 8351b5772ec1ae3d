"""Starting and stopping the server: the address, the token, where it may listen, exit codes."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import pytest

from detector.errors import SettingsError
from jobs.review.serve import hosts, listen, read_token
from jobs.table import ResultsTable
from tests.jobs.conftest import Command
from tests.jobs.samples import sample_row
from tests.reviewing import served


@pytest.fixture
def output(tmp_path: Path) -> Path:
    with ResultsTable.create(str(tmp_path / "out")).claim("one") as table:
        table.append([sample_row()])
    return tmp_path / "out"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_prints_its_address_and_ends_as_commands_do(
    output: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with served(output, tmp_path / "log", "--user", "ann") as server, httpx.Client() as client:
        assert client.get(server.url, headers={"sec-fetch-site": "none"}).status_code == 303
        page = client.get(f"{server.base}/", headers={"sec-fetch-site": "none"}, follow_redirects=True)
        assert "You are ann" in page.text
        server.process.send_signal(number)
        assert server.process.wait(20) == code, server.log.read_text()
    log = server.log.read_text()
    assert "GET / 303" in log
    assert server.url.partition("token=")[2] not in log
    assert log.endswith("deepfake-scan: stopped\n")


def test_it_listens_on_loopback_only(output: Path, tmp_path: Path) -> None:
    with served(output, tmp_path / "log") as server:
        assert server.base.startswith("http://127.0.0.1:")
        port = int(server.base.rpartition(":")[2])
        own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in own - {"127.0.0.1"}:
            with pytest.raises(OSError, match=r"refused|unreachable"):
                socket.create_connection((str(address), port), timeout=5)


@pytest.mark.parametrize("bind", ["192.0.2.7", "0.0.0.0", "::", "no.such.name.invalid", ""])  # noqa: S104
def test_other_machines_are_let_in_with_a_token_file_only(command: Command, output: Path, bind: str) -> None:
    done = command("review", output, "--bind", bind)
    assert (done.code, done.out) == (2, "")
    assert "--bind" in done.err


def test_no_address_at_all_is_none(output: Path) -> None:
    with pytest.raises(SettingsError, match="names no address"):
        listen("0.0.0.0", 0, own_only=False)  # noqa: S104


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("t" * 32, 0o644, "others may read it"),
        ("t" * 32, 0o640, "others may read it"),
        ("t" * 31, 0o600, "at least 32"),
        ("t" * 20 + " " + "t" * 20, 0o600, "at least 32"),
        ("ü" * 40, 0o600, "cannot be read"),
        ("", 0o600, "at least 32"),
    ],
)
def test_a_token_file_that_is_not_safe_is_refused(
    tmp_path: Path, content: str, mode: int, message: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=message):
        read_token(path)


def test_a_token_file_outlives_the_server(output: Path, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text("t" * 43 + "\n")
    assert read_token(path) == "t" * 43
    assert command("review", output, "--token-file", tmp_path / "nothing").code == 2
    with served(output, tmp_path / "log", "--token-file", str(path)) as server:
        port = server.base.rpartition(":")[2]
        cookies = httpx.get(server.url).cookies
    words = ("--token-file", str(path), "--port", port)
    with served(output, tmp_path / "log", *words) as server:
        assert httpx.get(f"{server.base}/who", cookies=cookies).status_code == 200, (
            "the browser is still known"
        )


def test_the_names_that_a_browser_may_use(output: Path) -> None:
    assert hosts("127.0.0.1", 8000) == {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}
    assert hosts("Review.Example.org", 8000) == {"review.example.org:8000"}
    assert hosts("2001:db8::7", 8000) == {"[2001:db8::7]:8000"}
    assert "127.0.0.1" in hosts("127.0.0.1", 80)


def test_mistakes_are_told(command: Command, output: Path, tmp_path: Path) -> None:
    assert "holds no results" in command("review", tmp_path / "nothing").err
    assert command("review", output, "--user", "").code == 2
    assert command("review", output, "--user", "a\u202eb").code == 2
    assert command("review").code == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command("review", "serve", output, "--port", taken.getsockname()[1])
        port = taken.getsockname()[1]
    assert (done.code, done.err.count("in use"), "--bind" in done.err) == (2, 1, False), done.err
    assert f"--port {port}: cannot listen there, the port is in use" in done.err
    assert [path.name for path in output.iterdir()] == ["results"], "looking writes nothing"
