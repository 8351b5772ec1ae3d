"""Secrets stay where they are: planted ones are looked for in all that a scan on Ray leaves and runs."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from detector.faults import MARK
from detector.sandbox import TEST_FAULTS
from tests.film import moving_face
from tests.media import write_video
from tests.s3 import client_of, server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CANARIES = {
    "AWS_ACCESS_KEY_ID": "AKIACANARYKEYID00001",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-key/0002+x",
    "AWS_SESSION_TOKEN": "canary-session-token-0003==",
    "RAY_AUTH_TOKEN": "canary0004" + "ab" * 27,
    "DEEPFAKE_WEBHOOK_SECRET": "whsec_" + base64.b64encode(b"canary-webhook-secret-05").decode(),
}
PASSWORD, TOKEN = "canary-password-0006", "canary-url-token-0007"  # of the webhooks' URLs
# How the store of AWS answers to a token that is too old: with the token in the answer.
EXPIRED = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message>
<Token-0>{AWS_SESSION_TOKEN}</Token-0><AWSAccessKeyId>{AWS_ACCESS_KEY_ID}</AWSAccessKeyId></Error>"""

# The command, with workers whose libraries put secrets into what they raise, and which die of a video.
PROGRAM = """
import functools
import jobs.scan
from jobs.cli import main
from tests.e2e.leaky import Leaky
jobs.scan.run = functools.partial(jobs.scan.run, extract=Leaky)
main()
"""


@dataclass
class Host:
    """Takes webhooks and fails, and is a store that says that the token has expired."""

    port: int = 0
    told: list[str] = field(default_factory=list)


@pytest.fixture
def host() -> Iterator[Host]:
    here = Host()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = EXPIRED.format(**CANARIES).encode()
            if self.path.startswith("/hook"):
                here.told.append(self.path)
            self.send_response(500 if self.path.startswith("/hook") else 400)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815  # names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.port = listening.server_port
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield here
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Short, because Ray's sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ds-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def spellings() -> dict[str, bytes]:
    """Everything that must not be found: each secret as it is, in base64 and in a URL."""
    found: dict[str, bytes] = {}
    for name, value in (CANARIES | {"password": PASSWORD, "url token": TOKEN}).items():
        found[name] = value.encode()
        found[f"{name} in a URL"] = quote(value, safe="").encode()
        found[f"{name} in base64"] = base64.b64encode(value.encode())
    found["webhook key"] = b"canary-webhook-secret-05"
    return found


def leaks(content: bytes) -> list[str]:
    return [name for name, secret in spellings().items() if secret in content]


def leaks_below(folder: Path) -> list[str]:
    """Files with secrets in them."""
    read, found = 0, []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                content = path.read_bytes()
                read += len(content)
                found += [f"{path}: {name}" for name in leaks(content + os.fsencode(path))]
    assert read > 1000, f"{folder} holds nothing to look through"
    return found


def environment(host: Host, more: Mapping[str, str], ray_folder: Path, temp: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    own = {"RAY_TMPDIR": str(ray_folder), "TMPDIR": str(temp), TEST_FAULTS: "1", "PYTHONPATH": str(ROOT)}
    return kept | CANARIES | {"AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"} | own | dict(more)


def settings(host: Host, folder: Path, seeded: Path) -> Path:
    """Two webhooks that fail, with secrets in their URLs; in a file, since a command line is open to all."""
    path = folder / "scan.yaml"
    where = f"127.0.0.1:{host.port}/hook/{TOKEN}?token={TOKEN}"
    path.write_text(
        f"notify: ['http://user:{PASSWORD}@{where}', 'http://user:{PASSWORD}@127.0.0.1:9/{TOKEN}']\n"
        f"weights: {seeded}\nmetrics_file: {folder / 'metrics.prom'}\n"
        "video_time_limit_s: 20\ndtype: float32\n"
    )
    return path


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *children(child)]
    return found


