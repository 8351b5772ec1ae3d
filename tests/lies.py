"""Files whose header does not tell what they hold: too short a time, holes, parts that are gone or differ."""

import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from detector.boxes import top_boxes
from tests.film import Frame, no_face
from tests.healthy import AV1, FPS, FRAGMENTS, SIZE, VPX, Writer, face, times
from tests.media import write_video

_PACKET, _PID = 188, 0x100
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_OTHER_PROGRAM = {"mpegts_start_pid": "768", "mpegts_pmt_start_pid": "4608", "mpegts_service_id": "7"}


def _nobody(frames: int) -> list[Frame]:
    return list(no_face(frames, SIZE))


def _written(
    suffix: str,
    frames: list[Frame],
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    start_s: float = 0,
) -> bytearray:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        pts = times(start_s, len(frames)) if start_s else None
        return bytearray(
            write_video(path, frames, FPS, codec, pts=pts, options=dict(options or {})).read_bytes()
        )


def _says_1_s(poke: Callable[[bytearray], None], codec: str, options: Mapping[str, str]) -> Writer:
    """A writer of 4 s of nobody and 8 s of the face, of which the header tells 1 s."""

    def write(path: Path) -> None:
        body = _written(path.suffix, _nobody(100) + face(200), codec, options)
        poke(body)
        path.write_bytes(body)

    return write


def _poke_matroska(body: bytearray) -> None:
    at = body.index(b"\x44\x89\x88")
    body[at + 3 : at + 11] = struct.pack(">d", 1000)
    while (at := body.find(b"DURATION")) >= 0:
        body[at : at + 8] = b"XURATION"


