"""The other side of the sandbox: a helper that warms up, and its children that decode.

Started by `detector.sandbox` with `python -I`. Single-threaded, imports no torch, holds no secrets.
"""

from __future__ import annotations

import ctypes
import gc
import io
import math
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, NoReturn

import av
import msgspec
import numpy as np

from detector import faces, faults, identities
from detector.confinement import Walls
from detector.extraction import extract_clips
from detector.faces import Look
from detector.identities import Embed
from detector.preview import preview
from detector.sandbox import CLIPS_AT, DURATION_AT, JSON_AT, Envelope, Outcome, Request, wall_limit_s
from detector.types import DetectorName, Extraction, ExtractOptions, FaceBox, Limits, Reason

_CPU_GRACE_S = 5
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_DURATION = struct.Struct("<d")
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> None:
    """Serve requests on the socket whose descriptor is `argv[0]`; the other words say what to load."""
    control = socket.socket(fileno=int(argv[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the whole process group
    kit = _load(argv)
    gc.freeze()  # what is loaded stays: children neither search it for garbage nor copy its pages for that
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    control.send(msgspec.json.encode(kit.walls.isolation()))
    while True:
        message, descriptors = _next(control)
        if not message:
            return
        job = _Job(msgspec.json.decode(message, type=Request), *descriptors)
        outcome = _run_child(control, job, kit)
        os.close(job.video)
        os.close(job.buffer)
        control.send(msgspec.json.encode(outcome))


def _next(control: socket.socket) -> tuple[bytes, list[int]]:
    """The next request with its descriptors; empty where the parent is gone, in whatever moment it went."""
    try:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
    except ConnectionError:
        return b"", []
    return message, descriptors


@dataclass(frozen=True, slots=True)
class _Job:
    """One video; it and the buffer for the answer are open descriptors."""

    request: Request
    video: int
    buffer: int

    @property
    def options(self) -> ExtractOptions:
        """What is asked for."""
        return self.request.options


@dataclass(frozen=True, slots=True)
class _Kit:
    """What is made once and every child has."""

    look: Look
    embed: Embed | None
    walls: Walls
    test_faults: bool


def _load(words: list[str]) -> _Kit:
    """Import and run everything once: a child cannot open a module that is imported when it is needed."""
    detector: DetectorName = "hog" if "hog" in words else "yunet"
    lacking = "".join(word for word in words if word.startswith("lacking:"))
    embed = identities.load() if "identities" in words else None
    kit = _Kit(faces.load(detector), embed, Walls(lacking), "faults" in words)
    everywhere = replace(kit.look, detect=lambda *_: [FaceBox(8, 8, 48, 48, 1.0)])
    video = _short_video()
    for look in (kit.look, everywhere):
        extract_clips(io.BytesIO(video), ExtractOptions(), look, kit.embed, stills_px=32)
    preview(io.BytesIO(video), Limits())
    for broken in (b"", b"no video", video[: len(video) // 2]):
        extract_clips(io.BytesIO(broken), ExtractOptions(), kit.look)
    return kit


def _short_video() -> bytes:
    """Grey frames of 64 x 64 px, 2 s, as MPEG-4 in MP4."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for _ in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def _run_child(control: socket.socket, job: _Job, kit: _Kit) -> Outcome:
    helper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(helper, job, kit)
    killed_after_s = _wait(pid, control, job)
    _, status, usage = os.wait4(pid, 0)
    _end_descendants()
    return Outcome(
        exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        killed_after_s=killed_after_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
    )


def _wait(pid: int, control: socket.socket, job: _Job) -> float | None:
    """Wait until the child ends; the limit of wall time that it had to be killed at.

    If our parent is gone, take the child along.
    """
    pidfd, started = os.pidfd_open(pid), time.monotonic()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLHUP)
    try:
        while (left := (limit := _limit_s(job)) - (time.monotonic() - started)) > 0:
            events = dict(poll.poll(left * 1000))
            if control.fileno() in events:
                os.kill(pid, signal.SIGKILL)
                sys.exit(0)
            if pidfd in events:
                return None
        os.kill(pid, signal.SIGKILL)
        return limit
    finally:
        os.close(pidfd)


def _limit_s(job: _Job) -> float:
    """By the duration that the child has found so far; it may say anything, and `wall_s` holds anyhow."""
    (duration_s,) = _DURATION.unpack(os.pread(job.buffer, _DURATION.size, DURATION_AT))
    return wall_limit_s(job.options, duration_s if duration_s >= 0 else 0.0)


def _end_descendants() -> None:
    """Kill what the child started, where no filter kept it from that; orphans become children of ours."""
    while left := Path("/proc/thread-self/children").read_text().split():
        for pid in map(int, left):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _child(helper: int, job: _Job, kit: _Kit) -> NoReturn:
    """Decode one video and end. Never returns to the helper's loop."""
    code = 70
    try:
        room = os.fstat(job.buffer).st_size
        _shed(helper, job.options.limits, room, keep=[job.video, job.buffer, *kit.walls.descriptors])
        kit.walls.confine()
        with open(job.video, "rb", closefd=False) as file, mmap.mmap(job.buffer, 0) as memory:
            extraction = None
            try:
                if kit.test_faults:
                    faults.run(file, memory)
                opened = partial(_opened, memory, job.options.limits)
                extraction = _made(file, job, kit, opened)
            except MemoryError:
                pass  # all that was held is, until here: nothing can be made yet
            except Exception as error:  # noqa: BLE001  # a bug of ours becomes this video's row
                bug = f"{type(error).__name__}: {error}"[:200]
                extraction = Extraction.failed(Reason.INTERNAL_ERROR, bug)
            if extraction is None:
                extraction = Extraction.failed(
                    Reason.DECODE_MEMORY, "decoding needs more memory than allowed"
                )
            code = _write(memory, extraction)
    finally:
        os._exit(code)


def _made(file: IO[bytes], job: _Job, kit: _Kit, opened: Callable[[float | None], None]) -> Extraction:
    """What the request asks for."""
    if job.request.film:
        opened(None)
        return preview(file, job.options.limits)
    return extract_clips(file, job.options, kit.look, kit.embed, opened, job.request.stills_px)


def _opened(memory: mmap.mmap, limits: Limits, duration_s: float | None) -> None:
    """The file is open: tell how long it is, and have the time that decoding may take."""
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + _CPU_GRACE_S))
    known = math.inf if duration_s is None else duration_s
    memory[DURATION_AT:JSON_AT] = _DURATION.pack(known)


def _shed(helper: int, limits: Limits, room: int, keep: list[int]) -> None:
    """Drop everything that decoding does not need, and set limits; what comes out has `room` bytes beside."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != helper:
        os._exit(71)
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    for below, above in pairwise([2, *sorted(keep), 1 << 20]):
        os.closerange(below + 1, above)
    mapped = _mapped_bytes() + room
    for kind, value in (
        (resource.RLIMIT_AS, mapped + limits.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    resource.setrlimit(
        resource.RLIMIT_CPU, (min(limits.opening_cpu_s, limits.cpu_s), limits.cpu_s + _CPU_GRACE_S)
    )


def _mapped_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def _write(memory: mmap.mmap, extraction: Extraction) -> int:
    """Put facts and bytes into the buffer; the exit code."""
    text = msgspec.json.encode(_envelope(extraction))
    if len(text) > CLIPS_AT - JSON_AT:
        extraction = Extraction.failed(Reason.TOO_LARGE, "more faces than a row of the table can hold")
        text = msgspec.json.encode(_envelope(extraction))
    memory[JSON_AT : JSON_AT + len(text)] = text
    at = CLIPS_AT
    for part in (extraction.clips.pixels.tobytes(), extraction.stills.pixels.tobytes(), extraction.film):
        memory[at : at + len(part)] = part
        at += len(part)
    memory[:8] = len(text).to_bytes(8, "little")
    return 0


def _envelope(extraction: Extraction) -> Envelope:
    height, width = extraction.stills.pixels.shape[1:3]
    return Envelope(
        facts=extraction.facts,
        clip_frames=[int(n) for n in extraction.clips.mask.sum(1)],
        stills_s=list(extraction.stills.times_s),
        stills_size=(max(1, height), max(1, width)),
        film_bytes=len(extraction.film),
    )
