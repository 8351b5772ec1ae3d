"""A scan on its way to a cluster: what is refused before it is sent, what is sent, and how it is followed."""

import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector.errors import ClusterError, SettingsError, StorageError
from jobs import follow, job_server, submit
from jobs.cli_options import show_log
from tests.jobs.conftest import Command
from tests.s3 import free_ports
from tests.shell import ends

S3 = ("s3://b/in/", "--output", "s3://b/out")


class Client:
    """Ray's client as far as it is used: keeps what is submitted, and plays what happens to the job."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.log = ["one\n"]
        self.failures: list[Exception] = []
        self.refusals: list[Exception] = []

    def submit_job(self, **job: Any) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        self.submitted.append(job)
        return "raysubmit_1"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in self.log:
            yield text
        if self.failures:
            raise self.failures.pop(0)

    def get_job_info(self, job: str) -> Any:
        status = SimpleNamespace(is_terminal=lambda: True, lower=lambda: "failed")
        return SimpleNamespace(status=status, driver_exit_code=3)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Stands for Ray's client; the cluster takes us."""
    here = Client()
    monkeypatch.setattr(job_server, "client", lambda _: here)
    monkeypatch.setattr(follow, "client", lambda _: here)
    monkeypatch.setattr(submit, "authenticate", lambda *_, **__: None)
    monkeypatch.setattr(follow, "_RETRY_S", 0.01)
    return here


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a job, and ours."""
    place = tmp_path / "work"
    (place / "configs").mkdir(parents=True)
    (place / "configs" / "night.yaml").write_text("inputs: [s3://b/in/]\noutput: s3://b/out\n")
    monkeypatch.chdir(place)
    return place


# --- what is looked over ----------------------------------------------------------------------------------


def test_what_would_lie_in_the_copy_of_the_folder_is_refused_all_at_once(
    command: Command, client: Client, folder: Path
) -> None:
    (folder / "mine.csv").write_text("uri\n")
    (folder / ".rayignore").write_text("mine.csv\n")
    words = ["videos", "--output", "out", "--set", "metrics_file=scan.prom", "--manifest", "mine.csv"]
    done = command("submit", *words)
    assert (done.code, client.submitted) == (2, [])
    for mistake in (
        "inputs: videos is",
        "output: out is",
        "metrics_file: scan.prom is",
        "mine.csv is not part",
    ):
        assert mistake in done.err, f"{mistake!r} is not told in:\n{done.err}"


def test_absolute_paths_and_buckets_are_taken(command: Command, client: Client, folder: Path) -> None:
    words = ["/mnt/videos", "s3://b/*.mp4", "--output", "/mnt/out", "--set", "metrics_file=/mnt/scan.prom"]
    done = command("submit", "--no-wait", *words)
    assert (done.code, done.out) == (0, "raysubmit_1\n"), done.err


@pytest.mark.parametrize("name", ["configs/night.yaml", "{folder}/configs/night.yaml"])
@pytest.mark.parametrize("form", ["--config {}", "--config={}", "-c {}", "-c{}"])
def test_settings_files_are_named_as_the_job_finds_them(
    command: Command,
    client: Client,
    folder: Path,
    name: str,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    words = form.format(name.format(folder=folder)).split()
    done = command("submit", "--no-wait", "--working-dir", folder, *words)
    assert done.code == 0, done.err
    [job] = client.submitted
    assert job["entrypoint"].endswith(" " + form.format("configs/night.yaml")), job["entrypoint"]


def test_settings_files_outside_the_working_directory_are_refused(
    command: Command, client: Client, folder: Path
) -> None:
    outside = folder.parent / "other.yaml"
    outside.write_text("output: s3://b/out\n")
    for name in (outside, "../other.yaml"):
        done = command("submit", "s3://b/in/", "--config", name)
        assert (done.code, client.submitted) == (2, [])
        assert f"{name} is not part of the upload" in done.err


def test_a_working_directory_that_is_none_is_refused(command: Command, client: Client, folder: Path) -> None:
    for name in ("gone", "configs/night.yaml"):
        done = command("submit", *S3, "--working-dir", name)
        assert done.code == 2
        assert f"--working-dir: {name} is no folder" in done.err


# --- what is sent -----------------------------------------------------------------------------------------


def test_what_follows_two_dashes_is_no_option(command: Command, client: Client, folder: Path) -> None:
    done = command("submit", "--insecure", "--no-wait", "--output", "s3://b/out", "--", "/-o", "--limit")
    assert done.code == 2, "--limit is an input there, and a relative one"
    assert "inputs: --limit is relative" in done.err
    done = command("submit", "--insecure", "--no-wait", "--output", "s3://b/out", "--", "/-o", "s3://b/")
    assert done.code == 0, done.err
    [job] = client.submitted
    assert job["entrypoint"] == (
        "python -m jobs scan --address auto --insecure --output s3://b/out -- /-o s3://b/"
    )


def test_settings_of_the_environment_arrive_as_they_are(
    command: Command, client: Client, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 's3://b/$HOME/${PATH}/it\'s "a" `b`'
    monkeypatch.setenv("DEEPFAKE_SCAN_OUTPUT", value)
    assert command("submit", "s3://b/in/", "--no-wait").code == 0
    [job] = client.submitted
    assert set(job["runtime_env"]) == {"working_dir"}, "Ray replaces what looks like a variable in env_vars"
    stand_in = {"python": f'printf %s "$DEEPFAKE_SCAN_OUTPUT" > {tmp_path}/arrived'}
    assert ends(["/bin/sh", "-c", job["entrypoint"]], tmp_path, stand_in)[0] == 0
    assert (tmp_path / "arrived").read_text() == value


# --- whom it is handed to ---------------------------------------------------------------------------------


@contextmanager
def server(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[str]:
    """The address of an HTTP server elsewhere that gives one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("0.0.0.0", port), Handler) as here:  # noqa: S104  # how else would it be elsewhere
        threading.Thread(target=here.serve_forever, daemon=True).start()
        yield f"http://0.0.0.0:{here.server_port}"
        here.shutdown()


