"""Does a file end where its container says? Truncation is told by sizes: FFmpeg notices it seldom, or never.

Only headers are read, by seeking from one to the next. Sources: ISO/IEC 14496-12 (boxes), RFC 8794 and RFC
9559 (EBML, Matroska), Microsoft's RIFF and OpenDML, Adobe's FLV 10.1, Microsoft's ASF 1.2, RFC 3533 (Ogg),
GIF89a, ISO/IEC 13818-1 (transport and program streams).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from detector.boxes import BOXES, MOST_PARTS, boxes_whole, read_at
from detector.matroska import EBML, matroska_whole
from detector.riff import riff_whole
from detector.transport import is_hollow, packet_size

_MOST_SUB_BLOCKS = 2_000_000
_SAMPLES, _PIECE = 400, 4096
"""Places that are looked at for zeros where pictures belong, and bytes of each."""
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FLV_VIDEO, _FLV_COMMAND, _FLV_EXTENDED = 9, 5, 0x80
_FLV_WITH_SETUP, _FLV_LEAST, _FLV_SIZE = (7, 12), 20, b"filesize\0"
_LEAP_BACK_S = 1.0
"""A clock that goes back by more than this has been started again."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk over the headers of a file shows.

    Attributes:
        whole: True if the file ends where its container says, False if a part is missing, else None.
        end_s: when the last picture comes by the container's clock, where the walk passes all of them.
        seekable: False where that clock starts again midway, or what a decoder has to know changes.
    """

    whole: bool | None
    end_s: float | None = None
    seekable: bool = True


def walked(file: IO[bytes]) -> Walk:
    """Walk over the file. Its position is put back to its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(1024)
    try:
        if head.startswith(b"FLV"):
            return _flv(file, size)
        walk = _walk_for(head)
        return Walk(None if walk is None else walk(file, size))
    finally:
        file.seek(0)


def is_whole(file: IO[bytes]) -> bool | None:
    """True if the file ends where its container says, False if it is cut short, None if it cannot be known.

    The position of `file` is put back to its start.
    """
    return walked(file).whole


def _walk_for(head: bytes) -> Callable[[IO[bytes], int], bool | None] | None:
    if head[4:8] in BOXES:
        return boxes_whole
    magics = (
        (EBML, matroska_whole),
        (b"RIFF", riff_whole),
        (_ASF, _asf),
        (b"OggS", _ogg),
        (b"GIF8", _gif),
    )
    for magic, walk in magics:
        if head.startswith(magic):
            return walk
    if head.startswith(b"\x00\x00\x01\xba"):
        return _program_stream
    return _packets if packet_size(head) else None


def _flv(file: IO[bytes], size: int) -> Walk:
    """Tags follow each other, each with its length behind it; of pictures, all are of one codec."""
    at = int.from_bytes(read_at(file, 5, 4), "big") + 4
    last_s = end_s = shift_s = 0.0
    told = _told_by_flv(read_at(file, 0, 1 << 12))
    codecs: set[bytes | int] = set()
    setups: set[bytes] = set()
    for _ in range(MOST_PARTS):
        if at == size:
            return Walk(told <= size and len(codecs) < 2, end_s, shift_s == 0 and len(setups) < 2)
        tag = read_at(file, at, 16)
        start, at = at, at + 11 + int.from_bytes(tag[1:4], "big") + 4
        if len(tag) < 15 or at > size:
            return Walk(False)
        coded = tag[11]
        pictures = tag[0] & 0x1F == _FLV_VIDEO and coded >> 4 & 7 != _FLV_COMMAND
        if pictures and at - start > _FLV_LEAST:
            codecs.add(tag[12:16] if coded & _FLV_EXTENDED else coded & 15)
            if _is_setup(tag[11:13]):
                setups.add(read_at(file, start + 11, min(at - start - 11, _PIECE)))
            time_s = int.from_bytes(tag[7:8] + tag[4:7], "big") / 1000
            if time_s < last_s - _LEAP_BACK_S:
                shift_s = end_s - time_s
            last_s, end_s = time_s, max(end_s, time_s + shift_s)
    return Walk(None)


