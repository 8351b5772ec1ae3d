"""Stand-ins for `Extract` that open no video: what a video does is told by its name.

Kill and race tests test the job and its table, so they need many rows, not decoding. Ray's workers import
these classes from here.
"""

import hashlib
import os
import time
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from detector.types import ExtractOptions, Facts, TimedBox, Track, VideoInfo
from jobs.stages import EXTRACTED, Extract


class Canned(Extract):
    """One short clip of noise per video, the same for the same name. Starts no sandbox."""

    frames = 2

    def __init__(self, options: ExtractOptions, max_bytes: int, temp_bytes: int) -> None:
        self._size = options.crop.size

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [row for planned in batch.to_pylist() for row in self.rows(planned)]
        return pa.Table.from_pylist(rows, schema=EXTRACTED)

    def close(self) -> None:
        pass

    def rows(self, planned: dict[str, Any]) -> list[dict[str, Any]]:
        """What comes out for one video: one row, unless a subclass misbehaves."""
        size = self._size
        seed = int.from_bytes(hashlib.sha256(planned["uri"].encode()).digest()[:8], "big")
        clip = np.random.default_rng(seed).integers(0, 256, (1, self.frames, size, size, 3), np.uint8)
        return [
            planned
            | {
                "facts": msgspec.json.encode(_FACTS),
                "clips": clip.tobytes(),
                "clip_size": list(clip.shape),
                "clip_frames": [self.frames],
                "fetch_s": 0.0,
                "extract_cpu_s": 0.0,
            }
        ]


class Slow(Canned):
    """A tenth of a second per video, so that a signal or a reader comes in the middle."""

    def rows(self, planned: dict[str, Any]) -> list[dict[str, Any]]:
        time.sleep(0.1)
        return super().rows(planned)


class Clocked(Slow):
    """Tells in `integrity` which process worked, in `fetch_s` since when, in `extract_cpu_s` until when."""

    def rows(self, planned: dict[str, Any]) -> list[dict[str, Any]]:
        began = time.monotonic()
        [row] = super().rows(planned)
        return [row | {"integrity": str(os.getpid()), "fetch_s": began, "extract_cpu_s": time.monotonic()}]


class Forgetful(Canned):
    """Gives no row for `gone…`, none for `shy…` at the first attempt, and each `twice…` two times."""

    def __init__(self, options: ExtractOptions, max_bytes: int, temp_bytes: int) -> None:
        super().__init__(options, max_bytes, temp_bytes)
        self.seen: set[str] = set()

    def rows(self, planned: dict[str, Any]) -> list[dict[str, Any]]:
        name = planned["uri"].rpartition("/")[2]
        first = name not in self.seen
        self.seen.add(name)
        if name.startswith("gone") or (name.startswith("shy") and first):
            return []
        return super().rows(planned) * (2 if name.startswith("twice") else 1)


class Deadly(Canned):
    """Its process ends where a video's name starts with `kills`."""

    def rows(self, planned: dict[str, Any]) -> list[dict[str, Any]]:
        if planned["uri"].rpartition("/")[2].startswith("kills"):
            os._exit(1)
        return super().rows(planned)


_INFO = VideoInfo(duration_s=2.0, width=640, height=360, fps=25.0, codec="h264", container="mp4", rotation=0)
_TRACK = Track(
    track_id=0,
    person_id=0,
    window=0,
    start_s=0.5,
    end_s=0.6,
    face_px=120.0,
    quality=0.9,
    boxes=(TimedBox(0.5, 0.4, 0.4, 0.2, 0.2), TimedBox(0.6, 0.4, 0.4, 0.2, 0.2)),
    clip=0,
    reason=None,
)
_FACTS = Facts(info=_INFO, windows_planned=1, frames_decoded=Canned.frames, tracks=(_TRACK,))
