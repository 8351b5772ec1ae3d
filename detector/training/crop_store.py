"""Reads labelled crops: files, or members of uncompressed tars, of strangers."""

from __future__ import annotations

import io
import math
import struct
import tarfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from detector.degrade import Picture, Window
from detector.errors import InputError
from detector.training.data import Sample

_TAR_SEPARATOR = ".tar!"
_LEAST_PX = 16
_MOST_BYTES = 1 << 26
# What tarfile means to raise, and what it gives for numbers beyond 64 bits and for headers without end.
_UNREADABLE = (OSError, ValueError, OverflowError, MemoryError, RecursionError, tarfile.TarError)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_NO_HEADER = (OSError, SyntaxError, ValueError, struct.error)
"""What Pillow raises for a header that makes no sense."""
_MOST_PX = 1 << 25  # 300 MB while it is decoded


class CropStore:
    """Reads pictures by URI; every tar's index is read once. Safe to hand to a worker process."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, tuple[int, int]]] = {}

    def read(self, uri: str) -> Picture:
        """The picture, RGB.

        Raises:
            InputError: There is none, it is no PNG, JPEG, WebP or BMP that can be decoded, it is smaller than
                16 px, or it has more than 33 million px.
        """
        data = self._bytes(uri)
        pixels = _pixels(data)
        if pixels > _MOST_PX:
            raise InputError(f"{uri}: larger than {_MOST_PX:,} px")
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if pixels else None
        except cv2.error as error:  # a side that it does not allow
            raise InputError(f"{uri}: not a picture that can be decoded: {error.err}") from error
        if picture is None:
            raise InputError(f"{uri}: not a picture that can be decoded")
        if min(picture.shape[:2]) < _LEAST_PX:
            raise InputError(f"{uri}: smaller than {_LEAST_PX} px")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def crop(self, sample: Sample) -> Picture:
        """What inference would cut: the square in the middle, without the margin that training may use."""
        return Window().within(sample.reach).cut(self.read(sample.uri))

    def _bytes(self, uri: str) -> bytes:
        archive, separator, member = uri.partition(_TAR_SEPARATOR)
        try:
            if not separator:
                return _regular(Path(uri))
            return self._member(f"{archive}.tar", member)
        except _UNREADABLE as error:
            raise InputError(f"{uri}: cannot be read: {error}") from error

    def _member(self, archive: str, member: str) -> bytes:
        if not Path(archive).is_file():
            raise InputError(f"{archive}: not a regular file")
        if archive not in self._members:
            self._members[archive] = _index(archive)
        if member not in self._members[archive]:
            raise InputError(f"{archive} holds no {member}")
        offset, size = self._members[archive][member]
        if size > _MOST_BYTES:
            raise InputError(f"{archive}!{member}: larger than {_MOST_BYTES:,} bytes")
        with Path(archive).open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _pixels(data: bytes) -> float:
    """How many a picture will have, from its header: 160 kB may ask for gigabytes. 0 if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # the limit is ours
        try:
            with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                return picture.width * picture.height
        except PIL.Image.DecompressionBombError:
            return math.inf
        except _NO_HEADER:
            return 0


def _index(archive: str) -> dict[str, tuple[int, int]]:
    """Offset and size of every member of a tar."""
    members: dict[str, tuple[int, int]] = {}
    last = -1
    with tarfile.open(archive, "r:") as tar:
        for entry in tar:
            # A size below 0 leads back to an earlier member, and from there round and round.
            if entry.size < 0 or entry.offset <= last:
                raise tarfile.ReadError(f"{entry.name} has a size below 0")
            last = entry.offset
            members[entry.name] = entry.offset_data, entry.size
    return members


def _regular(path: Path) -> bytes:
    """What a file holds; a pipe would be waited for, a device never ends."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES:,} bytes")
    return path.read_bytes()
