"""Stand-ins for `Extract` that open no video: what a video does is told by its name.

Kill and race tests test the job and its table, so they need many rows, not decoding. Ray's workers import
these classes from here.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from detector.confinement import Isolation
from detector.types import Clips, Extraction, ExtractOptions, Facts, TimedBox, Track, VideoInfo
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


class Placed(Slow):
    """Tells in `integrity` on which node it worked; its clips are as large as those of a real video."""

    frames = 224

    def rows(self, planned: dict[str, Any]) -> list[dict[str, Any]]:
        import ray

        [row] = super().rows(planned)
        return [row | {"integrity": ray.get_runtime_context().get_node_id()}]


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


class NoSandbox:
    """In place of the process that would decode."""

    isolation = Isolation(0, False, [])

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def close(self) -> None:
        pass


class Counted(Extract):
    """Fetches as `Extract` does, and notes each video before that in the file `$CALLED`: uri, tab, version.

    Takes `$PACE_S` seconds longer for each, and halts at number `$HOLD_AT` until `$CALLED.go` is there. The
    program that uses it puts `NoSandbox` and `decoded` in the place of what decodes.
    """

    number = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        called, held = os.environ["CALLED"], int(os.environ.get("HOLD_AT", "0"))
        for planned in batch.to_pylist():
            self.number += 1
            with Path(called).open("a", encoding="utf-8") as notes:
                notes.write(f"{planned['uri']}\t{planned['version']}\n")
            time.sleep(float(os.environ.get("PACE_S", "0")))
            given_up = time.monotonic() + 300
            while self.number == held and not Path(f"{called}.go").exists():
                if time.monotonic() > given_up:
                    raise TimeoutError(f"nobody made {called}.go")
                time.sleep(0.02)
        return super().__call__(batch)


def decoded(file: BinaryIO, options: ExtractOptions, _: object) -> Extraction:
    """One short clip of noise, the same for the same content."""
    seed = int.from_bytes(hashlib.sha256(file.read()).digest()[:8], "big")
    size = options.crop.size
    pixels = np.random.default_rng(seed).integers(0, 256, (1, Canned.frames, size, size, 3), np.uint8)
    return Extraction(_FACTS, Clips(pixels, np.ones((1, Canned.frames), np.bool_)))


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
