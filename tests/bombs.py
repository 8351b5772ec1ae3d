"""Small files that cost a great deal of memory or time where nothing is in their way."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av

from detector.sandbox import Sandbox
from detector.types import ExtractOptions
from tests.broken import BROKEN
from tests.healthy import Writer, face
from tests.media import write_video

MOST_BYTES, MOST_S = int(1.1 * (1 << 30)), 20.0
"""What a child may need of memory, and what one may take."""
_SIDE = 16_000
_TAKEN = "no failure"
_FAST = {"preset": "ultrafast"}


class Bomb(NamedTuple):
    """A file: what writes it, what may be said of it, and whether writing it takes no seconds."""

    write: Writer
    outcomes: str
    quick: bool = False


class Cost(NamedTuple):
    """What it took to find out what a file is: the reason, or that there is none; bytes; seconds."""

    outcome: str
    message: str
    peak_bytes: int
    seconds: float


def cost(sandbox: Sandbox, path: Path) -> Cost:
    """Send a file through helper and child, as a scan does, and say what that took."""
    began = time.monotonic()
    with path.open("rb") as file:
        extraction = sandbox.extract(file, ExtractOptions())
    facts = extraction.facts
    outcome = str(facts.failure or _TAKEN)
    return Cost(outcome, facts.message, extraction.peak_bytes, time.monotonic() - began)


def complaint(name: str, cost: Cost) -> str:
    """What is wrong with an outcome, nothing where it is right."""
    if cost.outcome not in BOMBS[name].outcomes.split("|"):
        return f"{name}: {cost.outcome} ({cost.message}) where {BOMBS[name].outcomes} is right"
    if not 0 < cost.peak_bytes <= MOST_BYTES:
        return f"{name}: {cost.peak_bytes / 1e6:.0f} MB"
    return f"{name}: {cost.seconds:.1f} s" if cost.seconds > MOST_S else ""


def _large(codec: str, pixels: str, options: Mapping[str, str] | None = None, frames: int = 1) -> Writer:
    """So many frames of 16,000 x 16,000 px, all alike, one a second."""

    def write(path: Path) -> None:
        picture = av.VideoFrame(_SIDE, _SIDE, pixels)
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        with av.open(str(path), "w") as file:
            stream = file.add_stream(codec, 1, options=dict(options or {}))
            assert isinstance(stream, av.VideoStream)
            stream.width = stream.height = _SIDE
            stream.pix_fmt = pixels
            stream.codec_context.thread_count = 1
            for number in range(frames):
                picture.pts, picture.time_base = number, Fraction(1)
                file.mux(stream.encode(picture))
            file.mux(stream.encode(None))

    return write


def _hevc(path: Path) -> None:
    """One HEVC frame as mp4, which x265 cannot be made to write itself in that size."""
    huge = {"preset": "ultrafast", "x265-params": "log-level=none:allow-non-conformance=1:min-cu-size=32"}
    with TemporaryDirectory() as folder:
        raw = Path(folder, "a.hevc")
        _large("libx265", "yuv420p", huge)(raw)
        with av.open(str(raw)) as source, av.open(str(path), "w") as file:
            stream = file.add_stream_from_template(source.streams.video[0])
            [packet] = [packet for packet in source.demux(video=0) if packet.size]
            packet.pts = packet.dts = 0
            packet.stream = stream
            file.mux(packet)


def _grows(path: Path) -> None:
    """A face in 320 x 240, and then the size of the pictures changes to 16,000 x 16,000."""
    with TemporaryDirectory() as folder:
        small = write_video(Path(folder, "small.ts"), face())
        _large("libx264", "yuv420p", _FAST, frames=3)(Path(folder, "large.ts"))
        path.write_bytes(small.read_bytes() + Path(folder, "large.ts").read_bytes())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


@cache
def _rows() -> bytes:
    """All black, as a PNG packs it."""
    pack = zlib.compressobj(1)
    return b"".join([pack.compress(bytes(1 + 3 * _SIDE)) for _ in range(_SIDE)]) + pack.flush()


def _png(path: Path, frames: int = 0) -> None:
    """A PNG; with `frames` an animated one."""
    rows = _rows()
    size = _SIDE.to_bytes(4, "big") * 2
    parts = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", size + b"\x08\x02\0\0\0")]
    if frames:
        parts.append(_chunk(b"acTL", frames.to_bytes(4, "big") + bytes(4)))
    number = 0
    for frame in range(max(1, frames)):
        if frames:
            control = number.to_bytes(4, "big") + size + bytes(8) + b"\0\x01\0\x19\0\0"
            parts.append(_chunk(b"fcTL", control))
            number += 1
        if frame:
            parts.append(_chunk(b"fdAT", number.to_bytes(4, "big") + rows))
            number += 1
        else:
            parts.append(_chunk(b"IDAT", rows))
    path.write_bytes(b"".join([*parts, _chunk(b"IEND", b"")]))


def _webp(path: Path) -> None:
    """A lossless WebP whose five codes have one symbol each, so that its pixels take no bits at all."""
    bits, at = 0, 0
    fields = [(_SIDE - 1, 14), (_SIDE - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    for value, width in fields + 5 * [(1, 1), (0, 1), (0, 1), (0, 1)]:  # simple, one symbol, of one bit, 0
        bits |= value << at
        at += width
    body = b"\x2f" + bits.to_bytes(-(-at // 8) + 4, "little")
    body += b"\0" * (len(body) % 2)
    inner = b"WEBPVP8L" + len(body).to_bytes(4, "little") + body
    path.write_bytes(b"RIFF" + len(inner).to_bytes(4, "little") + inner)


def _edits(path: Path) -> None:
    """100,000 entries in the edit list of a video of 25 frames: FFmpeg's time grows with their square."""
    body = bytearray(write_video(path, face(25)).read_bytes())
    entries = b"".join(struct.pack(">IiI", 1, number * 7 % 900, 1 << 16) for number in range(100_000))
    at = body.index(b"edts") - 4
    old = int.from_bytes(body[at : at + 4], "big")
    lists = struct.pack(">II", 0, 100_000) + entries
    new = b"".join(
        (struct.pack(">I", 16 + len(lists)), b"edts", struct.pack(">I", 8 + len(lists)), b"elst", lists)
    )
    for parent in (b"moov", b"trak"):  # the index stands last, so that no picture moves
        place = body.index(parent) - 4
        length = int.from_bytes(body[place : place + 4], "big") + len(new) - old
        body[place : place + 4] = length.to_bytes(4, "big")
    body[at : at + old] = new
    path.write_bytes(body)


