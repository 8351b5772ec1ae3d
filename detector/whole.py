"""Does a file end where its container says? Truncation is told by sizes: FFmpeg notices it seldom, or never.

Only headers are read, by seeking from one to the next. Sources: ISO/IEC 14496-12 (boxes), RFC 8794 and RFC
9559 (EBML, Matroska), Microsoft's RIFF and OpenDML, Adobe's FLV 10.1, Microsoft's ASF 1.2, RFC 3533 (Ogg),
GIF89a, ISO/IEC 13818-1 (transport and program streams).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO

_MOST_PARTS = 200_000
"""Boxes, tags or pages that are looked at; of a file with more it is not known."""
BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")
"""What an ISO base media file may begin with."""
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", 0x18538067
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_SYNC = 0x47
_PACKETS = (188, 192, 204)


def is_whole(file: IO[bytes]) -> bool | None:
    """True if the file ends where its container says, False if it is cut short, None if it cannot be known.

    The position of `file` is put back to its start.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(1024)
    try:
        walk = _walk_for(head)
        return None if walk is None else walk(file, size)
    finally:
        file.seek(0)


def _walk_for(head: bytes) -> Callable[[IO[bytes], int], bool | None] | None:
    if head[4:8] in BOXES:
        return _boxes
    magics = (
        (_EBML, _matroska),
        (b"RIFF", _riff),
        (b"FLV", _flv),
        (_ASF, _asf),
        (b"OggS", _ogg),
        (b"GIF8", _gif),
    )
    for magic, walk in magics:
        if head.startswith(magic):
            return walk
    if head.startswith(b"\x00\x00\x01\xba"):
        return _program_stream
    return _packets if _packet_size(head) else None


def top_boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of the boxes of an ISO base media file; length 0: up to the end, wherever it is.

    Ends behind the file, where the last one says that it ends, or at what is no box.
    """
    at, size = 0, file.seek(0, os.SEEK_END)
    for _ in range(_MOST_PARTS):
        header = _at(file, min(at, size), 16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if len(header) < 8 or 0 < length < 8:
            return
        yield header[4:8], at, length
        if not length:
            return
        at += length


def _boxes(file: IO[bytes], size: int) -> bool | None:
    """ISO base media: boxes follow each other up to the end, among them an index and pictures.

    Of a file in fragments any number may be missing at the end, unless their own index closes it.
    """
    end, kinds = 0, []
    for kind, at, length in top_boxes(file):
        kinds.append(kind)
        end = at + length
        if not length:
            return None if b"moov" in kinds else False
    if len(kinds) == _MOST_PARTS:
        return None
    if end != size or b"moov" not in kinds or not {b"mdat", b"moof"} & set(kinds):
        return False
    return _closed(kinds[-1]) if b"moof" in kinds else True


def _closed(last: bytes) -> bool | None:
    return {b"mfra": True, b"moof": False}.get(last)


def _matroska(file: IO[bytes], size: int) -> bool | None:
    """The segment says how long it is, but where it was written live."""
    at = 0
    for _ in range(_MOST_PARTS):
        header = _at(file, at, 12)
        identifier, id_length = _vint(header, keep_marker=True)
        length, length_length = _vint(header[id_length:], keep_marker=False)
        if not id_length or not length_length:
            return False
        if length is None:
            return None
        at += id_length + length_length + length
        if identifier == _SEGMENT:
            return at <= size
        if at >= size:
            return False
    return None


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
    """Chunks of RIFF follow each other up to the end; a large AVI has several."""
    at = 0
    for _ in range(_MOST_PARTS):
        header = _at(file, at, 8)
        if header[:4] != b"RIFF":  # what stands behind the last one is nobody's
            return at > 0
        length = int.from_bytes(header[4:8], "little")
        if length == 0 and at == 0:
            return None  # never closed: written to a pipe, or the writer died
        at += 8 + length + length % 2
        if at - length % 2 > size:
            return False
        if at >= size:
            return True
    return None


def _flv(file: IO[bytes], size: int) -> bool | None:
    """Tags follow each other, each with its length behind it."""
    at = int.from_bytes(_at(file, 5, 4), "big") + 4
    for _ in range(_MOST_PARTS):
        if at == size:
            return True
        header = _at(file, at, 4)
        at += 11 + int.from_bytes(header[1:4], "big") + 4
        if len(header) < 4 or at > size:
            return False
    return None


def _asf(file: IO[bytes], size: int) -> bool | None:
    """The header says how long the file is, but where it was broadcast."""
    header = _at(file, 0, 1 << 16)
    at = header.find(_ASF_FILE)
    if at < 0 or len(header) < at + 92:
        return None
    told = int.from_bytes(header[at + 40 : at + 48], "little")
    broadcast = header[at + 88] & 1
    return None if broadcast or not told else told <= size


def _ogg(file: IO[bytes], size: int) -> bool | None:
    """Pages follow each other; the last one of a stream says so."""
    at, last = 0, False
    for _ in range(_MOST_PARTS):
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


def _gif(file: IO[bytes], size: int) -> bool:
    return b"\x3b" in _at(file, max(0, size - 16), 16)


def _program_stream(file: IO[bytes], size: int) -> bool | None:
    """One that ends with its end code is whole; many never had one."""
    return True if _at(file, max(0, size - 4), 4) == b"\x00\x00\x01\xb9" else None


def _packets(file: IO[bytes], size: int) -> bool | None:
    """A transport stream carries no size: only a packet that is cut in two gives it away."""
    packet = _packet_size(_at(file, 0, 1024))
    return None if packet and size % packet == 0 else False


def _packet_size(head: bytes) -> int:
    for packet in _PACKETS:
        first = 4 if packet == 192 else 0
        places = range(first, len(head), packet)
        if len(places) > 1 and all(head[place] == _SYNC for place in places):
            return packet
    return 0


def _at(file: IO[bytes], at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)
