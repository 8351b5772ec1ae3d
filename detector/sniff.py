"""Words for a file that is not opened: a look at its bytes."""

from __future__ import annotations

from typing import IO

import av.error

from detector.boxes import BOXES, top_boxes
from detector.errors import VideoError
from detector.types import Limits, Reason

_OTHERS = (
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"<!DO", "an HTML page"),
    (b"<htm", "an HTML page"),
    (b"<!do", "an HTML page"),
    (b"<?xm", "an XML document"),
    (b"#EXT", "a playlist"),
    (b"ffco", "a playlist"),
)
_SOUND = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9", b"#!AMR", b"FORM")
_RAW_STREAM = (b"\x00\x00\x01", b"\x00\x00\x00\x01")
_CONTAINERS = (b"FLV", b"OggS", b"\x1a\x45\xdf\xa3", b"0&\xb2u", b"RIFF", b"\x00\x00\x01\xba")
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif")
_ENCRYPTED_ENTRIES = (b"encv", b"drmi")
_MOST_INDEX = 1 << 24


def refuse_stills(file: IO[bytes]) -> None:
    """Refuse images in a container of videos, which would open as a video of one frame.

    Raises:
        VideoError: it is one.
    """
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise VideoError(Reason.NOT_VIDEO, "this is a still image, not a video")


def reason_to_refuse(file: IO[bytes], error: Exception) -> VideoError:
    """The reason and message for a file that could not be opened, from its bytes and FFmpeg's error."""
    file.seek(0)
    head = file.read(4096)
    other = what_else(head)
    sound = head.startswith(_SOUND) or (head[:4] == b"RIFF" and head[8:12] == b"WAVE")
    raw = "a raw stream without a container" if head.startswith(_RAW_STREAM) else "a container"
    cases: tuple[tuple[bool, Reason, str], ...] = (
        (not head, Reason.EMPTY_FILE, "the file has no bytes"),
        (other is not None, Reason.NOT_VIDEO, f"this is {other}, not a video"),
        (
            isinstance(error, av.error.MemoryError),
            Reason.DECODE_MEMORY,
            "the file needs more memory than allowed to be opened",
        ),
        (head[4:8] in BOXES, *_unreadable_index(file)),
        (sound, Reason.NO_VIDEO_STREAM, "the file has no video stream, only sound"),
        (_is_text(head), Reason.NOT_VIDEO, "this is text, not a video"),
        (head.startswith(_CONTAINERS), Reason.NO_FRAMES, "the file breaks off before its first picture"),
        (
            isinstance(error, av.error.ArgumentError),
            Reason.UNSUPPORTED_FORMAT,
            f"this is {raw}, of a kind that is not opened here",
        ),
        (True, Reason.NOT_VIDEO, "no video container was recognised"),
    )
    return next(VideoError(reason, message) for applies, reason, message in cases if applies)


def too_many_streams(limits: Limits) -> VideoError:
    """The refusal of a file that holds more streams than allowed."""
    return VideoError(Reason.TOO_MANY_STREAMS, f"the file holds more than {limits.max_streams} streams")


def _unreadable_index(file: IO[bytes]) -> tuple[Reason, str]:
    for kind, at, length in top_boxes(file):
        if kind == b"moov":
            file.seek(at)
            index = file.read(min(length, _MOST_INDEX) or _MOST_INDEX)
            if any(entry in index for entry in _ENCRYPTED_ENTRIES):
                return Reason.ENCRYPTED, "the video is encrypted, and its key is not here"
            return Reason.CORRUPT, "the index of this MP4 is there, but it cannot be read"
    return Reason.INCOMPLETE, "an MP4 without its index: probably an unfinished upload"


def what_else(head: bytes) -> str | None:
    """What a file that begins so is, where it is known and no video."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    return next((name for magic, name in _OTHERS if head.startswith(magic)), None)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)
