"""CPU time of a command by what its processes are: the driver, actors by their class, Ray's own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_EVERY_S = 0.25
_TICKS_S = os.sysconf("SC_CLK_TCK")
_HELPER = "extracting children"
_KINDS = (
    ("sandbox_child", _HELPER),
    ("(Extract", "extracting actors"),
    ("(Canned", "extracting actors"),
    ("(Score", "scoring actors"),
    ("gcs_server", "Ray's GCS and raylet"),
    ("raylet/raylet", "Ray's GCS and raylet"),
)


class _Process(NamedTuple):
    pid: int
    parent: int
    started: int
    own_s: float
    children_s: float
    kind: str


_Seen = dict[tuple[int, int], tuple[str, float]]


def cpu_seconds(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Counter[str], str]:
    """Run a command to its end; CPU seconds by kind of process, and what it printed.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    run = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen: _Seen = {}
    watcher = threading.Thread(target=_watch, args=(run, seen), daemon=True)
    watcher.start()
    output = run.communicate()[0].decode(errors="replace")
    watcher.join()
    if run.returncode:
        raise RuntimeError(output[-2000:])
    total: Counter[str] = Counter()
    for kind, seconds in seen.values():
        total[kind] += seconds
    return total, output


def _watch(run: subprocess.Popen[bytes], seen: _Seen) -> None:
    while run.poll() is None:
        processes = _below(run.pid)
        for process in processes.values():
            parent = processes.get(process.parent)
            if parent is not None and parent.kind == _HELPER:
                continue  # a child that lives for one video: its helper waits for it and has its account
            kind = "driver" if process.pid == run.pid else process.kind
            used = process.own_s + (process.children_s if kind == _HELPER else 0.0)
            seen[process.pid, process.started] = (kind, used)
        time.sleep(_EVERY_S)


def _below(top: int) -> dict[int, _Process]:
    """A process and all that come from it, by pid."""
    found = {process.pid: process for entry in Path("/proc").iterdir() if (process := _read(entry))}
    taken: dict[int, _Process] = {}
    wanted = {top}
    while wanted:
        taken |= {pid: found[pid] for pid in wanted if pid in found}
        wanted = {process.pid for process in found.values() if process.parent in wanted} - taken.keys()
    return taken


def _read(entry: Path) -> _Process | None:
    """See proc_pid_stat(5): the fields behind the name, which is in brackets and may hold anything.

    One that has ended and waits to be reaped has no command line any more: what it was is known from before.
    """
    if not entry.name.isdigit():
        return None
    try:
        fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        words = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return None
    if not words:
        return None
    user, system, children_user, children_system = (int(field) / _TICKS_S for field in fields[11:15])
    kind = next((kind for sign, kind in _KINDS if sign in words), "Ray's other processes")
    own, children = user + system, children_user + children_system
    return _Process(int(entry.name), int(fields[1]), int(fields[19]), own, children, kind)
