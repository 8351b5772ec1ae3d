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
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_STILL_BRANDS = (b"ftypheic", b"ftypavif", b"ftypmif1")


def reason_to_refuse(file: IO[bytes], error: Exception, limits: Limits) -> VideoError:
    """The reason and message for a file that could not be opened, from its bytes and FFmpeg's error."""
    file.seek(0)
    head = file.read(4096)
    other = next((name for magic, name in _MAGIC if head.startswith(magic)), None) or _still_image(head)
    too_many = f"more than {limits.max_streams} streams, or no memory to open it"
    cases: tuple[tuple[bool, Reason, str], ...] = (
        (not head, Reason.EMPTY_FILE, "the file has no bytes"),
        (other is not None, Reason.NOT_VIDEO, f"this is {other}, not a video"),
        (
            head[4:8] in _MP4_BOXES,
            Reason.INCOMPLETE,
            "an MP4 without its index: probably an unfinished upload",
        ),
        (isinstance(error, av.error.MemoryError), Reason.TOO_MANY_STREAMS, too_many),
        (_is_text(head), Reason.NOT_VIDEO, "this is text, not a video"),
        (
            isinstance(error, av.error.ArgumentError),
            Reason.UNSUPPORTED_FORMAT,
            "the container is not one of those that are opened",
        ),
    )
    for applies, reason, message in cases:
        if applies:
            return VideoError(reason, message)
    return VideoError(Reason.NOT_VIDEO, "no video container was recognised")


def _still_image(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    return "a still image" if head[4:12] in _STILL_BRANDS else None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)