BOMBS: dict[str, Bomb] = {
    "h264-16000x16000.mp4": Bomb(_large("libx264", "yuv420p", _FAST), "too_large"),
    "hevc-16000x16000.mp4": Bomb(_hevc, "too_large"),
    "mjpeg-16000x16000.avi": Bomb(_large("mjpeg", "yuvj420p"), "too_large"),
    "mjpeg-16000x16000.mov": Bomb(_large("mjpeg", "yuvj420p"), "too_large"),
    "16000x16000.gif": Bomb(_large("gif", "rgb8", frames=2), "too_large"),
    "png-16000x16000.mp4": Bomb(_png, "not_video"),
    "apng-16000x16000.mp4": Bomb(lambda path: _png(path, 3), "not_video"),
    "webp-16000x16000.mp4": Bomb(_webp, "not_video", quick=True),
    "claims-20-million-samples.mp4": Bomb(
        BROKEN["claims-20-million-samples.mp4"], "no_frames|corrupt", quick=True
    ),
    "claims-2-billion-samples.mp4": Bomb(BROKEN["claims-2-billion-samples.mp4"], "corrupt", quick=True),
    "100000-frames-64x64.mp4": Bomb(
        lambda path: write_video(path, (face(1, (64, 64))[0] for _ in range(100_000)), options=_FAST), _TAKEN
    ),
    "40-videos.mkv": Bomb(BROKEN["40-videos.mkv"], "too_many_streams", quick=True),
    "40-videos.mp4": Bomb(BROKEN["40-videos.mp4"], "too_many_streams", quick=True),
    "100000-edits.mp4": Bomb(_edits, "decode_timeout"),
    "grows-to-16000x16000.ts": Bomb(_grows, "too_large"),
}
"""File -> what it is."""
