"""Faults that tests inject into the decoding child, by files whose first bytes ask for one.

Only where the environment variable _DEEPFAKE_SCAN_TEST_FAULTS was set when the sandbox started.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import time
from pathlib import Path
from typing import IO

from detector.sandbox import JSON_AT

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
    memory[:4096] = (1000).to_bytes(JSON_AT, "little") + os.urandom(4096 - JSON_AT)
    os._exit(0)


def _answer(memory: mmap.mmap, text: bytes) -> None:
    """Hand back `text` in place of an extraction."""
    memory[JSON_AT : JSON_AT + len(text)] = text
    memory[:8] = len(text).to_bytes(8, "little")
    os._exit(0)


def _huge_count(memory: mmap.mmap) -> None:
    _answer(memory, b'{"facts": {}, "clip_frames": [%d]}' % 10**30)


def _bad_text(memory: mmap.mmap) -> None:
    _answer(memory, b'{"facts": {"message": "\xff\xfe"}, "clip_frames": []}')


def _deep(memory: mmap.mmap) -> None:
    depth = 100_000
    _answer(memory, b'{"facts": {"more": %b%b}, "clip_frames": []}' % (b"[" * depth, b"]" * depth))


def _more_clips(memory: mmap.mmap) -> None:
    _answer(memory, b'{"facts": {}, "clip_frames": [10, 10]}')


def _environment(memory: mmap.mmap) -> None:
    """What the child can see of the environment and of open files, as the message of a failure."""
    seen = {
        "environ": dict(os.environ),
        "started_with": sorted(
            line.split("=")[0] for line in Path("/proc/self/environ").read_text().split("\0") if line
        ),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
    }
    facts = {"failure": "internal_error", "message": json.dumps(seen)}
    _answer(memory, json.dumps({"facts": facts, "clip_frames": []}).encode())


def _fork(memory: mmap.mmap) -> None:
    """Leave a process behind that nobody waits for, where that is possible."""
    with contextlib.suppress(PermissionError):
        if os.fork() == 0:
            os.setsid()
            _hang(memory)
    os._exit(9)


_FAULTS = {
    "segfault": _segfault,
    "hang": _hang,
    "spin": _spin,
    "leak": _leak,
    "exit": _exit_early,
    "garbage": _garbage,
    "fork": _fork,
    "huge_count": _huge_count,
    "bad_text": _bad_text,
    "deep": _deep,
    "more_clips": _more_clips,
    "environment": _environment,
}
