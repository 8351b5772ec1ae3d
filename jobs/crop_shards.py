"""Videos become crops on disk, once: tars of JPEGs, each with an index beside it, by the scan's own code.

A shard is whole when its index is there, which is written last; a run that was stopped goes on behind the
last whole shard. What is cut is wider than what inference cuts by `REACH`, so that training can vary the
margin; the index says which crops belong to a clip, and why a video gave none.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from detector.degrade import jpeg_bytes
from detector.errors import InputError, SettingsError, StorageError
from detector.types import CropSpec, ExtractOptions, Facts, Limits, Reason, Sampling
from detector.weights import Input
from jobs.columns import video_id
from jobs.config import ScanSettings
from jobs.files import write_whole
from jobs.listing import Listing
from jobs.plan import PLAN
from jobs.runner import open_extractor

REACH = 1.25
"""Side of what is stored over the side of what inference cuts."""
_STORED_PX = 256
_JPEG_QUALITY = 95
_VIDEOS_PER_SHARD = 50
_SHARD_S = 120.0
_WAVE = 500


@dataclass(frozen=True, slots=True)
class VideoCrops:
    """What one video gave; `clips` are members of the tar, in the order of time."""

    uri: str
    version: str
    reason: str | None = None
    message: str = ""
    info: dict[str, Any] | None = None
    clips: list[list[str]] = field(default_factory=list)
    tar: str = ""


def extract_options(
    settings: ScanSettings, inference: Input, windows: int, min_face_px: int
) -> ExtractOptions:
    """How videos are cut for training: as inference would, but wider, and only the largest face of a window.

    In a video with several people nothing says which of them its label is about.
    """
    return ExtractOptions(
        sampling=Sampling(frames=inference.frames, spacing_s=inference.spacing_s, windows=windows),
        crop=CropSpec(size=_STORED_PX, scale=inference.scale * REACH, shift_y=inference.shift_y / REACH),
        min_face_px=min_face_px,
        max_tracks_per_window=1,
        limits=Limits(wall_s=settings.video_time_limit_s, memory_bytes=settings.video_memory_mib << 20),
    )


def cut(
    uris: Sequence[str], settings: ScanSettings, options: ExtractOptions, folder: Path
) -> Iterator[VideoCrops]:
    """The crops of videos, from whole shards where they hold them; what is new is cut and stored first.

    Args:
        uris: Local paths.
        settings: Where and in how many processes.
        options: From `extract_options`; other options than those of the folder are refused.
        folder: For the shards.

    Raises:
        SettingsError: The folder holds crops that were cut with other options.
        ClusterError: Ray cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _same_options(folder / "options.json", options)
    known = {(crops.uri, crops.version): crops for crops in _stored(folder)}
    plan, missing = plan_of(uris)
    yield from missing
    new = []
    for row in plan.to_pylist():
        held = known.get((row["uri"], row["version"]))
        if held is None:
            new.append(row)
        else:
            yield held
    if new:
        yield from _cut(pa.Table.from_pylist(new, PLAN), settings, options, folder)


def plan_of(uris: Iterable[str]) -> tuple[pa.Table, list[VideoCrops]]:
    """Rows of a plan for the files that are there, and what is to be said of the others."""
    rows, missing = [], []
    for uri in dict.fromkeys(uris):
        try:
            listed = next(iter(Listing([uri])))
        except InputError as error:
            missing.append(VideoCrops(uri, "", Reason.NOT_FOUND, error.message))
            continue
        rows.append(asdict(listed) | {"video_id": video_id(listed.uri, listed.version), "attempt": 1})
    return pa.Table.from_pylist(rows, PLAN), missing


