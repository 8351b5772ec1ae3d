"""The other side of the sandbox: a helper that warms up, and its children that decode.

Started by `detector.sandbox` with `python -I`. Single-threaded, imports no torch, holds no secrets.
"""

from __future__ import annotations

import ctypes
import gc
import io
import mmap
import os
import resource
import select
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np

from detector import faces, faults, identities
from detector.extraction import extract_clips
from detector.faces import Look
from detector.identities import Embed
from detector.sandbox import CLIPS_AT, Envelope, Outcome
from detector.types import Clips, DetectorName, Extraction, ExtractOptions, FaceBox, Facts, Limits, Reason

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> None:
    """Serve requests on the socket whose descriptor is `argv[0]`; the other words say what to load."""
    control = socket.socket(fileno=int(argv[0]))
    test_faults = "faults" in argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the whole process group
    tools = _load("hog" if "hog" in argv else "yunet", link_identities="identities" in argv)
    gc.freeze()  # what is loaded stays: children neither search it for garbage nor copy its pages for that
    control.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not message:
            return
        video, buffer = descriptors
        outcome = _run_child(control, message, video, buffer, tools, test_faults)
        os.close(video)
        os.close(buffer)
        control.send(msgspec.json.encode(outcome))


@dataclass(frozen=True, slots=True)
class _Tools:
    look: Look
    embed: Embed | None


def _load(detector: DetectorName, *, link_identities: bool) -> _Tools:
    """Import and run everything once, so that no child has to; an empty file ends at once."""
    tools = _Tools(faces.load(detector), identities.load() if link_identities else None)
    blank = np.zeros((64, 64, 3), np.uint8)
    tools.look(blank, False)
    if tools.embed:
        tools.embed(blank, FaceBox(8, 8, 48, 48, 1.0))
    extract_clips(io.BytesIO(b""), ExtractOptions(), tools.look)
    return tools


def _run_child(
    control: socket.socket, message: bytes, video: int, buffer: int, tools: _Tools, test_faults: bool
) -> Outcome:
    options = msgspec.json.decode(message, type=ExtractOptions)
    helper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(helper, options, video, buffer, tools, test_faults)
    timed_out = not _wait(pid, control, options.limits.wall_s)
    if timed_out:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return Outcome(
        exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        timed_out=timed_out,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
    )


def _wait(pid: int, control: socket.socket, wall_s: float) -> bool:
    """Wait until the child ends: True if it did in time. If our parent is gone, take the child along."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(control, select.POLLHUP)
        events = dict(poll.poll(wall_s * 1000))
    finally:
        os.close(pidfd)
    if control.fileno() in events:
        os.kill(pid, signal.SIGKILL)
        sys.exit(0)
    return pidfd in events


def _child(
    helper: int, options: ExtractOptions, video: int, buffer: int, tools: _Tools, test_faults: bool
) -> NoReturn:
    """Decode one video and end. Never returns to the helper's loop."""
    code = 70
    try:
        _confine(helper, options.limits, keep=(video, buffer))
        with open(video, "rb", closefd=False) as file, mmap.mmap(buffer, 0) as memory:
            try:
                if test_faults:
                    faults.run(file, memory)
                extraction = extract_clips(file, options, tools.look, tools.embed)
            except MemoryError:
                facts = Facts(failure=Reason.DECODE_MEMORY, message="decoding needs more memory than allowed")
                extraction = Extraction(facts, Clips.none())
            except Exception as error:  # noqa: BLE001  # a bug of ours becomes this video's row
                extraction = Extraction(_bug(error), Clips.none())
            code = _write(memory, extraction)
    finally:
        os._exit(code)


def _bug(error: Exception) -> Facts:
    return Facts(failure=Reason.INTERNAL_ERROR, message=f"{type(error).__name__}: {error}"[:200])


def _confine(helper: int, limits: Limits, keep: tuple[int, int]) -> None:
    """Drop everything that decoding does not need."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != helper:
        os._exit(71)
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    low, high = sorted(keep)
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 4096)
    mapped = _mapped_bytes()
    for kind, value in (
        (resource.RLIMIT_AS, mapped + limits.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 5))
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _mapped_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def _write(memory: mmap.mmap, extraction: Extraction) -> int:
    """Put facts and pixels into the buffer; the exit code."""
    frames = [int(n) for n in extraction.clips.mask.sum(1)]
    text = msgspec.json.encode(Envelope(extraction.facts, frames))
    if len(text) > CLIPS_AT - 8:
        facts = Facts(failure=Reason.TOO_LARGE, message="more faces than a row of the table can hold")
        text, extraction = msgspec.json.encode(Envelope(facts, [])), Extraction(facts, Clips.none())
    memory[8 : 8 + len(text)] = text
    pixels = extraction.clips.pixels.tobytes()
    memory[CLIPS_AT : CLIPS_AT + len(pixels)] = pixels
    memory[:8] = len(text).to_bytes(8, "little")
    return 0
