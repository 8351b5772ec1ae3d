"""Who holds the table: what a scan writes of itself into its commits, and whether it is still alive.

A pid proves nothing by itself: it may be another machine's, another container's, or used again. Only where
boot and pid namespace are this process's own does the absence of that process prove that it is dead.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A scan's process. `process_start` in clock ticks since boot; "" where the system does not tell."""

    scan_id: str
    host: str
    pid: str
    process_start: str
    boot_id: str
    pid_namespace: str

    @staticmethod
    def here(scan_id: str) -> Holder:
        """This very process."""
        return Holder(
            scan_id=scan_id,
            host=socket.gethostname(),
            pid=str(os.getpid()),
            process_start=_process(os.getpid())[1],
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(),
        )

    @staticmethod
    def of(commit: Mapping[str, Any]) -> Holder:
        """The holder that a commit's metadata names."""
        return Holder(**{name: str(commit.get(name, "")) for name in Holder.__slots__})

    def metadata(self) -> dict[str, str]:
        """For a commit."""
        return asdict(self)

    def provably_dead(self) -> bool:
        """True only where this host can know it."""
        same_world = (self.boot_id, self.pid_namespace) == (_boot_id(), _pid_namespace())
        if not (same_world and self.boot_id and self.pid_namespace and self.pid.isdecimal()):
            return False
        try:
            os.kill(int(self.pid), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass  # somebody else's process, which may or may not be the holder
        state, start = _process(int(self.pid))
        return state in ("Z", "X") or bool(start and self.process_start and start != self.process_start)

    def __str__(self) -> str:
        return f"scan {self.scan_id} on {self.host} (process {self.pid})"


def _process(pid: int) -> tuple[str, str]:
    """State and start time of a process: fields 3 and 22 of proc_pid_stat(5); "" where it cannot be read."""
    try:
        # The name before them, in parentheses, may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
