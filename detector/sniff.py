"""Words for a file that FFmpeg would not open: a look at its first bytes."""

from __future__ import annotations

from typing import IO

import av.error

from detector.errors import VideoError
from detector.types import Limits, Reason

_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<!DO", "an HTML page"),
    (b"<htm", "an HTML page"),
    (b"<!do", "an HTML page"),
    (b"<?xm", "an XML document"),
    (b"#EXT", "a playlist"),
    (b"ffco", "a playlist"),
)


def reason_to_refuse(file: IO[bytes], error: Exception, limits: Limits) -> VideoError:
    """The reason and message for a file that could not be opened, from its bytes and FFmpeg's error."""
    file.seek(0)
    head = file.read(4096)
    if not head:
        return VideoError(Reason.EMPTY_FILE, "the file has no bytes")
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return VideoError(Reason.NOT_VIDEO, f"this is {name}, not a video")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return VideoError(Reason.NOT_VIDEO, "this is a WebP image, not a video")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        if b"ftypheic" in head or b"ftypavif" in head or b"ftypmif1" in head:
            return VideoError(Reason.NOT_VIDEO, "this is a still image, not a video")
        return VideoError(Reason.INCOMPLETE, "an MP4 without its index (moov): probably an unfinished upload")
    if isinstance(error, av.error.MemoryError):
        return VideoError(
            Reason.TOO_MANY_STREAMS, f"more than {limits.max_streams} streams, or no memory to open it"
        )
    if _is_text(head):
        return VideoError(Reason.NOT_VIDEO, "this is text, not a video")
    if isinstance(error, av.error.ArgumentError):
        return VideoError(Reason.UNSUPPORTED_FORMAT, "the container is not one of those that are opened")
    return VideoError(Reason.NOT_VIDEO, "no video container was recognised")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)
