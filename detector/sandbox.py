"""Decode strangers' files in a process that can do little else.

A helper is started clean (exec, never forked from here), imports and warms up once, then forks one child per
video. The child gets the open descriptor and an anonymous shared-memory buffer, nothing else; it hands back
facts as JSON and crops as bytes in that buffer, which are checked here like any other input from a stranger.

    actor ──exec──▶ helper ──fork──▶ child         one helper per actor, one child per video
      │   request + 2 descriptors ──▶  │            limits on memory, CPU time, wall time, files, core dumps
      ◀── outcome (exit, CPU, peak) ───┘            an empty environment, no files, no network (`confinement`)

A child that crashes, hangs or outgrows its limits is killed, and the video is tried once more in a fresh one:
a machine that was short of memory or time for a moment must not cost a verdict.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta

from detector.confinement import NEEDS, TEST_LACKING, Isolation
from detector.errors import DeepfakeScanError, SandboxError
from detector.types import (
    FILM_BYTES,
    STILLS_BYTES,
    Clips,
    DetectorName,
    Extraction,
    ExtractOptions,
    Facts,
    Limits,
    Reason,
    Stills,
)

# Layout of the buffer: 8 bytes length, 8 of the duration as soon as it is known, JSON of an Envelope, and
# from CLIPS_AT on the pixels.
DURATION_AT, JSON_AT, CLIPS_AT = 8, 16, 8 << 20
TEST_FAULTS = "_DEEPFAKE_SCAN_TEST_FAULTS"

Side = Annotated[int, Meta(ge=1, le=1 << 14)]
_TRIES = 2
_START_S = 120.0
_GRACE_S = 30.0
# What opening a file and looking at one sampled frame may take on a machine that is full, s.
_OPEN_S, _FRAME_S = 60.0, 2.0
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from detector.sandbox_child import main; main(sys.argv[2:])"
)


class Request(msgspec.Struct, frozen=True):
    """What a child is to do: extract, and hand over frames as a whole of `stills_px` px; or make a film."""

    options: ExtractOptions
    stills_px: int = 0
    film: bool = False


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a child hands back beside the bytes: facts, and how to read these.

    They are clips, of which each holds so many frames, then stills `[F, height, width, 3]`, then a film.
    """

    facts: Facts
    clip_frames: list[Annotated[int, Meta(ge=1, le=1 << 20)]] = []
    stills_s: list[Annotated[float, Meta(ge=-1e6, le=1e9)]] = []
    stills_size: tuple[Side, Side] = (1, 1)
    film_bytes: Annotated[int, Meta(ge=0, le=FILM_BYTES)] = 0


class Outcome(msgspec.Struct, frozen=True):
    """How a child ended, as its helper saw it."""

    exit_code: int
    signal: int
    killed_after_s: float | None
    """The limit of wall time that it was killed at."""
    cpu_s: float
    peak_bytes: int


def wall_limit_s(options: ExtractOptions, duration_s: float | None) -> float:
    """Seconds that decoding may take: what a player would need for all of it, and a look at each frame.

    Where the duration is not known, or the number of frames depends on it, the most that any video has.
    """
    sampling, most = options.sampling, options.limits.wall_s
    if duration_s is None or sampling.every_s is not None:
        return most
    return min(most, _OPEN_S + duration_s + _FRAME_S * sampling.windows * sampling.frames)


class Sandbox:
    """A helper process and its children. Use as a context manager; not for several threads at once.

    Attributes:
        isolation: what holds its children in, as they found out by trying.
    """

    isolation: Isolation

    def __init__(self, detector: DetectorName = "yunet", *, link_identities: bool = False) -> None:
        self._tools = [detector, *(["identities"] if link_identities else [])]
        self._helper: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
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
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._control:
            self._control.close()
        if self._helper:
            self._helper.kill()
            self._helper.wait()
        self._helper = self._control = None

    def extract(self, file: IO[bytes], options: ExtractOptions, stills_px: int = 0) -> Extraction:
        """Extract one video in a fresh child.

        Args:
            file: the open video; only its descriptor is handed on.
            options: as for `extract_clips`; detector and linking must be those of this sandbox.
            stills_px: as for `extract_clips`.

        Returns:
            The child's extraction, or facts with the reason why there is none. Nothing is raised for
            anything that a video can do.

        Raises:
            SandboxError: `options.limits.require_walls`, and a wall is missing or does not hold.
        """
        return self._answer(file, Request(options, stills_px))

    def preview(self, file: IO[bytes], options: ExtractOptions) -> Extraction:
        """A small film of one video, as `detector.preview` makes it, in a fresh child; else as `extract`."""
        return self._answer(file, Request(options, film=True))

    def _answer(self, file: IO[bytes], request: Request) -> Extraction:
        options = request.options
        if options.limits.require_walls and not self.isolation.complete:
            raise SandboxError(
                f"decoding here is held in by {self.isolation.in_words()}",
                hint=f"{NEEDS} Without require_sandbox, what there is is used.",
            )
        cpu_s, peak, died, self._closed = 0.0, 0, False, False
        for _ in range(_TRIES):
            extraction, died = self._try(file, request)
            cpu_s, peak = cpu_s + extraction.cpu_s, max(peak, extraction.peak_bytes)
            if not died or self._closed:
                break
        facts = extraction.facts
        if died:
            facts = replace(facts, message=f"{facts.message}, also in a second try")
        return replace(extraction, facts=facts, cpu_s=cpu_s, peak_bytes=peak)

    def _try(self, file: IO[bytes], request: Request) -> tuple[Extraction, bool]:
        """The extraction of one child, and whether the child died of it."""
        try:
            control = self._ready()
        except DeepfakeScanError as error:
            return _failed(Reason.DECODER_CRASH, error.message), True
        buffer = os.memfd_create("deepfake-scan", os.MFD_CLOEXEC)
        try:
            limits, shows = request.options.limits, request.stills_px or request.film
            os.ftruncate(buffer, CLIPS_AT + limits.max_clip_bytes + (STILLS_BYTES if shows else 0))
            outcome = _run(control, file, request, buffer)
            if outcome is None:
                self._end()
                return _failed(Reason.DECODER_CRASH, "the helper of the decoding process died"), True
            failure = _failure(outcome, limits)
            if failure:
                return _failed(*failure, outcome), True
            extraction = _read(buffer, request.options, outcome)
            return extraction, extraction.facts.failure in _DIED
        finally:
            os.close(buffer)

    def _ready(self) -> socket.socket:
        """The socket of a helper that lives: one that died between two videos is not the next one's fault."""
        if self._helper is not None and self._helper.poll() is not None:
            self._end()
        return self._control or self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).resolve().parent.parent)
        words = self._tools + (["faults"] if os.environ.get(TEST_FAULTS) else [])
        words += [f"lacking:{lacking}"] if (lacking := os.environ.get(TEST_LACKING)) else []
        self._helper = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, root, str(theirs.fileno()), *words],
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        ours.settimeout(_START_S)
        try:
            self.isolation = msgspec.json.decode(_receive(ours), type=Isolation)
        except msgspec.DecodeError:
            ours.close()
            self._end()
            raise DeepfakeScanError(
                "the helper of the decoding process did not start",
                hint="Its own message stands above; `deepfake-scan doctor` checks what it needs.",
            ) from None
        self._control = ours
        return ours


