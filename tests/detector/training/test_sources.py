"""Data sets as they lie on disk become lists with the right people, pairs and labels."""

import json
from pathlib import Path

import pytest

from detector.errors import InputError
from detector.training.data import Sample, read_samples
from detector.training.sources import dfdc, faceforensics, find, plain_folders, write_samples


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def _facts(samples: list[Sample]) -> set[tuple[str, int, str, str, str]]:
    return {(Path(s.uri).name, s.label, s.group, s.pair, s.donor) for s in samples}


def test_plain_folders_take_subfolders_as_people(tmp_path: Path):
    _touch(tmp_path, "real/anna/1.mp4", "real/2.mp4", "fake/anna/3.mp4", "fake/.DS_Store")
    assert _facts(plain_folders(tmp_path)) == {
        ("1.mp4", 0, "anna", "anna", ""),
        ("2.mp4", 0, "2", "2", ""),
        ("3.mp4", 1, "anna", "anna", ""),
    }


def test_plain_folders_need_both_classes(tmp_path: Path):
    _touch(tmp_path, "real/1.mp4")
    with pytest.raises(InputError, match="fake/"):
        plain_folders(tmp_path)


def test_dfdc_pairs_fakes_with_their_original_and_skips_what_is_missing(tmp_path: Path):
    _touch(tmp_path, "part_0/a.mp4", "part_0/b.mp4")
    entries = {
        "a.mp4": {"label": "REAL", "split": "train"},
        "b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
        "gone.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
    }
    (tmp_path / "part_0" / "metadata.json").write_text(json.dumps(entries))
    assert _facts(dfdc(tmp_path)) == {("a.mp4", 0, "a", "a", ""), ("b.mp4", 1, "a", "a", "")}


@pytest.mark.parametrize("content", ['["a"]', '{"a.mp4": {"tag": 1}}', '{"a.mp4": {"label": "MAYBE"}}'])
def test_a_list_of_another_form_is_refused(tmp_path: Path, content):
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(InputError, match="not a list of DFDC"):
        dfdc(tmp_path)


def test_dfdc_without_a_list_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"no metadata\.json"):
        dfdc(tmp_path)


def test_faceforensics_knows_who_was_put_in(tmp_path: Path):
    _touch(
        tmp_path,
        "original_sequences/youtube/c23/videos/033.mp4",
        "original_sequences/youtube/c40/videos/033.mp4",
        "original_sequences/actors/c23/videos/28__walking.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/033_097.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/28_06__walking__AB12.mp4",
    )
    assert _facts(faceforensics(tmp_path)) == {
        ("033.mp4", 0, "033", "033", ""),
        ("28__walking.mp4", 0, "actor28", "28__walking", ""),
        ("033_097.mp4", 1, "033", "033", "097"),
        ("28_06__walking__AB12.mp4", 1, "actor28", "28__walking", "actor06"),
    }
    with pytest.raises(InputError, match="raw/videos"):
        faceforensics(tmp_path, "raw")


def test_a_written_list_reads_back(tmp_path: Path):
    samples = [
        Sample(str(tmp_path / "a.png"), 0, "anna", "train", "anna", ""),
        Sample("/elsewhere/b.png", 1, "anna", "train", "anna", "bert"),
    ]
    write_samples(tmp_path / "list.csv", samples)
    assert "a.png" in (tmp_path / "list.csv").read_text().splitlines()[1].split(",")
    assert read_samples(tmp_path / "list.csv") == samples


def test_the_form_of_a_data_set_is_told_by_what_lies_in_it(tmp_path: Path):
    _touch(tmp_path, "plain/real/1.mp4", "plain/fake/2.mp4")
    _touch(tmp_path, "ff/original_sequences/youtube/c40/videos/000.mp4")
    _touch(tmp_path, "dfdc/part_3/a.mp4")
    (tmp_path / "dfdc" / "part_3" / "metadata.json").write_text('{"a.mp4": {"label": "REAL"}}')
    write_samples(tmp_path / "list.csv", [Sample(str(tmp_path / "x.png"), 1, "g", clip="c", reach=1.25)])
    assert [sample.label for sample in find(tmp_path / "plain")] == [0, 1]
    assert [Path(sample.uri).name for sample in find(tmp_path / "ff")] == ["000.mp4"]
    assert [sample.group for sample in find(tmp_path / "dfdc")] == ["a"]
    assert [(sample.clip, sample.reach) for sample in find(tmp_path / "list.csv")] == [("c", 1.25)]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_no_data_set_is_refused(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        find(tmp_path / name)
