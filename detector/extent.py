"""How far the pictures of an open file reach, whatever its header says, and whether there is a hole."""

from __future__ import annotations

import os
from typing import IO, Any

from detector.decoder import Decoder
from detector.transport import another_follows

MP4, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "avi"
# Those whose index lists every picture, and those of which the end is found by a seek.
_LISTED, _SOUGHT = (MP4, AVI), ("matroska,webm", "asf")
# In the head of a Matroska file: its index. Without one, a seek to the end reads all of the file.
_CUES, _HEAD = b"\x1c\x53\xbb\x6b", 1 << 16
# Pictures in the index that are looked at for zeros, and bytes of each.
_PROBES, _PROBE = 100, 16


def last_s(file: IO[bytes], container: Any, decoder: Decoder) -> float:
    """When the last packet of the stream comes, without reading all of them; 0 where there is no way."""
    name = container.format.name
    if name in _LISTED:
        return decoder.end_by_index_s()
    if name in _SOUGHT and (name != _SOUGHT[0] or _CUES in _peeped(file, 0, _HEAD)):
        return decoder.end_by_seeking_s()
    return 0.0


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
    """Bytes of a file that FFmpeg goes on reading where it was."""
    here, size = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(min(max(0, place), size))
    data = file.read(length)
    file.seek(here)
    return data
