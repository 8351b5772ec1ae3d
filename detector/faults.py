"""Faults that tests inject into the decoding child, by files whose first bytes ask for one.

Only where the environment variable _DEEPFAKE_SCAN_TEST_FAULTS was set when the sandbox started.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from typing import IO

MARK = b"DEEPFAKE-SCAN-FAULT:"


def run(file: IO[bytes], memory: mmap.mmap) -> None:
    """Run the fault that the file's head names, if it names one, and rewind the file."""
    head = file.read(64)
    file.seek(0)
    if head.startswith(MARK):
        _FAULTS[head.removeprefix(MARK).strip().decode()](memory)


def _segfault(_: mmap.mmap) -> None:
    ctypes.string_at(0)


def _hang(_: mmap.mmap) -> None:
    while True:
        time.sleep(3600)


def _spin(_: mmap.mmap) -> None:
    while True:
        pass


def _leak(_: mmap.mmap) -> None:
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20)) * 64)


def _exit_early(_: mmap.mmap) -> None:
    os._exit(0)


def _garbage(memory: mmap.mmap) -> None:
    memory[:4096] = (1000).to_bytes(8, "little") + os.urandom(4088)
    os._exit(0)


def _kill(_: mmap.mmap) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_FAULTS = {
    "segfault": _segfault,
    "hang": _hang,
    "spin": _spin,
    "leak": _leak,
    "exit": _exit_early,
    "garbage": _garbage,
    "kill": _kill,
}
