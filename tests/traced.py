"""What a program and everything that it starts asks the kernel for, as `strace` sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# Whatever names a path, and whatever makes or binds a socket; not what goes through one that is there.
SOCKETS = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4")
_CALLS = f"trace=%file,{','.join(SOCKETS)}"
# `12 openat(AT_FDCWD, "/a", O_RDONLY) = 3`; the second half of one that was cut in two names nothing.
_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One call: by which process, of which name, the first path in it (empty: none), the whole line."""

    pid: int
    name: str
    path: str
    line: str


@dataclass(frozen=True, slots=True)
class Traced:
    """The calls of a program and its children in order, and what they wrote to stdout."""

    calls: Sequence[Call]
    out: str

    @property
    def first_pid(self) -> int:
        """The process that was started first."""
        return self.calls[0].pid

    def after(self, path: str) -> list[Call]:
        """The calls after the first one that names `path`."""
        places = [place for place, call in enumerate(self.calls) if call.path == path]
        assert places, f"nothing ever asked for {path}: {self.out[-2000:]}"
        return list(self.calls[places[0] + 1 :])


def traced(words: Sequence[str], folder: Path, *, cwd: Path, timeout_s: float = 300) -> Traced:
    """Run a program to its end under strace; the log is kept in `folder`."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.fail("strace is missing: apt-get install strace")
    log = folder / "strace.log"
    command = [strace, "-f", "-qq", "-s", "4096", "-e", _CALLS, "-o", str(log), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"
    lines = log.read_text(errors="backslashreplace").splitlines()
    return Traced([_call(found) for line in lines if (found := _LINE.match(line))], done.stdout)


def _call(found: re.Match[str]) -> Call:
    path = _PATH.search(found["arguments"])
    return Call(int(found["pid"]), found["call"], path[1] if path else "", found[0])