def _poke_matroska_and_its_index(body: bytearray) -> None:
    """What leads to an index, and the index, become void: nothing but the clusters says how long it is."""
    _poke_matroska(body)
    for kind in (b"\x11\x4d\x9b\x74", b"\x1c\x53\xbb\x6b"):
        at = body.rindex(kind)
        width = 9 - body[at + 4].bit_length()
        length = int.from_bytes(body[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
        wide = 3 + width
        body[at : at + 1 + wide] = b"\xec" + (length | 1 << 7 * wide).to_bytes(wide, "big")


def _poke_avi_and_its_index(body: bytearray) -> None:
    _poke_avi(body)
    at = body.rindex(b"idx1")
    body[at : at + 4] = b"JUNK"


def _poke_flv(body: bytearray) -> None:
    at = body.index(b"duration") + 9
    body[at : at + 8] = struct.pack(">d", 1)


def _poke_avi(body: bytearray) -> None:
    for place in (body.index(b"strh") + 40, body.index(b"avih") + 24):
        body[place : place + 4] = struct.pack("<I", FPS)


def _poke_asf(body: bytearray) -> None:
    at = body.index(_ASF_FILE) + 64
    body[at : at + 16] = struct.pack("<QQ", 41_000_000, 10_000_000)  # with 3.1 s before the first picture


def _poke_mp4(body: bytearray) -> None:
    for box, place in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = body.index(box) + place
        body[at : at + 4] = struct.pack(">I", struct.unpack(">I", body[at : at + 4])[0] // 12)
    at = body.index(b"edts")
    body[at : at + 4] = b"free"


def _reconnects(path: Path) -> None:
    """Two recordings of a stream in one file, the second shorter; neither says how long it is."""
    one, two = _written(".flv", _nobody(100) + face(150)), _written(".flv", _nobody(25))
    path.write_bytes((one + two[13:]).replace(b"duration", b"xuration"))


def _two_flvs(first: list[Frame], second: list[Frame], codec: str) -> Writer:
    """A writer of an FLV that goes on as H.264, of another size or after another codec."""

    def write(path: Path) -> None:
        body, more = _written(".flv", first, codec), _written(".flv", second)
        at, end_ms = 13, 1000 * len(first) // FPS
        while at < len(more):
            length = 15 + int.from_bytes(more[at + 1 : at + 4], "big")
            tag = more[at : at + length]
            tag[4:7] = (int.from_bytes(tag[4:7], "big") + end_ms).to_bytes(3, "big")
            body += tag if tag[0] == 9 else b""
            at += length
        path.write_bytes(body)

    return write


def _two_broadcasts(options: Mapping[str, str]) -> Writer:
    """A writer of nobody, and then of the face as a stream with another number."""

    def write(path: Path) -> None:
        one = _written(".ts", _nobody(300))
        path.write_bytes(one + _written(".ts", face(300), options=options, start_s=12))

    return write


def _hole(start: float, end: float, codec: str, options: Mapping[str, str]) -> Writer:
    """A writer of 6 s of the face; zeros stand from one part of the file to another."""

    def write(path: Path) -> None:
        body = _written(path.suffix, face(150), codec, options)
        first, last = int(len(body) * start), int(len(body) * end)
        path.write_bytes(body[:first] + bytes(last - first) + body[last:])

    return write


def _fragments(kept: Callable[[list[bytes]], list[bytes]]) -> Writer:
    """A writer of the face in fragments, of which some are kept."""

    def write(path: Path) -> None:
        body = bytes(_written(".mp4", face(200), options=FRAGMENTS))
        boxes = list(top_boxes(BytesIO(body)))
        starts = [at for kind, at, _ in boxes if kind in (b"moof", b"mfra")]
        parts = [body[a:b] for a, b in pairwise(starts)]
        path.write_bytes(body[: starts[0]] + b"".join(kept(parts)) + body[starts[-1] :])

    return write


def _scrambled(path: Path) -> None:
    body = _written(".ts", face(75))
    for at in range(0, len(body), _PACKET):
        if int.from_bytes(body[at + 1 : at + 3], "big") & 0x1FFF == _PID and body[at + 3] & 0x10:
            start = at + 4 + (1 + body[at + 4] if body[at + 3] & 0x20 else 0)
            body[at + 3] |= 0x80
            body[start : at + _PACKET] = bytes(byte ^ 0x5A for byte in body[start : at + _PACKET])
    path.write_bytes(body)


def _hidden(path: Path) -> None:
    """An edit list that begins behind the last picture."""
    body = _written(".mp4", face(50))
    at = body.index(b"elst") + 16
    body[at : at + 4] = struct.pack(">i", 100 * 12_800)
    path.write_bytes(body)


_FIRST = {"movflags": "faststart"}

LIES: dict[str, Writer] = {
    "says-1-s.mkv": _says_1_s(_poke_matroska, "libx264", {}),
    "says-1-s.webm": _says_1_s(_poke_matroska, "libvpx", VPX),
    "says-1-s.flv": _says_1_s(_poke_flv, "flv", {}),
    "says-1-s.avi": _says_1_s(_poke_avi, "mpeg4", {}),
    "says-1-s-no-index.mkv": _says_1_s(_poke_matroska_and_its_index, "libx264", {}),
    "says-1-s-no-index.avi": _says_1_s(_poke_avi_and_its_index, "mpeg4", {}),
    "says-1-s.wmv": _says_1_s(_poke_asf, "wmv2", {}),
    "says-1-s.mp4": _says_1_s(_poke_mp4, "libx264", {}),
    "clock-starts-again.flv": _reconnects,
    "codec-changes.flv": _two_flvs(_nobody(75), face(75), "flv"),
    "size-changes.flv": _two_flvs(face(75), face(75, (480, 360)), "libx264"),
    "another-number-follows.ts": _two_broadcasts({"mpegts_start_pid": "768"}),
    "another-program-follows.ts": _two_broadcasts(_OTHER_PROGRAM),
    "hole-av1.mp4": _hole(0.6, 0.999, "libsvtav1", AV1 | _FIRST),
    "hole.wmv": _hole(0.4, 0.7, "wmv2", {}),
    "hole.gif": _hole(0.6, 0.999, "gif", {}),
    "hole.ts": _hole(0.6, 0.999, "mpeg2video", {}),
    "hole.mpg": _hole(0.6, 0.999, "mpeg2video", {}),
    "fragments-missing.mp4": _fragments(lambda parts: parts[:5] + parts[15:]),
    "last-fragments-missing.mp4": _fragments(lambda parts: parts[:8]),
    "scrambled.ts": _scrambled,
    "hidden-by-its-edit-list.mp4": _hidden,
}
"""name -> what writes it."""
