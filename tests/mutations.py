"""Damage as disks, networks and attackers do it: a pure function of a video's bytes and a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Literal

import av

_MOST_FLIPS = 256
_MOST_FIELDS = 4
_WIDTHS = (1, 2, 4, 8)
_ORDERS: tuple[Literal["big", "little"], ...] = ("big", "little")
_LONGEST_SPLICE = 8192
# Packs, streams and tables of MPEG, which cut their packets up.
_MPEG_HEADERS = re.compile(rb"\x47[\x40\x41]|\x00\x00\x01[\xba\xbb\xe0]")
_MPEG_HEADER = 16
_FRONT = 1024


def mutated(body: bytes, seed: int) -> bytes:
    """The damaged file: of six seeds two flip bits, two change header fields, one cuts, one splices."""
    chance = random.Random(seed)
    damage = chance.choice((_flip, _flip, _rewrite, _rewrite, _truncate, _splice))
    return damage(body, chance)


def _flip(body: bytes, chance: random.Random) -> bytes:
    """1 to 256 bits turned over."""
    damaged = bytearray(body)
    for _ in range(chance.randint(1, _MOST_FLIPS)):
        damaged[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _rewrite(body: bytes, chance: random.Random) -> bytes:
    """1 to 4 integers of the container's own set to what breaks arithmetic, or moved by a little."""
    damaged, places = bytearray(body), _header_places(body)
    for _ in range(chance.randint(1, _MOST_FIELDS)):
        width, order = chance.choice(_WIDTHS), chance.choice(_ORDERS)
        at = min(chance.choice(places), len(body) - width)
        old = int.from_bytes(damaged[at : at + width], order)
        damaged[at : at + width] = _odd_number(old, 8 * width, chance).to_bytes(width, order)
    return bytes(damaged)


@lru_cache(maxsize=64)
def _header_places(body: bytes) -> Sequence[int]:
    """Where a video holds what is no picture: all but its packets, and of MPEG the headers between them."""
    if _MPEG_HEADERS.match(body):
        marks = [found.start() for found in _MPEG_HEADERS.finditer(body)]
        return [at for mark in marks for at in range(mark, min(mark + _MPEG_HEADER, len(body)))]
    outside = bytearray(b"\1" * len(body))
    with av.open(BytesIO(body), "r") as file:
        for packet in file.demux(video=0):
            if (at := body.find(bytes(packet))) >= 0 and packet.size:
                outside[at : at + packet.size] = bytes(packet.size)
    # Of GIF all is packets.
    return [at for at, is_outside in enumerate(outside) if is_outside] or range(min(_FRONT, len(body)))


def _odd_number(old: int, bits: int, chance: random.Random) -> int:
    top = 1 << bits
    edges = (0, 1, top - 1, top >> 1, (top >> 1) - 1)
    return chance.choice((*edges, old + 1, old - 1, 2 * old, old >> 1, chance.randrange(top))) % top


def _truncate(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(1, len(body))]


def _splice(body: bytes, chance: random.Random) -> bytes:
    """A piece of the file laid over another place, put in between, or taken out."""
    length = chance.randint(1, min(_LONGEST_SPLICE, len(body) - 1))
    source, target = (chance.randrange(len(body) - length) for _ in range(2))
    piece = body[source : source + length]
    put_in, behind = chance.choice(((piece, target + length), (piece, target), (b"", target + length)))
    return body[:target] + put_in + body[behind:]
