"""Reading lists and pictures, splitting by person, and batches in which every fake has its real."""

from collections import Counter
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
    split = split_by_component(samples, {"train": 0.8, "val": 0.2}, seed=3)
    sides: dict[str, set[str]] = {}
    for sample in split:
        for person in (sample.group, sample.donor):
            sides.setdefault(person, set()).add(sample.split)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(sample.split for sample in split)["val"] == pytest.approx(120, abs=35)
    assert split == split_by_component(samples, {"train": 0.8, "val": 0.2}, seed=3)


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