def ask(address: str, *, insecure: bool = False) -> list[str]:
    """Ask for entry; what was said meanwhile."""
    said: list[str] = []
    job_server.authenticate(address, insecure=insecure, say=said.append)
    return said


@pytest.mark.parametrize(
    ("status", "body", "headers", "message"),
    [
        (200, b"[]", {}, "takes anybody's code"),
        (200, b"<html>", {}, "is no job server of Ray"),
        (200, b"{}", {}, "is no job server of Ray"),
        (302, b"", {"location": "http://login/\x1b[2J"}, r"answered 302 Found, to http://login/\\x1b\[2J"),
        (500, b"", {}, "answered 500 Internal Server Error"),
    ],
)
def test_who_answers_is_told_apart(status: int, body: bytes, headers: dict[str, str], message: str) -> None:
    with server(status, body, headers) as address, pytest.raises(ClusterError, match=message):
        ask(address)


def test_an_open_cluster_is_taken_where_the_settings_say_so(
    command: Command, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "authenticate", job_server.authenticate)
    with server(200, b"[]") as address:
        refused = command("submit", *S3, "--address", address, "--no-wait")
        taken = command("submit", *S3, "--address", address, "--no-wait", "--set", "insecure=true")
    assert refused.code == 4
    assert "--insecure" in refused.err
    assert taken.code == 0, taken.err


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://head:10001", "auto"])
def test_an_address_of_another_kind_is_told_so(address: str) -> None:
    with pytest.raises(SettingsError, match="does not begin with http:// or https://"):
        ask(address)


def test_a_tunnel_that_is_being_opened_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "_PAUSE_S", 0.05)
    [port] = free_ports(1)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_server, "_START_S", 0.2)
        with pytest.raises(ClusterError, match="cannot be reached"):
            job_server.authenticate(f"http://127.0.0.1:{port}", insecure=False, say=said.append)
    assert len(said) == 1, "one line, however long it takes"

    def open_later() -> None:
        time.sleep(0.3)
        with server(200, b"[]", port=port):
            done.wait(20)

    done = threading.Event()
    opening = threading.Thread(target=open_later)
    opening.start()
    try:
        assert ask(f"http://127.0.0.1:{port}") == [
            f"http://127.0.0.1:{port} refuses connections; waiting up to 60 s for it"
        ]
    finally:
        done.set()
        opening.join()


def test_a_cluster_whose_agents_are_still_starting_is_waited_for(
    command: Command, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "_AGENT_PAUSE_S", 0.01)
    busy = "Request failed with status code 500: No available agent to submit job, please try again later.."
    client.refusals = [RuntimeError(busy), RuntimeError(busy)]
    done = command("submit", *S3)

    assert len(client.submitted) == 1, done.err
    assert done.err.count("has no agent yet that takes jobs") == 1, "one line, however long it takes"


def test_what_else_the_server_refuses_is_told_at_once(command: Command, client: Client, folder: Path) -> None:
    client.refusals = [RuntimeError("Request failed with status code 400: no")]
    done = command("submit", *S3)

    assert done.code == 4
    assert "status code 400: no" in done.err


# --- how it is followed -----------------------------------------------------------------------------------


def test_a_reader_that_went_ends_it_at_once(client: Client) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        follow.follow("j", "http://h", gone, pytest.fail)


def test_a_full_disk_under_the_log_ends_it_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(StorageError, match="No space left on device"):
            follow.follow("j", "http://h", show_log, pytest.fail)
        monkeypatch.undo()  # the file now leads nowhere, so that closing it does not fail again


def test_a_lost_connection_is_told_once_and_nothing_is_shown_twice(client: Client) -> None:
    client.failures = [ConnectionError("lost"), ConnectionError("lost")]
    shown: list[str] = []
    said: list[str] = []
    assert follow.follow("j", "http://h", shown.append, said.append) == 3
    assert said == ["http://h does not answer; trying for 300 s, and the job may go on"]
    assert shown == ["one\n"]


def test_ctrl_c_says_that_the_job_goes_on(
    command: Command, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal did not arrive")

    monkeypatch.setattr(follow, "follow", stopped)
    done = command("submit", *S3)
    assert done.code == 130
    assert "job raysubmit_1 goes on, `ray job stop raysubmit_1 --address http://127.0.0.1:8265`" in done.err
    assert "deepfake-scan: stopped" not in done.err