_DIED = (Reason.DECODER_CRASH, Reason.DECODE_MEMORY)


def _run(control: socket.socket, file: IO[bytes], request: Request, buffer: int) -> Outcome | None:
    """Send one request and wait for its outcome; None if the helper is gone."""
    control.settimeout(request.options.limits.wall_s + _GRACE_S)
    try:
        socket.send_fds(control, [msgspec.json.encode(request)], [file.fileno(), buffer])
        return msgspec.json.decode(_receive(control), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None


def _receive(control: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError, TimeoutError):
        return control.recv(1 << 16)
    return b""


def _failure(outcome: Outcome, limits: Limits) -> tuple[Reason, str] | None:
    """Why a child that did not end by itself failed."""
    if outcome.killed_after_s is not None:
        return Reason.DECODE_TIMEOUT, f"decoding was stopped after {outcome.killed_after_s:.0f} s"
    if outcome.signal == signal.SIGXCPU:
        within, doing = limits.cpu_s, "decoding"
        if outcome.cpu_s < (limits.opening_cpu_s + limits.cpu_s) / 2:
            within, doing = limits.opening_cpu_s, "opening the file"
        return Reason.DECODE_TIMEOUT, f"{doing} was stopped after {within} s of CPU time"
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
        if not 0 < length <= CLIPS_AT - JSON_AT:
            return _failed(Reason.DECODER_CRASH, "the decoding process returned no answer", outcome)
        try:
            envelope = msgspec.json.decode(memory[JSON_AT : JSON_AT + length], type=Envelope)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _failed(Reason.DECODER_CRASH, "the decoding process returned garbage", outcome)
        counts = np.asarray(envelope.clip_frames, np.int64)
        clips = [track.clip for track in envelope.facts.tracks if track.clip is not None]
        shapes = {
            "clips": (len(counts), frames, size, size, 3),
            "stills": (len(envelope.stills_s), *envelope.stills_size, 3),
        }
        nbytes = {name: math.prod(shape) for name, shape in shapes.items()}
        in_order = clips == list(range(len(counts))) and _within(counts, 1, frames)
        if not in_order or nbytes["clips"] > options.limits.max_clip_bytes or nbytes["stills"] > STILLS_BYTES:
            return _failed(
                Reason.DECODER_CRASH, "the decoding process returned clips that do not fit", outcome
            )
        stills_at = CLIPS_AT + nbytes["clips"]
        pixels = np.frombuffer(memory[CLIPS_AT:stills_at], np.uint8).reshape(shapes["clips"])
        stills = np.frombuffer(memory[stills_at : stills_at + nbytes["stills"]], np.uint8)
        film = memory[CLIPS_AT : CLIPS_AT + envelope.film_bytes]
    mask = np.arange(frames) < counts[:, None]
    return Extraction(
        envelope.facts,
        Clips(pixels, mask),
        outcome.cpu_s,
        outcome.peak_bytes,
        Stills(tuple(envelope.stills_s), stills.reshape(shapes["stills"])),
        film,
    )


def _within(counts: np.ndarray[tuple[int], np.dtype[np.int64]], low: int, high: int) -> bool:
    return bool(np.all((counts >= low) & (counts <= high)))


def _failed(reason: Reason, message: str, outcome: Outcome | None = None) -> Extraction:
    failed = Extraction.failed(reason, message)
    return replace(failed, cpu_s=outcome.cpu_s, peak_bytes=outcome.peak_bytes) if outcome else failed
