"""Transport streams, of which a look at some packets tells what FFmpeg does not (ISO/IEC 13818-1, 2.4.3)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from typing import IO

_SYNC = 0x47
_PACKETS = (188, 192, 204)
_STUFFING = 0x1FFF
_SAMPLES = 1000
# Of a stream that came later, its share of what is looked at; tables and clocks have much less.
_MUCH = 0.25


def packet_size(head: bytes) -> int:
    """Bytes from one packet to the next; 0 if this is no transport stream."""
    for packet in _PACKETS:
        first = 4 if packet == 192 else 0
        places = range(first, len(head), packet)
        if len(places) > 1 and all(head[place] == _SYNC for place in places):
            return packet
    return 0


def is_hollow(file: IO[bytes], size: int, packet: int) -> bool:
    """Whether zeros stand where packets belong, as in a download whose middle never came."""
    return any(not any(body) for body in _some(file, 0, size, packet))


def is_scrambled(file: IO[bytes], pid: int) -> bool:
    """Whether most of a stream's packets are said to be scrambled."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    packet = packet_size(file.read(1024))
    if not packet:
        return False
    marks = [body[3] >> 6 for body in _some(file, 0, size, packet) if _pid(body) == pid]
    return 2 * sum(mark > 0 for mark in marks) > len(marks)


def another_follows(file: IO[bytes], last: int, known: Collection[int]) -> bool:
    """Whether behind the last packet of a stream there is another one, which was not there before.

    Args:
        file: its position is kept.
        last: where that packet lies, bytes from the start.
        known: pids of all streams that were there when the file was opened.
    """
    place, size = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(0)
    packet = packet_size(file.read(1024))
    late = packet > 0 and last < size * 9 // 10
    found = Counter(_pid(body) for body in _some(file, last, size, packet)) if late else Counter()
    file.seek(place)
    del found[_STUFFING]
    strangers = sum(count for other, count in found.items() if other not in known)
    return strangers > _MUCH * found.total()


def _pid(packet: bytes) -> int:
    return int.from_bytes(packet[1:3], "big") & 0x1FFF


def _some(file: IO[bytes], start: int, end: int, packet: int) -> Iterator[bytes]:
    """Whole packets that lie evenly between two places, 188 bytes each."""
    first, last = -(-start // packet), end // packet
    for index in range(first, last, max(1, (last - first) // _SAMPLES)):
        file.seek(index * packet + (4 if packet == 192 else 0))
        yield file.read(188)
