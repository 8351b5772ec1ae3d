"""Elements of Matroska and WebM (RFC 8794, RFC 9559)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from detector.boxes import MOST_CHECKED, MOST_PARTS, read_at

EBML = b"\x1a\x45\xdf\xa3"
"""What a file begins with."""
_SEGMENT, _INFO, _CLUSTER = 0x18538067, 0x1549A966, 0x1F43B675
_SCALE, _TIME, _GROUP, _BLOCKS = 0x2AD7B1, 0xE7, 0xA0, (0xA3, 0xA1)
_LONGEST_ID = 4
_USUAL_SCALE_NS = 1_000_000


def matroska_whole(file: IO[bytes], size: int) -> bool | None:
    """The segment says how long it is, but where it was written live, and is full of elements."""
    at = 0
    for _ in range(MOST_PARTS):
        header = read_at(file, at, 12)
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
    for _ in range(MOST_CHECKED):
        if at == until:
            until = end
        if at == end:
            return True
        header = read_at(file, at, 12)
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


def last_block_s(file: IO[bytes]) -> float:
    """When the last block of the last cluster that has a length comes, by the file's clock; 0 without one."""
    size = file.seek(0, os.SEEK_END)
    scale_ns, last = _USUAL_SCALE_NS, (0, 0)
    for identifier, start, end in _elements(file, 0, size, into=(_SEGMENT,)):
        if identifier == _INFO:
            scale_ns = _number(file, start, end, _SCALE) or scale_ns
        elif identifier == _CLUSTER:
            last = start, end
    start, end = last
    leap = 0
    for identifier, at, _ in _elements(file, start, end, into=(_GROUP,)):
        if identifier in _BLOCKS:
            _, track = _vint(read_at(file, at, 8), keep_marker=False)
            leap = max(leap, int.from_bytes(read_at(file, at + track, 2), "big", signed=True))
    return ((_number(file, start, end, _TIME) or 0) + leap) * scale_ns / 1e9


def _elements(file: IO[bytes], at: int, end: int, into: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of the content of elements, and of those within some; none behind a live one."""
    for _ in range(MOST_PARTS):
        header = read_at(file, at, 12)
        identifier, id_length = _vint(header, keep_marker=True)
        length, length_length = _vint(header[id_length:], keep_marker=False)
        if at >= end or identifier is None or length is None or id_length > _LONGEST_ID:
            return
        start = at + id_length + length_length
        yield identifier, start, min(start + length, end)
        at = start if identifier in into else start + length


def _number(file: IO[bytes], start: int, end: int, wanted: int) -> int | None:
    """The unsigned integer of a kind that stands in an element."""
    for identifier, at, until in _elements(file, start, end, into=()):
        if identifier == wanted:
            return int.from_bytes(read_at(file, at, min(8, until - at)), "big")
    return None
