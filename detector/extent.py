"""How far the pictures of an open file reach, whatever its header says, and whether there is a hole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from detector.boxes import read_at
from detector.decoder import Decoder
from detector.matroska import last_block_s
from detector.riff import pictures
from detector.transport import another_follows

MP4, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "avi"
# Those whose index lists every picture, and those of which the end is found by a seek.
_LISTED, _SOUGHT = (MP4, AVI), ("matroska,webm", "asf")
# In the head of a Matroska file: its index. Without one, a seek to the end reads all of the file.
_CUES, _HEAD = b"\x1c\x53\xbb\x6b", 1 << 16
# What an AVI may hold behind the last picture that its index lists: sound, and the index itself.
_BEHIND = 0.05
# Pictures in the index that are looked at for zeros, and bytes of each.
_PROBES, _PROBE = 100, 16


def last_s(file: IO[bytes], container: Any, stream: Any, decoder: Decoder) -> float:
    """When the last packet of the stream comes, without reading all of them; 0 where there is no way."""
    name = container.format.name
    if name == AVI:
        return max(decoder.end_by_index_s(), _counted_s(file, stream))
    if name in _LISTED:
        return decoder.end_by_index_s()
    if name == _SOUGHT[0] and _CUES not in _peeped(file, 0, _HEAD):
        with _kept_in_place(file):
            return last_block_s(file) - decoder.start_s
    return decoder.end_by_seeking_s() if name in _SOUGHT else 0.0


def _counted_s(file: IO[bytes], stream: Any) -> float:
    """The end of an AVI by its chunks, where its index does not reach as far as the file; else 0."""
    with _kept_in_place(file):
        size, entries = file.seek(0, os.SEEK_END), stream.index_entries
        listed = entries[len(entries) - 1] if len(entries) else None
        reached = listed.pos + listed.size if listed else 0
        if reached > (1 - _BEHIND) * size or not stream.average_rate:
            return 0.0
        return float(pictures(file, stream.index) / stream.average_rate)


def is_hollow(file: IO[bytes], container: Any, stream: Any) -> bool:
    """Whether zeros stand where the index says that pictures are, as in a download that had a hole."""
    entries = stream.index_entries
    if container.format.name not in _LISTED:
        return False
    probed = [entries[i] for i in range(0, len(entries), max(1, len(entries) // _PROBES))]
    held = (_peeped(file, entry.pos, _PROBE) for entry in probed if entry.size >= _PROBE)
    return any(data and not any(data) for data in held)


def is_followed(file: IO[bytes], container: Any, decoder: Decoder) -> bool:
    """Whether the stream of a broadcast ends where another one begins that was not there at first."""
    if container.format.name != "mpegts":
        return False
    return another_follows(file, decoder.last_place, {stream.id for stream in container.streams})


def _peeped(file: IO[bytes], place: int, length: int) -> bytes:
    """Bytes of a file; none before it begins."""
    with _kept_in_place(file):
        return read_at(file, min(max(0, place), file.seek(0, os.SEEK_END)), length)


@contextmanager
def _kept_in_place(file: IO[bytes]) -> Iterator[None]:
    """FFmpeg goes on reading where it was."""
    here = file.tell()
    try:
        yield
    finally:
        file.seek(here)
