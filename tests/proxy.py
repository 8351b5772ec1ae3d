"""Proxies in front of an S3 server: what they have in common, and one that loses some of the answers.

Each is a process of its own: delta-rs holds Python's lock while it waits, so a thread could not answer it.
"""

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

_CONTROL = "/__lose__/"
COMMIT = re.compile(r"/_delta_log/\d{20}\.json$")


class Answer(NamedTuple):
    """What the store answers."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    content: bytes


class Proxy(ThreadingHTTPServer):
    """Listens on a port of its own; `handler` says what becomes of a request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, handler: type["Handler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.upstream = urlsplit(upstream).netloc
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Clients give up while they are answered; that is what is tested."""


class Handler(BaseHTTPRequestHandler):
    """Passes a request on and the answer back."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def body(self) -> bytes:
        """Of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def carried_out(self) -> Answer:
        """What the store answers to this request."""
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        body = self.body()
        try:
            # The host is part of what was signed, so it is passed as it came.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return Answer(answer.status, answer.reason, answer.getheaders(), answer.read())
        finally:
            upstream.close()

    def head(self, answer: Answer) -> None:
        """Send status and headers."""
        self.send_response_only(answer.status, answer.reason)
        passed = [(n, v) for n, v in answer.headers if n.lower() not in ("transfer-encoding", "connection")]
        for name, value in passed:
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in passed}:
            self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()

    def whole(self, answer: Answer) -> None:
        """Send an answer as it is."""
        self.head(answer)
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    def told(self, content: bytes) -> None:
        """Answer a request that is for the proxy itself."""
        self.whole(Answer(200, "OK", [], content))

    def handled(self) -> None:
        """Do what is to be done with this request."""
        self.whole(self.carried_out())

    def do_GET(self) -> None:
        self.handled()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815  # names that http.server calls

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running(module: str, upstream: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a proxy, which `python -m module` starts, and its URL."""
    words = [sys.executable, "-m", module, upstream]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        try:
            yield run, run.stdout.readline().strip()
        finally:
            run.kill()


def serve(proxy: Proxy) -> None:
    """Say where it listens, and answer until the process is killed."""
    print(proxy.url, flush=True)
    proxy.serve_forever()


class _LosingProxy(Proxy):
    """Loses the answer to the next `to_lose` writes of a commit; `lost` counts them."""

    to_lose = lost = 0

    def loses(self, method: str, path: str, status: int) -> bool:
        """Whether the answer to this request, which the store has carried out, is to be lost."""
        with self.lock:
            if not (
                method == "PUT" and COMMIT.search(urlsplit(path).path) and status == 200 and self.to_lose
            ):
                return False
            self.to_lose -= 1
            self.lost += 1
            return True


class _LosingHandler(Handler):
    server: _LosingProxy

    def handled(self) -> None:
        if self.path.startswith(_CONTROL):
            self.server.to_lose = int(self.path.removeprefix(_CONTROL))
            self.told(str(self.server.lost).encode())
            return
        answer = self.carried_out()
        if self.server.loses(self.command, self.path, answer.status):
            self.close_connection = True
            self.connection.close()
        else:
            self.whole(answer)


class Losing(NamedTuple):
    """A running proxy at `url`."""

    url: str

    def lose(self, count: int) -> int:
        """Have the answers to the next so many commits lost; how many were lost so far."""
        with urlopen(f"{self.url}{_CONTROL}{count}") as answer:  # noqa: S310  # our own
            return int(answer.read())


@contextmanager
def losing_proxy(upstream: str) -> Iterator[Losing]:
    """Runs one."""
    with running("tests.proxy", upstream) as (_, url):
        yield Losing(url)


if __name__ == "__main__":
    serve(_LosingProxy(sys.argv[1], _LosingHandler))