def _told_by_flv(head: bytes) -> float:
    """Bytes of the file by its first tag: all that betrays a cut between tags. 0 where it is silent."""
    place = head.find(_FLV_SIZE)
    number = head[place + len(_FLV_SIZE) :][:8]
    return float(struct.unpack(">d", number)[0]) if place >= 0 and len(number) == 8 else 0.0


def _is_setup(start: bytes) -> bool:
    """Whether video data that starts so is what a decoder of H.264 and its successors has to know first."""
    if start[0] & _FLV_EXTENDED:
        return start[0] & 15 == 0
    return start[0] & 15 in _FLV_WITH_SETUP and start[1:] == b"\0"


def _asf(file: IO[bytes], size: int) -> bool | None:
    """The header says how long the file is, but where it was broadcast; packets are all of one length."""
    header = read_at(file, 0, 1 << 16)
    at = header.find(_ASF_FILE)
    if at < 0 or len(header) < at + 96:
        return None
    told, packets = (int.from_bytes(header[at + n : at + n + 8], "little") for n in (40, 56))
    start, length = (int.from_bytes(header[n : n + m], "little") for n, m in ((16, 8), (at + 92, 4)))
    broadcast = header[at + 88] & 1
    if broadcast or not told:
        return None
    step = max(1, packets // _SAMPLES)
    places = (start + 50 + length * i for i in range(0, packets, step)) if length else ()
    # No packet starts with so many zeros: the number of its stream stands there.
    return told <= size and not any(_is_zero(read_at(file, place, 16)) for place in places if place < size)


def _ogg(file: IO[bytes], size: int) -> bool | None:
    """Pages follow each other; the last one of a stream says so."""
    at, last = 0, False
    for _ in range(MOST_PARTS):
        if at == size:
            return last or None
        header = read_at(file, at, 27 + 255)
        if len(header) < 27 or header[:4] != b"OggS":
            return False
        segments = header[26]
        at += 27 + segments + sum(header[27 : 27 + segments])
        last = bool(header[5] & 4)
        if at > size:
            return False
    return None


def _gif(file: IO[bytes], _: int) -> bool | None:
    """Blocks follow each other up to the trailer, each of a chain of pieces."""
    at = 13 + _colour_table(read_at(file, 10, 1))
    for _ in range(MOST_PARTS):
        block = read_at(file, at, 10)
        if block[:1] == b";":
            return True
        if block[:1] == b"!":
            at += 2
        elif block[:1] == b"," and len(block) == 10:
            at += 11 + _colour_table(block[9:])
        else:
            return False
        file.seek(at)
        for _ in range(_MOST_SUB_BLOCKS):
            piece = file.read(1)
            if not piece:
                return False
            if not piece[0]:
                break
            file.seek(piece[0], os.SEEK_CUR)
        at = file.tell()
    return None


def _colour_table(flags: bytes) -> int:
    """Bytes of the table of colours that these flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _program_stream(file: IO[bytes], size: int) -> bool | None:
    """One that ends with its end code is whole; many never had one."""
    step = max(_PIECE, size // _SAMPLES)
    if any(_is_zero(read_at(file, place, _PIECE)) for place in range(0, size - _PIECE + 1, step)):
        return False
    return True if read_at(file, max(0, size - 4), 4) == b"\x00\x00\x01\xb9" else None


def _packets(file: IO[bytes], size: int) -> bool | None:
    """A transport stream carries no size: only a packet that is cut in two, or a hole, gives it away."""
    packet = packet_size(read_at(file, 0, 1024))
    return None if packet and size % packet == 0 and not is_hollow(file, size, packet) else False


def _is_zero(data: bytes) -> bool:
    return bool(data) and not any(data)
