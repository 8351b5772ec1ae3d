"""Boxes of ISO base media files: MP4, MOV, 3GP (ISO/IEC 14496-12)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import IO

MOST_CHECKED = 20_000
"""Of blocks and chunks, those that are checked for damage in between; more would cost more than decoding."""
MOST_PARTS = 200_000
"""Boxes, tags or pages that are looked at; of a file with more it is not known."""
BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")
"""What an ISO base media file may begin with."""
_FURTHER_BOXES = (b"meta", b"uuid", b"udta", b"mfra", b"pdin", b"emsg", b"prft", b"ssix", b"PICT")
"""What else stands at the top level. A box of another kind that leads behind the end is none."""
_MOST_JUNK = 4096
"""Bytes behind the last box that are taken for what a mail program or a tag editor left there."""
_MOST_INDEX = 1 << 24


def top_boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of the boxes of an ISO base media file; length 0: up to the end, wherever it is.

    Ends behind the file, where the last one says that it ends, or at what is no box.
    """
    at, size = 0, file.seek(0, os.SEEK_END)
    for _ in range(MOST_PARTS):
        header = _header(file, min(at, size))
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if len(header) < 8 or 0 < length < 8:
            return
        yield header[4:8], at, length
        if not length:
            return
        at += length


def boxes_whole(file: IO[bytes], size: int) -> bool | None:
    """ISO base media: boxes follow each other up to the end, among them an index and pictures.

    Of a file in fragments any number may be missing at the end, unless their own index closes it.
    """
    boxes = list(top_boxes(file))
    if boxes and boxes[-1][0] not in BOXES + _FURTHER_BOXES and sum(boxes[-1][1:]) > size:
        boxes.pop()
    kinds = [kind for kind, _, _ in boxes]
    if boxes and not boxes[-1][2]:
        return None if b"moov" in kinds else False
    if len(kinds) == MOST_PARTS:
        return None
    left = size - sum(boxes[-1][1:]) if boxes else size
    if b"moov" not in kinds or not {b"mdat", b"moof"} & set(kinds):
        return False
    if b"moof" not in kinds:
        return 0 <= left <= _MOST_JUNK
    return False if left or _fragments_missing(file, boxes) else _closed(kinds[-1])


def _closed(last: bytes) -> bool | None:
    return {b"mfra": True, b"moof": False}.get(last)


def _fragments_missing(file: IO[bytes], boxes: Sequence[tuple[bytes, int, int]]) -> bool:
    """True if the numbers of the fragments leave one out, or their index lists more than there are.

    Args:
        file: the video.
        boxes: kind, place and length of all that stand at the top level.
    """
    numbers = [_number(file, at) for kind, at, _ in boxes if kind == b"moof"]
    steps = Counter(b - a for a, b in pairwise(numbers))
    # Some number every second one, or all the same: only where most follow each other a gap is one.
    if 2 * steps[1] > steps.total() and any(step > 1 for step in steps):
        return True
    indices = [(at, length) for kind, at, length in boxes if kind == b"mfra"]
    return any(_listed(file, at, length) > len(numbers) for at, length in indices)


def _number(file: IO[bytes], at: int) -> int:
    """The number of a fragment, which stands in its first box; 0 where it does not."""
    file.seek(at)
    box = file.read(24)
    return int.from_bytes(box[20:24], "big") if box[12:16] == b"mfhd" else 0


def _listed(file: IO[bytes], at: int, length: int) -> int:
    """How many fragments an index lists: as many as the places that it names."""
    file.seek(at)
    index = file.read(min(length, _MOST_INDEX))
    places: set[bytes] = set()
    at = 8
    while at + 24 <= len(index):
        size, kind = int.from_bytes(index[at : at + 4], "big"), index[at + 4 : at + 8]
        if kind == b"tfra":
            wide = 8 if index[at + 8] else 4
            lengths = index[at + 19]
            step = 2 * wide + 3 + (lengths >> 4 & 3) + (lengths >> 2 & 3) + (lengths & 3)
            count = int.from_bytes(index[at + 20 : at + 24], "big")
            starts = range(at + 24, min(at + size, at + 24 + step * count, len(index) - step + 1), step)
            places |= {index[start + wide : start + 2 * wide].rjust(8, b"\0") for start in starts}
        at += max(8, size)
    return len(places)


def _header(file: IO[bytes], at: int) -> bytes:
    return read_at(file, at, 16)


def read_at(file: IO[bytes], at: int, length: int) -> bytes:
    """Bytes from a place on, fewer at the end of the file."""
    file.seek(at)
    return file.read(length)
