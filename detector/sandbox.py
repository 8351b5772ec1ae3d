"""Decode strangers' files in a process that can do little else.

A helper is started clean (exec, never forked from here), imports and warms up once, then forks one child per
video. The child gets the open descriptor and an anonymous shared-memory buffer, nothing else; it hands back
facts as JSON and crops as bytes in that buffer, which are checked here like any other input from a stranger.

    actor ──exec──▶ helper ──fork──▶ child         one helper per actor, one child per video
      │   request + 2 descriptors ──▶  │            limits on memory, CPU time, wall time, files, core dumps
      ◀── outcome (exit, CPU, peak) ───┘            an empty environment
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta

from detector.errors import DeepfakeScanError
from detector.types import Clips, DetectorName, Extraction, ExtractOptions, Facts, Limits, Reason

# Layout of the buffer: 8 bytes length, JSON of an Envelope, and from CLIPS_AT on the pixels.
CLIPS_AT = 8 << 20
TEST_FAULTS = "_DEEPFAKE_SCAN_TEST_FAULTS"

_START_S = 120.0
_GRACE_S = 30.0
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from detector.sandbox_child import main; main(sys.argv[2:])"
)


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child hands back beside the pixels: facts, and how many frames each clip holds."""

    facts: Facts
    clip_frames: list[Annotated[int, Meta(ge=1, le=1 << 20)]]


class Outcome(msgspec.Struct, frozen=True):
    """How a child ended, as its helper saw it."""

    exit_code: int
    signal: int
    timed_out: bool
    cpu_s: float
    peak_bytes: int


class Sandbox:
    """A helper process and its children. Use as a context manager; not for several threads at once."""

    def __init__(self, detector: DetectorName = "yunet", *, link_identities: bool = False) -> None:
        self._tools = [detector, *(["identities"] if link_identities else [])]
        self._helper: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def helper_pid(self) -> int | None:
        """Process id of the helper, None after `close`."""
        return self._helper.pid if self._helper else None

    def close(self) -> None:
        """End the helper, and with it a child that may still run."""
        if self._control:
            self._control.close()
        if self._helper:
            self._helper.kill()
            self._helper.wait()
        self._helper = self._control = None

    def extract(self, file: IO[bytes], options: ExtractOptions) -> Extraction:
        """Extract one video in a fresh child.

        Args:
            file: the open video; only its descriptor is handed on.
            options: as for `extract_clips`; detector and linking must be those of this sandbox.

        Returns:
            The child's extraction, or facts with the reason why there is none. Nothing is raised for
            anything that a video can do.
        """
        control = self._ready()
        buffer = os.memfd_create("deepfake-scan", os.MFD_CLOEXEC)
        try:
            os.ftruncate(buffer, CLIPS_AT + options.limits.max_clip_bytes)
            outcome = _run(control, file, options, buffer)
            if outcome is None:
                self.close()
                return _failed(Reason.DECODER_CRASH, "the helper of the decoding process died")
            failure = _failure(outcome, options.limits)
            if failure:
                return _failed(*failure, outcome)
            return _read(buffer, options, outcome)
        finally:
            os.close(buffer)

    def _ready(self) -> socket.socket:
        """The socket of a helper that lives: one that died between two videos is not the next one's fault."""
        if self._helper is not None and self._helper.poll() is not None:
            self.close()
        return self._control or self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).resolve().parent.parent)
        words = self._tools + (["faults"] if os.environ.get(TEST_FAULTS) else [])
        self._helper = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, root, str(theirs.fileno()), *words],
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._control = ours
        ours.settimeout(_START_S)
        if _receive(ours) != b"ready":
            self.close()
            raise DeepfakeScanError(
                "the helper of the decoding process did not start",
                hint="Its own message stands above; `deepfake-scan doctor` checks what it needs.",
            )
        return ours


def _run(control: socket.socket, file: IO[bytes], options: ExtractOptions, buffer: int) -> Outcome | None:
    """Send one request and wait for its outcome; None if the helper is gone."""
    control.settimeout(options.limits.wall_s + _GRACE_S)
    try:
        socket.send_fds(control, [msgspec.json.encode(options)], [file.fileno(), buffer])
        return msgspec.json.decode(_receive(control), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None


def _receive(control: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError, TimeoutError):
        return control.recv(1 << 16)
    return b""


def _failure(outcome: Outcome, limits: Limits) -> tuple[Reason, str] | None:
    """Why a child that did not end by itself failed."""
    if outcome.timed_out:
        return Reason.DECODE_TIMEOUT, f"decoding was stopped after {limits.wall_s:g} s"
    if outcome.signal == signal.SIGXCPU:
        return Reason.DECODE_TIMEOUT, f"decoding was stopped after {limits.cpu_s} s of CPU time"
    if outcome.signal:
        name = signal.Signals(outcome.signal).name if outcome.signal in set(signal.Signals) else "a signal"
        return Reason.DECODER_CRASH, f"the decoding process was killed by {name}"
    if outcome.exit_code:
        return Reason.DECODER_CRASH, f"the decoding process ended with code {outcome.exit_code}"
    return None


def _read(buffer: int, options: ExtractOptions, outcome: Outcome) -> Extraction:
    """Check and copy what the child left in the buffer; the child is gone, so it cannot change it now."""
    frames, size = options.sampling.frames, options.crop.size
    with mmap.mmap(buffer, 0, prot=mmap.PROT_READ) as memory:
        length = int.from_bytes(memory[:8], "little")
        if not 0 < length <= CLIPS_AT - 8:
            return _failed(Reason.DECODER_CRASH, "the decoding process returned no answer", outcome)
        try:
            envelope = msgspec.json.decode(memory[8 : 8 + length], type=Envelope)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _failed(Reason.DECODER_CRASH, "the decoding process returned garbage", outcome)
        counts = np.asarray(envelope.clip_frames, np.int64)
        clips = [track.clip for track in envelope.facts.tracks if track.clip is not None]
        nbytes = len(counts) * frames * size * size * 3
        in_order = clips == list(range(len(counts)))
        if not in_order or nbytes > options.limits.max_clip_bytes or not _within(counts, 1, frames):
            return _failed(
                Reason.DECODER_CRASH, "the decoding process returned clips that do not fit", outcome
            )
        pixels = np.frombuffer(memory[CLIPS_AT : CLIPS_AT + nbytes], np.uint8)
        pixels = pixels.reshape(len(counts), frames, size, size, 3)
    mask = np.arange(frames) < counts[:, None]
    return Extraction(envelope.facts, Clips(pixels, mask), outcome.cpu_s, outcome.peak_bytes)


def _within(counts: np.ndarray[tuple[int], np.dtype[np.int64]], low: int, high: int) -> bool:
    return bool(np.all((counts >= low) & (counts <= high)))


def _failed(reason: Reason, message: str, outcome: Outcome | None = None) -> Extraction:
    cpu_s, peak = (outcome.cpu_s, outcome.peak_bytes) if outcome else (0.0, 0)
    return Extraction(Facts(failure=reason, message=message), Clips.none(), cpu_s, peak)
