"""Reading lists and pictures, splitting by person, and batches in which every fake has its real."""

import itertools
import shutil
import struct
import tarfile
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.errors import InputError
from detector.training.data import (
    BatchOptions,
    CropStore,
    PairedCrops,
    Sample,
    read_samples,
    split_by_component,
)


def test_samples_are_read_with_labels_in_words_and_numbers(toy):
    assert Counter(sample.label for sample in toy) == {0: 10, 1: 20}
    assert {sample.pair for sample in toy} == {f"g{person}" for person in range(10)}


def test_a_missing_pair_is_the_group(tmp_path: Path):
    (tmp_path / "list.csv").write_text("uri,label,group\na.png,0,anna\n")
    assert read_samples(tmp_path / "list.csv") == [
        Sample(str(tmp_path / "a.png"), 0, "anna", split="", pair="anna")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,label\na.png,0\n", "group is missing"),
        ("uri,label,group\na.png,0,g\nb.png,maybe,g\n", r"list.csv:3: label 'maybe'"),
        ("uri,label,group\n,0,g\n", "must not be empty"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(tmp_path: Path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_samples(tmp_path / "list.csv")


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


def test_no_person_is_on_two_sides_of_a_split():
    rng = np.random.default_rng(0)
    people = [f"p{number}" for number in range(60)]
    samples = [
        Sample(str(index), int(index % 2), people[index % 60], donor=people[(index % 60) // 3 * 3])
        for index in range(600)
    ]
    samples = [samples[index] for index in rng.permutation(600)]
    split = split_by_component(samples, 0.2, seed=3)
    sides: dict[str, set[str]] = {}
    for sample in split:
        for person in (sample.group, sample.donor):
            sides.setdefault(person, set()).add(sample.split)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(sample.split for sample in split)["val"] == pytest.approx(120, abs=35)
    assert split == split_by_component(samples, 0.2, seed=3)


def test_later_data_moves_nobody_to_the_other_side():
    samples = [Sample(str(number), number % 2, f"p{number // 2}") for number in range(200)]
    before = {s.group: s.split for s in split_by_component(samples, 0.2, seed=0)}
    more = [Sample(f"n{number}", number % 2, f"n{number // 2}") for number in range(20)]
    after = {s.group: s.split for s in split_by_component(samples + more, 0.2, seed=0)}
    assert {group: after[group] for group in before} == before


@pytest.mark.parametrize("seed", range(6))
def test_both_classes_are_on_both_sides_of_few_people(seed: int):
    samples = [Sample(str(number), number % 2, f"p{number}") for number in range(6)]
    for share in (0.1, 0.9):
        split = split_by_component(samples, share, seed)
        for side in ("train", "val"):
            assert {sample.label for sample in split if sample.split == side} == {0, 1}


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_a_split_with_both_classes_on_both_sides_is_found_where_there_is_one(share: float):
    for seed in range(300):
        rng = np.random.default_rng(seed)
        people = {f"p{number}": str(rng.choice(["0", "1", "01"])) for number in range(rng.integers(2, 6))}
        samples = [Sample(name, int(label), name) for name, labels in people.items() for label in labels]

        def is_good(val: set[str], samples: list[Sample] = samples) -> bool:
            sides = ({s.label for s in samples if (s.group in val) == inside} for inside in (True, False))
            return all(labels == {0, 1} for labels in sides)

        exists = any(is_good(set(val)) for n in range(6) for val in itertools.combinations(people, n))
        val = {s.group for s in split_by_component(samples, share, seed) if s.split == "val"}
        assert is_good(val) == exists, f"{people}: with {val or 'nobody'} in val a side lacks a class"


def test_a_real_person_a_fake_one_and_one_of_both_are_split_as_only_one_way_works():
    samples = [Sample("ar", 0, "a"), Sample("af", 1, "a"), Sample("b", 0, "b"), Sample("c", 1, "c")]
    for seed in range(100):
        sides = {s.group: s.split for s in split_by_component(samples, 0.2, seed)}
        assert sides["b"] == sides["c"] != sides["a"], f"seed {seed}: {sides}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uri,label\na.png,real\n", "column group is missing"),
        ("uri,label,group\na.png\n", r"s.csv:2: label ''"),
        ("uri,label,group\n\n\na.png,reel,g\n", r"s.csv:4: label 'reel'"),
        (
            "uri,label,group,split\na.png,real,g,validation\n",
            "split 'validation' is neither of train, val",
        ),
    ],
)
def test_mistakes_in_a_csv_are_told_with_their_line(tmp_path: Path, text: str, said: str):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_samples(tmp_path / "s.csv")


def test_a_csv_as_spreadsheets_write_it_is_read(tmp_path: Path):
    (tmp_path / "s.csv").write_bytes("\ufeffuri,label,group\r\nü.png,FAKE,g\r\n".encode())
    (sample,) = read_samples(tmp_path / "s.csv")
    assert (Path(sample.uri).name, sample.label) == ("ü.png", 1)


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


def test_a_batch_holds_pairs_under_the_same_window(toy):
    batch = PairedCrops(toy, BatchOptions(size=48, batch=8, seed=1))[5]
    assert batch.frames.shape == (8, 48, 48, 3)
    assert batch.frames.dtype == torch.uint8
    assert batch.labels.tolist() == [0.0] * 4 + [1.0] * 4
    assert torch.equal(batch.windows[:4], batch.windows[4:])
    for real, fake in zip(batch.rows[:4], batch.rows[4:], strict=True):
        assert toy[real].pair == toy[fake].pair
        assert (toy[real].label, toy[fake].label) == (0, 1)


def test_a_step_always_gives_the_same_batch_and_steps_differ(toy):
    options = BatchOptions(size=32, batch=8, seed=4)
    first, second = PairedCrops(toy, options), PairedCrops(toy, options)
    assert torch.equal(first[7].frames, second[7].frames)
    assert not torch.equal(first[7].frames, first[8].frames)


def test_blended_fakes_need_no_fake_files(toy):
    reals = [sample for sample in toy if sample.label == 0]
    batch = PairedCrops(reals, BatchOptions(size=32, batch=8, blended=1.0))[0]
    assert batch.rows[4:].tolist() == [-1] * 4
    assert not torch.equal(batch.frames[:4], batch.frames[4:])


def test_training_needs_both_classes(toy):
    with pytest.raises(InputError, match="needs both"):
        PairedCrops([sample for sample in toy if sample.label == 0], BatchOptions())


def test_what_is_stored_wider_is_learned_from_as_if_it_were_not(toy, tmp_path: Path):
    real = CropStore().read(toy[0].uri)
    wide = np.pad(real, ((16, 16), (16, 16), (0, 0)))
    cv2.imwrite(str(tmp_path / "wide.png"), wide[..., ::-1])
    stored = Sample(str(tmp_path / "wide.png"), 0, "g", reach=1.5)
    assert np.array_equal(CropStore().crop(stored), real)


@pytest.mark.parametrize("reach", ["wide", "0.5", "9"])
def test_a_reach_that_cannot_be_is_refused(tmp_path: Path, reach: str):
    (tmp_path / "crops.csv").write_text(f"uri,label,group,reach\na.png,real,g,{reach}\n")
    with pytest.raises(InputError, match="reach"):
        read_samples(tmp_path / "crops.csv")
