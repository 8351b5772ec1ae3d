"""The processes of one command: found by what they are, killed at a moment, looked for when it is over."""

from __future__ import annotations

import contextlib
import math
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

# What goes last are two agents of a Ray that was killed: they call its control service for a minute.
GONE_S = 150.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # POSIX shared memory, which is looked at only


class Process(NamedTuple):
    """One that lives; `started` in clock ticks since boot, which with the pid names it for good."""

    pid: int
    parent: int
    session: int
    started: int
    words: str

    @property
    def is_helper(self) -> bool:
        """Whether it is an extraction helper, or a child that one forked."""
        return "sandbox_child" in self.words


def living() -> dict[int, Process]:
    """All processes by pid, without those that have ended and only wait to be reaped."""
    found = (_read(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process}


def _read(entry: Path) -> Process | None:
    """See proc_pid_stat(5): the fields behind the name, which is in brackets and may hold anything."""
    try:
        fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        words = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Process(int(entry.name), int(fields[1]), int(fields[3]), int(fields[19]), words)


class Command:
    """A command and all that comes from it, in a session and with a TMPDIR of its own.

    As a context manager it ends with nothing of it left alive.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], temp: Path) -> None:
        temp.mkdir(exist_ok=True)
        self._temp = temp
        self._shared = set(_SHARED_MEMORY.iterdir())
        self._seen: set[tuple[int, int]] = set()
        self._ended_at = math.inf
        self._log = temp.with_suffix(".log")
        with self._log.open("wb") as log:
            self._run = subprocess.Popen(
                list(words),
                env={**os.environ, **environment, "TMPDIR": str(temp)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._run.wait()

    @property
    def running(self) -> bool:
        """Whether the command itself has not ended."""
        return self._run.poll() is None

    def ended(self, timeout_s: float) -> int:
        """The exit code; -9 where it was killed."""
        code = self._run.wait(timeout_s)
        self._ended_at = time.monotonic()
        return code

    @property
    def said(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-500:]

    def processes(self) -> list[Process]:
        """Those that live. One that left the session is known by its parent, as long as that was seen."""
        now = living()
        found = {
            p.pid for p in now.values() if p.session == self._run.pid or (p.pid, p.started) in self._seen
        }
        while more := {p.pid for p in now.values() if p.parent in found} - found:
            found |= more
        mine = [now[pid] for pid in found]
        self._seen |= {(process.pid, process.started) for process in mine}
        return mine

    def find(self, kind: str) -> list[Process]:
        """Those of a kind of `KINDS`."""
        mine = self.processes()
        return sorted(p for p in mine if KINDS[kind](p, {p.pid: p for p in mine}, self._run.pid))

    def left_behind(self, within_s: float) -> tuple[list[str], float]:
        """What is still left so long after the command ended, in words, and seconds until nothing was."""
        while (left := self._left()) and time.monotonic() - self._ended_at < within_s:
            time.sleep(0.1)
        return left, time.monotonic() - self._ended_at

    def _left(self) -> list[str]:
        new = set(_SHARED_MEMORY.iterdir()) - self._shared
        return [
            *(f"process {process.pid}: {process.words[:80]}" for process in self.processes()),
            *(f"temporary file {name}" for name in self._temporary()),
            *(f"shared memory {path}" for path in sorted(new)),
        ]

    def _temporary(self) -> list[str]:
        """Files below TMPDIR; of Ray's own only what it spilled: its logs and sockets hold no pictures."""
        files = [path.relative_to(self._temp) for path in self._temp.rglob("*") if not path.is_dir()]
        return sorted(
            str(f) for f in files if f.parts[0] != "ray" or any("spill" in part for part in f.parts)
        )


_Test = Callable[[Process, Mapping[int, Process], int], bool]
KINDS: dict[str, _Test] = {
    "driver": lambda process, _, leader: process.pid == leader,
    "helper": lambda p, mine, _: p.is_helper and not (p.parent in mine and mine[p.parent].is_helper),
    "scoring actor": lambda process, *_: "(Score" in process.words,
    "raylet": lambda process, *_: "raylet/raylet" in process.words and "--head" not in process.words,
}


def wait_for_one(command: Command, kind: str, chance: random.Random) -> Process | None:
    """One of a kind of `KINDS`, or a `child`, as soon as there is any; None if the command ends first."""
    while command.running:
        found = _child(command.find("helper")) if kind == "child" else command.find(kind)
        if found:
            return chance.choice(found)
        time.sleep(0.1)
    return None


def _child(helpers: Sequence[Process]) -> list[Process]:
    """A child of one of these, met while it decodes one of the videos of the next second; or none."""
    end = time.monotonic() + 1.0
    while helpers and time.monotonic() < end:
        for helper in helpers:
            with contextlib.suppress(OSError):
                pids = Path(f"/proc/{helper.pid}/task/{helper.pid}/children").read_text().split()
                if found := [process for pid in pids if (process := _read(Path(f"/proc/{pid}")))]:
                    return found
        time.sleep(0.002)  # a child lives for some hundredths of a second
    return []


def actor_of(victim: Process) -> int:
    """The pid of the process that decodes with this helper or child."""
    above = living().get(victim.parent)
    return above.parent if above and above.is_helper else victim.parent


def wait_for_a_video(command: Command, actor: int) -> None:
    """Until one was decoded for this process: the one that was hit, if any, is tried once more, not twice."""
    while command.running:
        for child in _child([helper for helper in command.find("helper") if helper.parent == actor]):
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(child.pid)
                select.select([handle], [], [], 60.0)
                os.close(handle)
            return


def kill(victim: Process, after_s: float) -> bool:
    """Kill a process so many seconds from now; False if it has ended by itself before that."""
    try:
        handle = os.pidfd_open(victim.pid)
    except ProcessLookupError:
        return False
    try:
        now = _read(Path(f"/proc/{victim.pid}"))
        if now is None or now.started != victim.started or select.select([handle], [], [], after_s)[0]:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return bool(select.select([handle], [], [], 10.0)[0])
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
