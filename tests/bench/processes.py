"""CPU time of a command by what its processes are: the driver, actors by their class, Ray's own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import psutil

_EVERY_S = 0.25
_HELPER = "extracting children"
_KINDS = (
    ("sandbox_child", _HELPER),
    ("(Extract", "extracting actors"),
    ("(Canned", "extracting actors"),
    ("(Score", "scoring actors"),
    ("gcs_server", "Ray's GCS and raylet"),
    ("raylet/raylet", "Ray's GCS and raylet"),
)
_Seen = dict[tuple[int, float], tuple[str, float]]


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
    top = psutil.Process(run.pid)
    while run.poll() is None:
        try:
            processes = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                if process.pid != run.pid and _kind(process.parent() or top) == _HELPER:
                    continue  # a child that lives for one video: its helper waits for it and has its account
                kind = "driver" if process.pid == run.pid else _kind(process)
                times = process.cpu_times()
                used = times.user + times.system
                if kind == _HELPER:
                    used += times.children_user + times.children_system
                seen[process.pid, process.create_time()] = (kind, used)
            except psutil.Error:
                continue
        time.sleep(_EVERY_S)


def _kind(process: psutil.Process) -> str:
    words = " ".join(process.cmdline()) or process.name()
    return next((kind for sign, kind in _KINDS if sign in words), "Ray's other processes")
