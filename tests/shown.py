"""What the extraction of a video is shown: decoded once more, in a process that may die over it."""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar
from unittest.mock import patch

import msgspec

from detector.extraction import extract_clips
from detector.faces import Look
from detector.types import ExtractOptions, Limits, Window
from detector.video import SampledFrame, Video


class Shown(msgspec.Struct, frozen=True):
    """What the pass over a video was shown: times in s, digests of the pictures as displayed."""

    times_s: tuple[float, ...] = ()
    pictures: tuple[str, ...] = ()
    decoded: int = 0
    corrupt: int = 0


class _Watched(Video):
    """Notes what is sampled; a second plan begins anew, as the extraction does."""

    noted: ClassVar[list[tuple[float, str]]] = []
    last: ClassVar[Video | None] = None

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        super().__init__(file, limits)
        _Watched.last = self

    def sample(self, windows: list[Window], *, consecutive: bool = False) -> Iterator[list[SampledFrame]]:
        for frames in super().sample(windows, consecutive=consecutive):
            for frame in frames:
                pixels = frame.picture.whole()
                digest = hashlib.blake2b(pixels.tobytes(), digest_size=12, key=repr(pixels.shape).encode())
                self.noted.append((round(frame.t_s, 4), digest.hexdigest()))
            yield frames

    def again(self) -> None:
        super().again()
        self.noted.clear()


def shown_by(path: Path, options: ExtractOptions) -> Shown:
    """What the extraction of a file is shown, found in a process that may die over it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            signal.alarm(int(2 * options.limits.wall_s))
            gc.freeze()
            with os.fdopen(writing, "wb") as answer:
                answer.write(msgspec.json.encode(_shown(path, options)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return msgspec.json.decode(text, type=Shown) if text else Shown()


def _shown(path: Path, options: ExtractOptions) -> Shown:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + options.limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with (
        path.open("rb") as file,
        patch("detector.extraction.Video", _Watched),
        patch("detector.extraction.find_faces", lambda pictures, *_, **__: [[] for _ in pictures]),
    ):
        extract_clips(file, options, Look(lambda rgb, full: []))
    times, pictures = zip(*_Watched.noted, strict=True) if _Watched.noted else ((), ())
    video = _Watched.last
    return Shown(times, pictures, video.frames_decoded if video else 0, video.frames_corrupt if video else 0)
