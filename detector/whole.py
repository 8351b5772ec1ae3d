"""Does a file end where its container says? Truncation is told by sizes: FFmpeg notices it seldom, or never.

Only headers are read, by seeking from one to the next. Sources: ISO/IEC 14496-12 (boxes), RFC 8794 and RFC
9559 (EBML, Matroska), Microsoft's RIFF and OpenDML, Adobe's FLV 10.1, Microsoft's ASF 1.2, RFC 3533 (Ogg),
GIF89a, ISO/IEC 13818-1 (transport and program streams).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from detector.boxes import BOXES, MOST_PARTS, boxes_whole
from detector.transport import is_hollow, packet_size

_MOST_CHECKED = 20_000
"""Of blocks and chunks, those that are checked for damage in between; more would cost more than decoding."""
_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", 0x18538067, 0x1F43B675
_LONGEST_ID = 4
_CHUNK = re.compile(rb"[0-9]{2}[a-z]{2}|[A-Za-z_][A-Za-z0-9_ ]{3}")
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
        (_EBML, _matroska),
        (b"RIFF", _riff),
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


def _matroska(file: IO[bytes], size: int) -> bool | None:
    """The segment says how long it is, but where it was written live, and is full of elements."""
    at = 0
    for _ in range(MOST_PARTS):
        header = _at(file, at, 12)
        identifier, id_length = _vint(header, keep_marker=True)
        length, length_length = _vint(header[id_length:], keep_marker=False)
        if not id_length or not length_length:
            return False
        if length is None:
            return None
        start = at + id_length + length_length
        at = start + length
        if identifier == _SEGMENT:
            return at <= size and _elements_follow(file, start, at)
        if at >= size:
            return False
    return None


def _elements_follow(file: IO[bytes], at: int, end: int) -> bool:
    """Elements of a segment, and in its clusters, follow each other up to the end of what holds them."""
    until = end
    for _ in range(_MOST_CHECKED):
        if at == until:
            until = end
        if at == end:
            return True
        header = _at(file, at, 12)
        identifier, id_length = _vint(header, keep_marker=True)
        length, length_length = _vint(header[id_length:], keep_marker=False)
        if not 0 < id_length <= _LONGEST_ID or not length_length:
            return False
        if length is None:  # a cluster that was written live ends where the next one begins
            return identifier == _CLUSTER
        at += id_length + length_length
        if identifier == _CLUSTER and until == end:
            until = at + length
        else:
            at += length
        if not at <= until <= end:
            return False
    return True


def _vint(data: bytes, *, keep_marker: bool) -> tuple[int | None, int]:
    """A number of variable length and its length in bytes, 0 if it is none; None where all bits are set."""
    if not data or not data[0]:
        return None, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return None, 0
    value = int.from_bytes(data[:length], "big")
    if keep_marker:
        return value, length
    value &= (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), length


def _riff(file: IO[bytes], size: int) -> bool | None:
    """Parts called RIFF follow each other up to the end, and are full of chunks; a large AVI has several."""
    at = 0
    for _ in range(MOST_PARTS):
        header = _at(file, at, 8)
        if header[:4] != b"RIFF":  # what stands behind the last one is nobody's
            return at > 0
        length = int.from_bytes(header[4:8], "little")
        if length == 0 and at == 0:
            return None  # never closed: written to a pipe, or the writer died
        start, at = at + 12, at + 8 + length + length % 2
        if at - length % 2 > size or not _chunks_follow(file, start, at - length % 2):
            return False
        if at >= size:
            return True
    return None


def _chunks_follow(file: IO[bytes], at: int, end: int) -> bool:
    """Chunks, and those in the list of pictures, follow each other up to the end of what holds them."""
    until = end
    for _ in range(_MOST_CHECKED):
        if until - at < 2:
            at, until = until, end
        if end - at < 2:
            return True
        header = _at(file, at, 12)
        if header[:1] == b"\0":  # after an odd length most writers put one of these
            header, at = _at(file, at + 1, 12), at + 1
        if not _CHUNK.match(header):
            return False
        length = int.from_bytes(header[4:8], "little")
        if header[:4] == b"LIST" and header[8:] == b"movi":
            at, until = at + 12, at + 8 + length
        else:
            at += 8 + length
        if not at <= until <= end:
            return False
    return True


def _flv(file: IO[bytes], size: int) -> Walk:
    """Tags follow each other, each with its length behind it; of pictures, all are of one codec."""
    at = int.from_bytes(_at(file, 5, 4), "big") + 4
    last_s = end_s = shift_s = 0.0
    told = _told_by_flv(_at(file, 0, 1 << 12))
    codecs: set[bytes | int] = set()
    setups: set[bytes] = set()
    for _ in range(MOST_PARTS):
        if at == size:
            return Walk(told <= size and len(codecs) < 2, end_s, shift_s == 0 and len(setups) < 2)
        tag = _at(file, at, 16)
        start, at = at, at + 11 + int.from_bytes(tag[1:4], "big") + 4
        if len(tag) < 15 or at > size:
            return Walk(False)
        coded = tag[11]
        pictures = tag[0] & 0x1F == _FLV_VIDEO and coded >> 4 & 7 != _FLV_COMMAND
        if pictures and at - start > _FLV_LEAST:
            codecs.add(tag[12:16] if coded & _FLV_EXTENDED else coded & 15)
            if _is_setup(tag[11:13]):
                setups.add(_at(file, start + 11, min(at - start - 11, _PIECE)))
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
    header = _at(file, 0, 1 << 16)
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
    return told <= size and not any(_is_zero(_at(file, place, 16)) for place in places if place < size)


def _ogg(file: IO[bytes], size: int) -> bool | None:
    """Pages follow each other; the last one of a stream says so."""
    at, last = 0, False
    for _ in range(MOST_PARTS):
        if at == size:
            return last or None
        header = _at(file, at, 27 + 255)
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
    at = 13 + _colour_table(_at(file, 10, 1))
    for _ in range(MOST_PARTS):
        block = _at(file, at, 10)
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
    if any(_is_zero(_at(file, place, _PIECE)) for place in range(0, size - _PIECE + 1, step)):
        return False
    return True if _at(file, max(0, size - 4), 4) == b"\x00\x00\x01\xb9" else None


def _packets(file: IO[bytes], size: int) -> bool | None:
    """A transport stream carries no size: only a packet that is cut in two, or a hole, gives it away."""
    packet = packet_size(_at(file, 0, 1024))
    return None if packet and size % packet == 0 and not is_hollow(file, size, packet) else False


def _is_zero(data: bytes) -> bool:
    return bool(data) and not any(data)


def _at(file: IO[bytes], at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)
