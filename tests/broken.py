"""Files that are no videos, broken, or made to do harm."""

import random
import wave
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import cv2
import numpy as np
from av.stream import Disposition

from tests.containers import SIZED, UNSIZED
from tests.containers import write as write_container
from tests.film import Frame, Size, no_face, portrait
from tests.healthy import FRAGMENTS, VPX, Writer, face, join, misnamed, one_after_the_other, one_face
from tests.media import write_audio, write_video

CONCAT = "ffconcat version 1.0\nfile secret.mp4\n"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 50000 RTP/AVP 96\n"
KEYS = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0f" * 16, "encryption_kid": "1e" * 16}
_AROUND_URL = (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov")


def _bytes(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)


def _film(
    frames: int, size: Size = (64, 64), codec: str = "libx264", options: Mapping[str, str] | None = None
) -> Writer:
    """A film of plain grey."""
    grey: Frame = np.full((size[1], size[0], 3), 90, np.uint8)
    fast = {"preset": "ultrafast"} if codec == "libx264" else {}
    chosen = fast | dict(options or {})
    return lambda path: write_video(path, (grey for _ in range(frames)), codec=codec, options=chosen)


def _picture(suffix: str) -> Writer:
    """A photo of a face, under whatever name."""
    return lambda path: path.write_bytes(cv2.imencode(suffix, portrait()[..., ::-1])[1].tobytes())


def _zip(path: Path) -> None:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "text")
    path.write_bytes(packed.getvalue())


def _wav(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))


def _cover_only(path: Path) -> None:
    """A song whose cover shows a face."""
    with TemporaryDirectory() as folder:
        song = write_audio(Path(folder, "song.m4a"), 1)
        cover = write_video(Path(folder, "cover.avi"), face()[:1], codec="mjpeg")
        join(path, [song, cover], [Disposition.default, Disposition.attached_pic])


def _many_streams(path: Path) -> None:
    with TemporaryDirectory() as folder:
        join(path, [write_video(Path(folder, "a.mp4"), no_face(2, (64, 64)))] * 40)


def _grows(path: Path) -> None:
    """A face, and then frames that are larger than what is decoded."""
    large: Frame = np.full((2320, 4096, 3), 90, np.uint8)
    one_after_the_other(face(), [large] * 10, 1.2)(path)


def _film_bytes(frames: int = 30, options: Mapping[str, str] | None = None) -> bytes:
    """The face as mp4, its index last unless `options` say otherwise."""
    with TemporaryDirectory() as folder:
        path = write_video(Path(folder, "a.mp4"), face(frames), options=dict(options or {}))
        return path.read_bytes()


def _poked(box: bytes, at: int, value: bytes) -> Writer:
    """The face as mp4; from `at` bytes behind the name of a box on, `value` stands instead."""

    def write(path: Path) -> None:
        body = bytearray(_film_bytes())
        start = body.index(box) + 4 + at
        body[start : start + len(value)] = value
        path.write_bytes(body)

    return write


def _elsewhere(path: Path) -> None:
    """An mp4 that says that its pictures lie in another file of this machine."""
    body, address = bytearray(_film_bytes()), b"file:///etc/passwd\0"
    at = body.index(b"url ") + 4
    body[at : at + 4] = bytes(4) + address  # the flag "in this file" is gone
    for box in (b"url ", *_AROUND_URL):
        size = body.index(box) - 4
        body[size : size + 4] = (int.from_bytes(body[size : size + 4], "big") + len(address)).to_bytes(
            4, "big"
        )
    path.write_bytes(body)


def _latin_tag(path: Path) -> None:
    """A title that is not UTF-8."""
    with TemporaryDirectory() as folder:
        join(path, [write_video(Path(folder, "a.mp4"), face())], tags={"title": "title-xx-end"})
    path.write_bytes(path.read_bytes().replace(b"-xx-end", b"-\xfe\xff-end"))


def _part(start: bytes, end: bytes, before: bytes = b"") -> Writer:
    """Of the face in fragments the bytes from the first box `start` up to the first box `end`."""

    def write(path: Path) -> None:
        body = _film_bytes(options=FRAGMENTS)
        path.write_bytes(before + body[body.index(start) - 4 : body.index(end) - 4])

    return write


def _without_index(path: Path) -> None:
    body = _film_bytes()
    path.write_bytes(body[: body.rindex(b"moov") - 4])


def _index_only(path: Path) -> None:
    body = _film_bytes(options={"movflags": "faststart"})
    path.write_bytes(body[: body.index(b"mdat") - 4])


