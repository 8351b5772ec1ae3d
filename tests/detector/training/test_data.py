"""Lists of labelled crops: read, refused with their line, and split by person."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from detector.errors import InputError
from detector.training.data import Sample, read_samples, split_by_component


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


@pytest.mark.parametrize("reach", ["wide", "0.5", "9"])
def test_a_reach_that_cannot_be_is_refused(tmp_path: Path, reach: str):
    (tmp_path / "crops.csv").write_text(f"uri,label,group,reach\na.png,real,g,{reach}\n")
    with pytest.raises(InputError, match="reach"):
        read_samples(tmp_path / "crops.csv")
