"""A proxy in front of an S3 server that lets requests through and loses some of the answers.

It is a process of its own: delta-rs holds Python's lock while it waits, so a thread could not answer it.
"""

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

_CONTROL = "/__lose__/"
COMMIT = re.compile(r"/_delta_log/\d{20}\.json$")


class LosingProxy(ThreadingHTTPServer):
    """Loses the answer to the next `to_lose` writes of a commit; `lost` counts them."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.to_lose = 0
        self.lost = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def loses(self, method: str, path: str, status: int) -> bool:
        """Whether the answer to this request, which the store has carried out, is to be lost."""
        with self._lock:
            if not (
                method == "PUT" and COMMIT.search(urlsplit(path).path) and status == 200 and self.to_lose
            ):
                return False
            self.to_lose -= 1
            self.lost += 1
            return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LosingProxy

    def _pass(self) -> None:
        if self.path.startswith(_CONTROL):
            self.server.to_lose = int(self.path.removeprefix(_CONTROL))
            self._answer(str(self.server.lost).encode())
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            # The host is part of what was signed, so it is passed as it came.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if self.server.loses(self.command, self.path, answer.status):
            self.close_connection = True
            self.connection.close()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815  # names that http.server calls

    def log_message(self, *_: Any) -> None:
        pass


class Losing:
    """A running proxy at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def lose(self, count: int) -> int:
        """Have the answers to the next so many commits lost; how many were lost so far."""
        with urlopen(f"{self.url}{_CONTROL}{count}") as answer:  # noqa: S310  # our own
            return int(answer.read())


@contextmanager
def losing_proxy(upstream: str) -> Iterator[Losing]:
    """Runs one."""
    words = [sys.executable, "-m", "tests.proxy", upstream]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        try:
            yield Losing(run.stdout.readline().strip())
        finally:
            run.kill()


if __name__ == "__main__":
    proxy = LosingProxy(sys.argv[1])
    print(proxy.url, flush=True)
    proxy.serve_forever()