def _cut(container: str, keep: float) -> Writer:
    """2 s of the face, of which the first part of the bytes is there."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            body = write_container(Path(folder), container, face(50)).read_bytes()
        path.write_bytes(body[: int(len(body) * keep) | 1])  # an odd number: no whole packets of a stream

    return write


def _flipped(container: str, bits: int) -> Writer:
    """2 s of the face with some bits turned over, always the same ones of a file of that length."""

    def write(path: Path) -> None:
        with TemporaryDirectory() as folder:
            body = bytearray(write_container(Path(folder), container, face(50)).read_bytes())
        chance = random.Random(7)
        for _ in range(bits):
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        path.write_bytes(body)

    return write


def _truncated() -> dict[str, Writer]:
    kinds = {name: (SIZED | UNSIZED)[name].suffix for name in (SIZED | UNSIZED)}
    return {
        f"{keep}-percent-of-{name.replace(', ', '-').replace(' ', '-')}.{suffix}": _cut(name, keep / 100)
        for keep in (30, 80)
        for name, suffix in kinds.items()
    }


def _u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


_SMALLEST: dict[str, Any] = {"pixel_format": "yuv444p", "video_size": "1x1"}

BROKEN: dict[str, Writer] = {
    # no video at all
    "empty.mp4": _bytes(b""),
    "one-byte.mp4": _bytes(b"\0"),
    "zeros.mp4": _bytes(bytes(65536)),
    "random.mp4": _bytes(random.Random(5).randbytes(20_000)),
    "text.mp4": _bytes(b"This is not a video.\n" * 40),
    "html.mp4": _bytes(b"<!DOCTYPE html><html><body>404</body></html>\n"),
    "s3-error.mp4": _bytes(b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>\n'),
    "zip.mp4": _zip,
    "empty-zip.mp4": _bytes(b"PK\x05\x06" + bytes(18)),
    "gzip.mp4": _bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"),
    "pdf.mp4": _bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n%%EOF\n"),
    "png.mp4": _picture(".png"),
    "jpeg.mp4": _picture(".jpg"),
    "webp.mp4": _picture(".webp"),
    "bmp.mp4": _picture(".bmp"),
    "tiff.mp4": _picture(".tiff"),
    "photo.avif": lambda path: write_video(path, face()[:1], codec="libsvtav1", options={"preset": "12"}),
    "playlist.mp4": _bytes(PLAYLIST.encode()),
    "playlist.m3u8": _bytes(PLAYLIST.encode()),
    "concat.mp4": _bytes(CONCAT.encode()),
    "sdp.mp4": _bytes(SDP.encode()),
    "subtitles.mp4": _bytes(b"1\n00:00:01,000 --> 00:00:02,000\nHello\n"),
    # sound only
    "sound.m4a": lambda path: write_audio(path, 1),
    "sound.mp4": lambda path: write_audio(path, 1),
    "sound.mkv": lambda path: write_audio(path, 1),
    "sound.ts": lambda path: write_audio(path, 1),
    "sound.wav": _wav,
    "song-with-cover.m4a": _cover_only,
    # not opened, not decoded
    "raw-h264.mp4": misnamed(".h264"),
    "ffv1.mkv": one_face("ffv1"),
    "huffyuv.avi": one_face("huffyuv"),
    "unknown-codec.mp4": _poked(b"stsd", 12, b"zzzz"),
    "encrypted.mp4": one_face(options=KEYS),
    "encrypted-in-fragments.mp4": one_face(options=KEYS | FRAGMENTS),
    # parts of a file
    "without-index.mp4": _without_index,
    "index-only.mp4": _index_only,
    "first-segment-only.mp4": _part(b"ftyp", b"moof"),
    "later-segment-only.mp4": _part(b"moof", b"mfra"),
    "later-segment-with-its-type.m4s": _part(b"moof", b"mfra", _u32(16) + b"stypmsdh" + bytes(4)),
    **_truncated(),
    "flipped.mp4": _flipped("mp4, index last", 40),
    "flipped-a-lot.mp4": _flipped("mp4, index first", 2000),
    "flipped.mkv": _flipped("mkv", 40),
    "flipped.avi": _flipped("avi", 40),
    "flipped.ts": _flipped("ts", 40),
    # lies
    "no-time-passes.mp4": _poked(b"stts", 12, _u32(0)),
    "each-frame-lasts-2-days.mp4": _poked(b"stts", 12, _u32(1 << 31)),
    "one-frame-far-away.mp4": _poked(b"ctts", 12, _u32(0x7FFFFFF0)),
    "no-ticks-a-second.mp4": _poked(b"mdhd", 12, _u32(0)),
    "claims-16000x16000.mp4": _poked(b"stsd", 40, b"\x3e\x80\x3e\x80"),
    "claims-2-billion-samples.mp4": _poked(b"stsz", 8, _u32(1 << 31)),
    "claims-20-million-samples.mp4": _poked(b"stsz", 4, _u32(100, 20_000_000)),
    "pictures-behind-the-end.mp4": _poked(b"stco", 8, _u32(0x7FFFFFFF)),
    "pictures-elsewhere.mp4": _elsewhere,
    "title-in-latin-1.mp4": _latin_tag,
    "title-in-latin-1.mkv": _latin_tag,
    # sizes and numbers
    "1x1.mp4": _film(30, (2, 2), options=_SMALLEST),
    "2x2.mp4": _film(30, (2, 2)),
    "16384x16.mp4": _film(30, (16384, 16)),
    "16x16384.mp4": _film(30, (16, 16384)),
    "4096x2320.mp4": _film(1, (4096, 2320)),
    "16000x16.webm": _film(5, (16000, 16), "libvpx-vp9", VPX),
    "one-frame.mp4": lambda path: write_video(path, face()[:1]),
    "two-frames.mp4": lambda path: write_video(path, face()[:2]),
    "20000-frames.mp4": _film(20_000),
    "40-videos.mkv": _many_streams,
    "40-videos.mp4": _many_streams,
    "grows-over-the-limit.ts": _grows,
}
"""name -> what writes it."""
