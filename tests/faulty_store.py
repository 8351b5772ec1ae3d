"""A store with faults: a proxy in front of an S3 server that does to some bodies what networks do.

Which answer is harmed, and how, follows from the seed, the object and how often it was asked for, whatever
the order in which threads ask. What was injected is counted.
"""

import json
import random
import re
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from subprocess import Popen
from time import sleep
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tests.proxy import Answer, Handler, Proxy, running, serve

_CONTROL = "/__faults__"


@dataclass(frozen=True, slots=True)
class Faults:
    """What befalls requests for bodies, all of them shares of 1 where nothing else is said."""

    bodies: str = "/uploads/"
    """A pattern somewhere in `/bucket/key`: only such objects are harmed and counted."""
    seed: int = 0
    unavailable: float = 0.0
    """503 in place of the body."""
    reset: float = 0.0
    """The connection is torn somewhere within the body."""
    stalled: float = 0.0
    """Nothing comes any more from somewhere within the body on."""
    latency_s: float = 0.0
    flips: int = 0
    """Objects of which one body comes with one byte changed."""
    expired_after: int | None = None
    """Requests for bodies, after which our credentials are refused."""
    denied: list[str] = field(default_factory=list)
    """Keys that are handed out to nobody."""
    damaged: list[str] = field(default_factory=list)
    """Keys whose bodies all come with one byte changed."""
    down: bool = False
    """Whatever is asked for, 503."""


class _FaultyProxy(Proxy):
    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, _FaultyHandler)
        self.faults = Faults()
        self.counts: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.flipped: set[str] = set()

    def fate(self, method: str, path: str) -> str:
        """What becomes of a request: the name of a fault, "" for none."""
        with self.lock:
            if self.faults.down:
                fate = "down"
            elif method == "GET" and re.search(self.faults.bodies, path):
                self.asked[path] += 1
                self.counts["bodies"] += 1
                fate = self._refused(path) or self._harmed(path)
            else:
                fate = ""
            if fate:
                self.counts[fate] += 1
            return fate

    def _refused(self, path: str) -> str:
        faults = self.faults
        if faults.expired_after is not None and self.counts["bodies"] > faults.expired_after:
            return "expired"
        return "denied" if path.split("/", 2)[2] in faults.denied else ""

    def _harmed(self, path: str) -> str:
        if path.split("/", 2)[2] in self.faults.damaged:
            return "damaged"
        drawn = self.chance(path).random()
        for name in ("unavailable", "reset", "stalled"):
            drawn -= getattr(self.faults, name)
            if drawn < 0:
                return name
        if len(self.flipped) < self.faults.flips and path not in self.flipped:
            self.flipped.add(path)
            return "flipped"
        return ""

    def chance(self, path: str) -> random.Random:
        """The chance of the newest request for that object; names of buckets are random, it is not."""
        key = path.split("/", 2)[2]
        return random.Random(f"{self.faults.seed} {key} {self.asked[path]}")


_REFUSED = {
    "down": (503, "SlowDown"),
    "unavailable": (503, "SlowDown"),
    "expired": (403, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
}


class _FaultyHandler(Handler):
    server: _FaultyProxy

    def handled(self) -> None:
        server = self.server
        if self.path == _CONTROL:
            if changed := self.body():
                server.faults = Faults(**json.loads(changed))
            self.told(json.dumps({"counts": server.counts, "asked": list(server.asked)}).encode())
            return
        path = unquote(urlsplit(self.path).path)
        fate = server.fate(self.command, path)
        sleep(server.faults.latency_s)
        if fate in _REFUSED:
            self.body()
            self._refuse(*_REFUSED[fate])
            return
        answer = self.carried_out()
        if not fate or answer.status != 200:
            self.whole(answer)
            return
        where = server.chance(path).randrange(len(answer.content))
        if fate in ("flipped", "damaged"):
            content = bytearray(answer.content)
            content[where] ^= 1 << where % 8
            self.whole(answer._replace(content=bytes(content)))
            return
        self.head(answer)
        self.wfile.write(answer.content[:where])
        if fate == "stalled":
            self.connection.recv(1)  # until the client gives up
        self._tear()

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"
        self.whole(Answer(status, code, [("Content-Type", "application/xml")], text.encode()))

    def _tear(self) -> None:
        """Close with RST, which needs the last handle to go before anybody says goodbye."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.rfile.close()


class FaultyStore:
    """A running proxy at `url`."""

    def __init__(self, process: Popen[str], url: str) -> None:
        self.url, self._process = url, process

    def inject(self, **faults: Any) -> None:
        """From now on those of `Faults` that are named, and no others."""
        self._asked(json.dumps(faults).encode())

    def counts(self) -> Counter[str]:
        """What was injected so far, by the name of the fault; `bodies` are all that were asked for."""
        return Counter(self._asked()["counts"])

    def asked(self) -> list[str]:
        """`/bucket/key` of the objects whose bodies were asked for so far."""
        return list(self._asked()["asked"])

    def hang(self) -> None:
        """Take connections for ever and answer nothing, as a store behind a lost network."""
        self._process.send_signal(signal.SIGSTOP)

    def die(self) -> None:
        """Refuse connections for ever."""
        self._process.kill()

    def _asked(self, changed: bytes | None = None) -> dict[str, Any]:
        with urlopen(Request(f"{self.url}{_CONTROL}", changed)) as answer:  # noqa: S310  # our own
            found: dict[str, Any] = json.loads(answer.read())
            return found


@contextmanager
def faulty_store(upstream: str) -> Iterator[FaultyStore]:
    """Runs one that injects nothing yet."""
    with running("tests.faulty_store", upstream) as (process, url):
        yield FaultyStore(process, url)


if __name__ == "__main__":
    serve(_FaultyProxy(sys.argv[1]))