def extracted(
    plan: pa.Table, settings: ScanSettings, options: ExtractOptions
) -> Iterator[dict[str, Any] | VideoCrops]:
    """A row of `stages.EXTRACTED` for each video of a plan, once; what a dying worker took along comes last.

    Raises:
        ClusterError: Ray cannot be reached.
        StorageError: the videos cannot be read any more.
    """
    left = {row["uri"]: row["version"] for row in plan.to_pylist()}
    with open_extractor(settings, options) as extractor:
        for start in range(0, len(plan), _WAVE):
            for batch in extractor.extracted(plan.slice(start, _WAVE)):
                rows = batch.to_pylist()
                if stops := [row["stop"] for row in rows if row["stop"] is not None]:
                    raise StorageError(stops[0])
                yield from (row for row in rows if left.pop(row["uri"], None) is not None)
    for uri, version in left.items():
        yield VideoCrops(uri, version, Reason.LOST, "its worker died; it is tried again by the next run")


def video_info(row: dict[str, Any], facts: Facts) -> dict[str, Any] | None:
    """What `audit.container_facts` wants to know of a video, None where it could not be opened."""
    return asdict(facts.info) | {"size": row["size"]} if facts.info else None


def _cut(
    plan: pa.Table, settings: ScanSettings, options: ExtractOptions, folder: Path
) -> Iterator[VideoCrops]:
    shard = _Shard(folder)
    for row in extracted(plan, settings, options):
        if isinstance(row, VideoCrops):
            yield row
            continue
        shard.add(row)
        if shard.is_full:
            yield from shard.close()
            shard = _Shard(folder)
    yield from shard.close()


class _Shard:
    """One tar and its index on their way to disk."""

    def __init__(self, folder: Path) -> None:
        number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.jsonl")), default=0)
        self._path = folder / f"{number:06d}.tar"
        self._tar: tarfile.TarFile | None = None
        self._videos: list[VideoCrops] = []
        self._began = time.monotonic()

    @property
    def is_full(self) -> bool:
        """Whether it is time to close it: so much work would be lost at most."""
        late = time.monotonic() - self._began > _SHARD_S
        return len(self._videos) >= _VIDEOS_PER_SHARD or (late and bool(self._videos))

    def add(self, row: dict[str, Any]) -> None:
        """Store the clips of a row of `stages.EXTRACTED`."""
        facts = msgspec.json.decode(row["facts"], type=Facts)
        pixels = np.frombuffer(row["clips"], np.uint8).reshape(row["clip_size"])
        clips = []
        for number, (clip, frames) in enumerate(zip(pixels, row["clip_frames"], strict=True)):
            names = [f"{row['video_id']}/{number:03d}-{frame:03d}.jpg" for frame in range(frames)]
            for name, crop in zip(names, clip, strict=False):
                self._store(name, crop)
            clips.append(names)
        self._videos.append(
            VideoCrops(
                uri=row["uri"],
                version=row["version"],
                reason=facts.failure,
                message=facts.message,
                info=video_info(row, facts),
                clips=clips,
                tar=str(self._path),
            )
        )

    def close(self) -> list[VideoCrops]:
        """Put both files in place, the index last."""
        if not self._videos:
            return []
        if self._tar is not None:
            self._tar.close()
            Path(f"{self._path}.part").replace(self._path)
        index = self._path.with_suffix(".jsonl")
        lines = "".join(
            json.dumps(asdict(replace(video, tar=self._path.name))) + "\n" for video in self._videos
        )
        write_whole(index, lines)
        return self._videos

    def _store(self, name: str, crop: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        if self._tar is None:
            self._tar = tarfile.open(f"{self._path}.part", "w")  # noqa: SIM115  # closed in close()
        data = jpeg_bytes(crop, _JPEG_QUALITY)
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))


def _stored(folder: Path) -> Iterator[VideoCrops]:
    """What whole shards hold; failures that may pass are left out, so that they are tried again."""
    for index in sorted(folder.glob("[0-9]*.jsonl")):
        for line in index.read_text().splitlines():
            crops = VideoCrops(**json.loads(line))
            if crops.reason is None or not Reason(crops.reason).retryable:
                yield replace(crops, tar=str(folder / crops.tar))


def _same_options(path: Path, options: ExtractOptions) -> None:
    text = json.dumps(asdict(options), indent=2, sort_keys=True)
    if not path.exists():
        write_whole(path, text)
    elif path.read_text() != text:
        raise SettingsError(
            f"{path.parent} holds crops that were cut with other settings",
            hint="Give another output, or delete that folder to cut them again.",
        )
