"""Labelled crops of strangers: read as inference cuts them, or refused in words."""

import shutil
import struct
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.errors import InputError
from detector.training.crop_store import CropStore
from detector.training.data import Sample


def test_pictures_come_from_files_and_from_tars_in_rgb(toy):
    store = CropStore()
    pictures = [store.read(sample.uri) for sample in toy]
    assert any(".tar!" in sample.uri for sample in toy)
    for sample, picture in zip(toy, pictures, strict=True):
        middle = picture[32, 32].tolist()
        assert (middle == [250, 250, 40]) == bool(sample.label)


def test_what_is_no_picture_is_an_input_error(toy_csv: Path, tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for uri in (tmp_path / "text.jpg", tmp_path / "empty.jpg", toy_csv.parent / "crops.tar!missing.png"):
        with pytest.raises(InputError):
            CropStore().read(str(uri))


def test_pictures_that_cannot_be_used_say_why(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 200)
    for uri, said in (
        ("dot.png", "smaller than 16 px"),
        ("bad.tar!x.png", "cannot be read"),
        ("no.png", "cannot"),
    ):
        with pytest.raises(InputError, match=said):
            CropStore().read(str(tmp_path / uri))


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        (".png", []),
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".bmp", []),
    ],
)
def test_pictures_of_these_kinds_are_read_and_torn_ones_refused(tmp_path: Path, suffix: str, how: list[int]):
    picture = np.random.default_rng(0).integers(0, 256, (300, 523, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, picture, how)[1].tobytes()
    file = tmp_path / f"picture{suffix}"
    file.write_bytes(data)
    assert CropStore().read(str(file)).shape == (300, 523, 3)
    for cut in range(0, 700, 7):
        file.write_bytes(data[:cut])
        with suppress(InputError):
            assert CropStore().read(str(file)).shape == (300, 523, 3), f"another size, torn at {cut}"


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path):
    rows = zlib.compress(bytes(6001) * 6000, 9)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 6000, 6000, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    png = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    assert len(png) < 40_000
    with pytest.raises(InputError, match="larger than 33,554,432 px"):
        CropStore().read(str(tmp_path / "bomb.png"))
    header = struct.pack("<IIIIiiHH", 0, 0, 54, 40, 1 << 29, 1 << 29, 1, 24)
    (tmp_path / "bomb.bmp").write_bytes(b"BM" + header + bytes(40))
    with pytest.raises(InputError, match="larger than 33,554,432 px"):
        CropStore().read(str(tmp_path / "bomb.bmp"))


def _member(size: int, kind: bytes = tarfile.REGTYPE, name: str = "a.png") -> bytes:
    """A header as GNU tar writes it, without what it heads."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "tar",
    [
        _member(0) + _member(-512),
        _member(0) + _member(20, tarfile.XHDTYPE) + b"14 size=-1536\n".ljust(512, b"\0") + _member(512),
        _member(0) + _member(-512, tarfile.GNUTYPE_SPARSE),
        _member(1 << 80),
        _member(1 << 80, tarfile.XHDTYPE) + _member(0),
        _member(1 << 62, tarfile.XHDTYPE) + _member(0),
        b"".join(_member(512, tarfile.GNUTYPE_LONGNAME) + bytes(512) for _ in range(2000)) + _member(0),
    ],
    ids=[
        "below 0",
        "below 0 in pax",
        "below 0 and sparse",
        "beyond 64 bits",
        "beyond 64 bits in pax",
        "longer than memory",
        "names of names",
    ],
)
def test_a_tar_that_leads_astray_is_an_input_error(tmp_path: Path, tar: bytes):
    (tmp_path / "astray.tar").write_bytes(tar + bytes(4096))
    with pytest.raises(InputError, match="cannot be read"):
        CropStore().read(f"{tmp_path / 'astray.tar'}!b.png")


def test_a_tar_that_goes_away_while_it_is_read_is_an_input_error(toy_csv: Path, tmp_path: Path, monkeypatch):
    tar = shutil.copy(toy_csv.parent / "crops.tar", tmp_path / "crops.tar")
    store = CropStore()
    store.read(f"{tar}!p0_0.png")
    tar.unlink()
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # as it was a moment ago
    with pytest.raises(InputError, match="cannot be read"):
        store.read(f"{tar}!p0_0.png")


def test_the_middle_of_a_picture_that_is_not_square_is_taken(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), picture[..., ::-1])
    assert np.array_equal(CropStore().crop(Sample(str(tmp_path / "wide.png"), 0, "g")), picture[:, 10:70])
