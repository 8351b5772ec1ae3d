"""How large a picture will be, from its header: a file of 160 kB may ask for gigabytes of pixels.

PNG (W3C PNG, 11.2.1), JPEG (ITU-T T.81, B.2.2), WebP (RFC 9649) and BMP (Microsoft's BITMAPINFOHEADER and
BITMAPCOREHEADER); what they do not let see, OpenCV would not decode either.
"""

from __future__ import annotations

from typing import Literal

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_OTHER_THAN_FRAMES = (0xC4, 0xC8, 0xCC)  # among C0 to CF
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
_SCAN, _END = 0xDA, 0xD9


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in px as stored; None where it has no whole header of one of the four."""
    if data.startswith(_PNG) and len(data) >= 24:
        return _number(data, 16, 4, "big"), _number(data, 20, 4, "big")
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    if data.startswith(b"BM") and len(data) >= 26:
        return _bmp(data)
    return None


def _number(data: bytes, at: int, length: int, order: Literal["little", "big"] = "little") -> int:
    return int.from_bytes(data[at : at + length], order)


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """From the first frame header, found as libjpeg finds it: what stands between segments is passed over."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        while data[at : at + 1] == b"\xff":
            at += 1
        if at + 8 > len(data) or data[at] in (_SCAN, _END):
            return None
        marker = data[at]
        if 0xC0 <= marker <= 0xCF and marker not in _OTHER_THAN_FRAMES:
            return _number(data, at + 6, 2, "big"), _number(data, at + 4, 2, "big")
        at += 1
        if marker and marker not in _WITHOUT_LENGTH:
            at += max(2, _number(data, at, 2, "big"))
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + _number(data, 24, 3), 1 + _number(data, 27, 3)
    if kind == b"VP8L":
        packed = _number(data, 21, 4)
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return _number(data, 26, 2) & 0x3FFF, _number(data, 28, 2) & 0x3FFF
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    if _number(data, 14, 4) == 12:
        return _number(data, 18, 2), _number(data, 20, 2)
    # Upside down where negative.
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    return abs(width), abs(height)
