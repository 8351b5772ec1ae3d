"""A Ray cluster with its job server, as `ray start --head` makes one: token authentication on, two cores."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.s3 import free_ports

_BIN = Path(sys.executable).parent
_READY_S = 120


@dataclass(frozen=True, slots=True)
class JobServer:
    """Where it listens, and what a client needs in its environment."""

    address: str
    environment: Mapping[str, str]


@contextmanager
def job_server(environment: Mapping[str, str], cores: int = 2) -> Iterator[JobServer]:
    """Runs a cluster of one node whose workers have `environment`; it ends with the block."""
    gcs, dashboard = free_ports(2)
    # Short, because the paths of Ray's sockets are long.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    own = {"PATH": f"{_BIN}:{os.environ['PATH']}", "RAY_TMPDIR": str(folder)}
    words = [
        *(str(_BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--num-cpus={cores}", "--object-store-memory=200000000"),
    ]
    server = JobServer(f"http://127.0.0.1:{dashboard}", dict(environment) | token | own)
    with (folder / "log").open("wb") as log:
        run = subprocess.Popen(
            words,
            env=os.environ | server.environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(server.address, run, folder / "log")
            yield server
        finally:
            os.killpg(run.pid, signal.SIGKILL)  # a TERM is obeyed after half a minute
            run.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _wait(address: str, run: subprocess.Popen[bytes], log: Path) -> None:
    """Until jobs are answered for, if only with a refusal."""
    began = time.monotonic()
    while True:
        try:
            if requests.get(f"{address}/api/jobs/", timeout=5).status_code == 401:
                return
        except requests.RequestException:
            pass
        if run.poll() is not None or time.monotonic() - began > _READY_S:
            raise RuntimeError(f"Ray did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.3)
