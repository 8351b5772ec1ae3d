"""Chunks of AVI (Microsoft's RIFF and OpenDML)."""

from __future__ import annotations

import os
import re
from typing import IO

from detector.boxes import MOST_CHECKED, MOST_PARTS, read_at

_CHUNK = re.compile(rb"[0-9]{2}[a-z]{2}|[A-Za-z_][A-Za-z0-9_ ]{3}")


def riff_whole(file: IO[bytes], size: int) -> bool | None:
    """Parts called RIFF follow each other up to the end, and are full of chunks; a large AVI has several."""
    at = 0
    for _ in range(MOST_PARTS):
        header = read_at(file, at, 8)
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
    for _ in range(MOST_CHECKED):
        if until - at < 2:
            at, until = until, end
        if end - at < 2:
            return True
        header = read_at(file, at, 12)
        if header[:1] == b"\0":  # after an odd length most writers put one of these
            header, at = read_at(file, at + 1, 12), at + 1
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


def pictures(file: IO[bytes], stream: int) -> int:
    """How many chunks of pictures of a stream there are, whatever header and index say, up to 200,000."""
    size, at, found = file.seek(0, os.SEEK_END), 0, 0
    kinds = f"{stream:02}dc".encode(), f"{stream:02}db".encode()
    for _ in range(MOST_PARTS):
        header = read_at(file, at, 12)
        if header[:1] == b"\0":
            header, at = read_at(file, at + 1, 12), at + 1
        if at >= size or not _CHUNK.match(header):
            break
        length = int.from_bytes(header[4:8], "little")
        found += header[:4] in kinds
        inside = header[:4] == b"RIFF" or (header[:4] == b"LIST" and header[8:] in (b"movi", b"rec "))
        at += 12 if inside else 8 + length
    return found