def is_helper(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"detector.sandbox_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def memory_of(pid: int) -> Iterator[bytes]:
    """The writable memory of a process, mapping by mapping."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw"):
                with contextlib.suppress(OSError, ValueError):
                    memory.seek(start)
                    yield memory.read(end - start)


def seen_by(pid: int) -> tuple[list[str], int]:
    """The secrets in environment, command line and memory of a process; bytes that were looked through."""
    found, read = [], 0
    for name in ("environ", "cmdline"):
        found += [f"{pid} {name}: {leak}" for leak in leaks(Path(f"/proc/{pid}/{name}").read_bytes())]
    for content in memory_of(pid):
        read += len(content)
        found += [f"{pid} memory: {leak}" for leak in leaks(content)]
    return found, read


def decoding(run: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> list[int]:
    """A helper and its child while a video hangs in it: no other child is there for more than a second."""
    end = time.monotonic() + seconds
    since: dict[tuple[int, int], float] = {}
    while time.monotonic() < end and run.poll() is None:
        for helper in filter(is_helper, children(run.pid)):
            for child in children(helper):
                began = since.setdefault((helper, child), time.monotonic())
                if time.monotonic() - began > 1.5:
                    return [helper, child]
        time.sleep(0.05)
    raise AssertionError(f"no video hung: {log.read_text()}")


def put_videos(bucket: str, reached: Mapping[str, str], folder: Path) -> None:
    """One that is scored, and some that fail in every way."""
    video = write_video(folder / "a.mp4", moving_face(12, (160, 160), face_px=80)).read_bytes()
    client = client_of(reached)
    client.create_bucket(Bucket=bucket)
    for name, body in {
        "face.mp4": video,
        "text.mp4": b"not a video\n",
        "hang.mp4": MARK + b"hang\n",
        "segfault.mp4": MARK + b"segfault\n",
        "raises.mp4": b"raises\n",
        "kills.mp4": b"kills\n",
    }.items():
        client.put_object(Bucket=bucket, Key=f"in/{name}", Body=body)


def kept_in(bucket: str, reached: Mapping[str, str], folder: Path) -> Path:
    """A copy of everything below `out/` of the bucket."""
    client = client_of(reached)
    for entry in client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]:
        path = folder / entry["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
    return folder


def told_by(command: list[str], environment: Mapping[str, str]) -> str:
    """What a question to the table says, as JSON: its files are packed."""
    words = [sys.executable, "-m", "jobs", "query", *command, "--json"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_secret_is_found_in_anything_that_a_scan_on_ray_leaves_or_runs(
    host: Host, ray_folder: Path, seeded: Path, tmp_path: Path
) -> None:
    config, temp = settings(host, tmp_path, seeded), tmp_path / "temp"
    temp.mkdir()
    key, secret = CANARIES["AWS_ACCESS_KEY_ID"], CANARIES["AWS_SECRET_ACCESS_KEY"]
    with server(tmp_path / "store", key, secret) as reached:
        put_videos("secrets", reached, tmp_path)
        env = environment(host, reached, ray_folder, temp)
        del env["AWS_SESSION_TOKEN"]  # this store has none
        words = ["scan", "s3://secrets/in/", "--output", "s3://secrets/out", "--config", str(config)]
        log = tmp_path / "log"  # no pipe: what Ray leaves behind for a moment would hold it open
        command = [sys.executable, "-c", PROGRAM, *words]
        with log.open("wb") as both:
            run = subprocess.Popen(command, cwd=ROOT, env=env, stdout=both, stderr=both)
        try:
            found = [seen_by(pid) for pid in decoding(run, log)]
            run.wait(400)
        finally:
            run.terminate()  # it ends its cluster
            run.wait(120)
        said = log.read_text()
        assert run.returncode == 3, said
        kept = kept_in("secrets", reached, tmp_path / "kept")
        questions = [["scans"], ["failed"], ["sql", "SELECT * FROM results"], ["sql", "SELECT * FROM scans"]]
        asked = [told_by([words[0], "s3://secrets/out", *words[1:]], env) for words in questions]

    assert [leak for leaks_of_one, _ in found for leak in leaks_of_one] == [], "what decodes can see secrets"
    assert all(read > 10 << 20 for _, read in found), "the memory of a helper was not looked through"
    assert "was not told" in said, "the webhooks did not fail"
    assert len(host.told) == 3, "the webhook with its password and token was not called"
    failed = asked[1]
    for reason in ("internal_error", "lost", "decoder_crash", "decode_timeout", "not_video"):
        assert f'"{reason}"' in failed, f"no video failed as {reason}: {failed}"
    assert "***" in failed, "what the library raised held a secret, and is told without it"
    assert f"http://127.0.0.1:{host.port}/***" in asked[3], "the scan notes which servers it told"
    for text in (said, *asked):
        assert leaks(text.encode()) == [], text
    assert leaks_below(kept) == []
    assert leaks_below(ray_folder) == []
    assert (tmp_path / "metrics.prom").read_text()
    assert leaks((tmp_path / "metrics.prom").read_bytes()) == []
    assert [path for path in temp.rglob("*") if path.is_file() and leaks(path.read_bytes())] == []


@pytest.mark.parametrize("what", ["input", "manifest", "output", "endpoint"])
def test_a_store_that_fails_is_told_without_secrets(
    what: str, host: Host, ray_folder: Path, seeded: Path, tmp_path: Path
) -> None:
    config = settings(host, tmp_path, seeded)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"not a video\n")
    (tmp_path / "list.csv").write_text("uri,size,version\ns3://secrets/a.mp4,1,x\n")
    output = "s3://secrets/out" if what == "output" else str(tmp_path / "out")
    inputs = {"manifest": ["--manifest", str(tmp_path / "list.csv")], "output": [str(tmp_path / "videos")]}
    port = 9 if what == "endpoint" else host.port
    env = environment(host, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}, ray_folder, tmp_path)
    words = ["scan", *inputs.get(what, ["s3://secrets/in/"]), "--output", output, "--config", str(config)]
    command = [sys.executable, "-m", "jobs", *words, "--address", "in-process"]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False
    )

    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    if what != "endpoint":
        assert re.search("expired|ExpiredToken|access_denied|fetch_failed", done.stderr), done.stderr
    assert leaks((done.stdout + done.stderr).encode()) == [], done.stderr
    if what == "manifest":
        assert leaks(told_by(["sql", output, "SELECT * FROM results"], env).encode()) == []
        assert leaks_below(tmp_path / "out") == []


def test_the_search_for_secrets_finds_them(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(bytes(2000) + b"http://x/?t=" + TOKEN.encode())
    assert leaks_below(tmp_path) == [
        f"{tmp_path / 'a.log'}: url token",
        f"{tmp_path / 'a.log'}: url token in a URL",
    ]
    program = "import os, time; print(len(os.environ), flush=True); time.sleep(600)"
    env = os.environ | CANARIES
    with subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        run.stdout.readline()
        found, _ = seen_by(run.pid)
        run.kill()
    assert any("environ: AWS_SECRET_ACCESS_KEY" in leak for leak in found)
    assert any("memory: AWS_SECRET_ACCESS_KEY" in leak for leak in found)
