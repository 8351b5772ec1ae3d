"""From folders of videos to a weights file that a scan takes, by the command."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.finish import Figures
from detector.training.loop import CycleEnd
from detector.training.train import Outcome
from detector.types import CropSpec, ExtractOptions, Sampling
from detector.weights import Architecture, Input, read, resolve, write
from jobs import crop_shards, train, train_report
from jobs.cli_options import print_json
from jobs.config import ScanSettings
from jobs.crop_shards import REACH, cut, extract_options
from jobs.dataset import samples_of
from jobs.files import alone_in
from jobs.train_config import TrainSettings
from tests.jobs.conftest import Command
from tests.scans import read_rows
from tests.toy import make_toy_set

# A network of seconds, from random weights.
SMALL = {
    "init_from": "null",
    "layers": "[1, 1, 1, 1]",
    "groups": 1,
    "width_per_group": 8,
    "size": 32,
    "images": 960,
    "batch": 16,
    "learning_rate": 3e-3,
    "blended": 0,
    "validation": "40%",
    "clips": 20,
    "validate_every": 1000,
    "address": "in-process",
    "workers": 0,
    "threads": 1,
    "dtype": "float32",
}


def _sets(**changes: object) -> list[str]:
    return [f"--set={key}={value}" for key, value in (SMALL | changes).items()]


@pytest.fixture(scope="module")
def toy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 videos, half of them with an obvious artefact."""
    return make_toy_set(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def cut_once(toy_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The crops of the toy set, to be linked into an output."""
    folder = tmp_path_factory.mktemp("cut") / "crops"
    settings = ScanSettings(address="in-process")
    options = extract_options(settings, Input(), windows=4, min_face_px=60)
    assert len(list(cut([str(p) for p in toy_set.rglob("*.mp4")], settings, options, folder))) == 20
    return folder


@pytest.fixture
def output(cut_once: Path, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "crops").symlink_to(cut_once)
    return tmp_path / "out"


def test_a_folder_of_videos_becomes_weights_that_a_scan_takes(
    command: Command, toy_set: Path, output: Path, tmp_path: Path
) -> None:
    done = command("train", toy_set, "--output", output, *_sets(images=2400), "--json")
    assert done.code == 0, done.err
    trained = json.loads(done.out)
    assert trained["figures"]["auc"] == 1.0
    weights = read(Path(trained["weights"]))
    assert weights.weights_id == trained["weights_id"]
    assert str(toy_set) in weights.header.policy.data
    assert "20 of 20 videos cut" in done.err
    options = ["--weights", trained["weights"], "--address", "in-process"]
    scan = command("scan", toy_set, "--output", tmp_path / "scan", *options)
    assert scan.code == 0, scan.err
    scores: dict[str, list[float]] = {"real": [], "fake": []}
    for row in read_rows(tmp_path / "scan"):
        scores[Path(row["uri"]).parent.name].append(row["p_fake"])
    assert len(scores["fake"]) == len(scores["real"]) == 10
    assert min(scores["fake"]) > max(scores["real"])


def test_the_same_command_goes_on_and_other_settings_are_refused(
    command: Command, toy_set: Path, output: Path
) -> None:
    short = _sets(images=32)
    assert command("train", toy_set, "-o", output, *short).code == 0
    first = (output / "trained.safetensors").read_bytes()
    done = command("train", toy_set, "-o", output, *short)
    assert done.code == 0
    assert (output / "trained.safetensors").read_bytes() == first
    other = command("train", toy_set, "-o", output, *_sets(images=64, seed=1))
    assert other.code == 2
    assert "holds a training that was begun with other settings: images, seed" in other.err


def test_a_training_goes_on_whatever_became_of_its_data(
    command: Command, toy_set: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    for path in sorted(toy_set.rglob("*.mp4")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(path, folder / path.parent.name / path.name)
    short = _sets(images=32, windows=1)
    assert command("train", folder, "-o", tmp_path / "out", *short).code == 0
    first = (tmp_path / "out" / "trained.safetensors").read_bytes()
    (folder / "real" / "00.mp4").unlink()
    assert command("train", folder, "-o", tmp_path / "out", *short).code == 0
    assert (tmp_path / "out" / "trained.safetensors").read_bytes() == first


def test_two_trainings_do_not_share_an_output(command: Command, toy_set: Path, output: Path) -> None:
    with alone_in(output):
        done = command("train", toy_set, "-o", output, *_sets())
    assert done.code == 5
    assert "another training writes to" in done.err


def test_what_is_not_a_folder_or_not_a_checkpoint_is_told(
    command: Command, toy_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    done = command("train", toy_set, "-o", tmp_path / "file", *_sets())
    assert done.code == 4
    (tmp_path / "start.pth").write_text("no checkpoint")
    done = command("train", toy_set, "-o", tmp_path / "out", *_sets(init_from=tmp_path / "start.pth"))
    assert done.code == 2
    assert "not a checkpoint that can be loaded" in done.err


def test_people_on_both_sides_are_refused(command: Command, toy_set: Path, output: Path) -> None:
    lines = [
        {
            "uri": str(path),
            "label": path.parent.name,
            "group": "anna",
            "split": "train" if number % 2 else "val",
        }
        for number, path in enumerate(sorted(toy_set.rglob("*.mp4")))
    ]
    table = output / "samples.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("uri", "label", "group", "split"))
        writer.writeheader()
        writer.writerows(lines)
    done = command("train", table, "-o", output, *_sets())
    assert done.code == 2
    assert "1 people are on more than one side of the split: anna" in done.err
    assert json.loads((output / "dataset.json").read_text())["shared"] == ["anna"]


def test_leaks_and_broken_videos_are_told_and_the_rest_is_learned(
    command: Command, toy_set: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    for path in sorted(toy_set.rglob("*.mp4")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        if path.stem < "03":
            os.link(path, folder / path.parent.name / path.name)
    (folder / "real" / "broken.mp4").write_bytes(b"\0" * 5000)
    (folder / "fake" / "notes.txt").write_text("not a video")
    done = command("train", folder, "-o", tmp_path / "out", *_sets(images=16, windows=1))
    assert done.code == 0, done.err
    assert "leak: file size, shape, rate, length, codec and container alone" in done.err
    assert "videos give no crops: 1 not_video" in done.err
    assert "left out: 1 .txt" in done.err


def test_a_side_without_fakes_is_told_before_anything_is_trained(
    command: Command, toy_set: Path, tmp_path: Path
) -> None:
    table = tmp_path / "samples.csv"
    reals = [f"{path},real,p{path.stem}" for path in sorted((toy_set / "real").iterdir())]
    table.write_text("\n".join(["uri,label,group", *reals[:3]]) + "\n")
    done = command("train", table, "-o", tmp_path / "out", *_sets(windows=1))
    assert done.code == 2
    assert "and 0 fakes; it needs both" in done.err
    assert not (tmp_path / "out" / "log.csv").exists()


def test_all_mistakes_in_settings_are_said_at_once(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("imags: 5\nbatch: 3\nvalidation: 0.2\n")
    done = command("train", tmp_path, "-o", tmp_path / "out", "--config", file)
    assert done.code == 2
    assert f"{file}:1: imags is not a key. Did you mean images?" in done.err
    assert f"{file}:2: batch" in done.err
    assert f"{file}:3: validation" in done.err
    assert command("config", "check", "--train", file).code == 2


def test_the_weights_that_a_teacher_is_and_its_student_have_to_fit(
    command: Command, toy_set: Path, tmp_path: Path, seeded: Path
) -> None:
    done = command("train", toy_set, "-o", tmp_path / "out", *_sets(teacher=seeded))
    assert done.code == 2
    assert "not an efficientnet_lite0_lstm" in done.err
    default = command(
        "train", toy_set, "-o", tmp_path / "out", *_sets(teacher="default", init_from="default")
    )
    assert default.code == 2
    assert "only a resnext_lstm learns from a teacher" in default.err


@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_weights_whose_tensors_are_not_those_of_their_header_are_told_before_videos_are_cut(
    command: Command, tmp_path: Path, key: str
) -> None:
    header = read(resolve("efficientnet_lite0_lstm")).header
    write(tmp_path / "claims.safetensors", header, {"projection.weight": torch.zeros(2)})
    sets = _sets(**{key: tmp_path / "claims.safetensors"})
    done = command("train", tmp_path / "no data", "-o", tmp_path / "out", *sets)
    assert done.code == 2
    assert "the tensors do not fit" in done.err, f"{key} was not looked at before the data"


def test_a_start_without_statistics_is_not_trained_as_if_it_had_some(
    command: Command, toy_set: Path, tmp_path: Path
) -> None:
    sets = _sets(init_from="default", fold_batchnorm="false")
    done = command("train", toy_set, "-o", tmp_path / "out", *sets)
    assert done.code == 2
    assert "fold_batchnorm: default was trained with it" in done.err


def test_the_lstm_is_trained_on_as_many_frames_as_inference_gives_it(tmp_path: Path) -> None:
    settings, real = TrainSettings(init_from=None), Sample("a.png", 0, "anna", "train")
    plan = train._plan(settings, [real], Architecture(), Input(frames=4), tmp_path)
    assert plan.clips is not None
    assert plan.clips.frames == 4, "the header says 4 frames a clip, stage B makes clips of another length"


def test_an_interval_that_one_group_does_not_have_is_null_in_json_and_left_out_in_words() -> None:
    none = math.nan
    figures = Figures(
        crops=20,
        groups=1,
        auc=0.8,
        auc_low=none,
        auc_high=none,
        auc_jpeg40=0.8,
        auc_tighter=0.8,
        auc_wider=0.8,
        auc_unseen_blends=0.5,
        recall_fpr5=0.4,
        recall_fpr1=0.2,
    )
    outcome = Outcome(CycleEnd(step=5, finished=True), path=Path("a.safetensors"), figures=figures)
    assert "validation AUC 0.800 (20 crops of 1 groups)" in train_report.closing(outcome)
    found = train_report.as_json(outcome)["figures"]
    assert (found["auc"], found["auc_low"], found["auc_high"]) == (0.8, None, None)
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"auc": none})


# --- crops ------------------------------------------------------------------------------------------------


def test_what_is_learned_from_is_what_a_scan_would_cut(toy_set: Path, cut_once: Path) -> None:
    from detector import faces
    from detector.extraction import extract_clips

    video = toy_set / "real" / "03.mp4"
    (stored,) = [crops for crops in crop_shards._stored(cut_once) if crops.uri == str(video)]
    samples = samples_of(Sample(str(video), 0, "p"), stored)
    options = ExtractOptions(sampling=Sampling(windows=4), crop=CropSpec(size=round(256 / REACH)))
    with video.open("rb") as file:
        scanned = extract_clips(file, options, faces.load("yunet"))
    crops = [CropStore().crop(sample) for sample in samples]
    expected = scanned.clips.pixels[scanned.clips.mask]
    assert len(crops) == len(expected)
    # JPEG and one more rounding of the region lie between them.
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(crops, expected, strict=True)]) < 6


def test_cutting_goes_on_behind_the_last_whole_shard(
    toy_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_shards, "_VIDEOS_PER_SHARD", 2)
    settings = ScanSettings(address="in-process")
    options = extract_options(settings, Input(), windows=1, min_face_px=60)
    videos = sorted(str(path) for path in (toy_set / "real").iterdir())[:5]

    run = cut(videos, settings, options, tmp_path)
    first = [next(run).uri for _ in range(2)]
    run.close()  # as a kill does: the shard at hand has no index
    (tmp_path / "000002.tar.part").write_bytes(b"half")
    whole = (tmp_path / "000001.tar").stat().st_mtime_ns

    again = {crops.uri: crops for crops in cut(videos, settings, options, tmp_path)}
    assert sorted(again) == videos
    assert set(first) < set(again)
    assert (tmp_path / "000001.tar").stat().st_mtime_ns == whole
    for crops in again.values():
        assert CropStore().read(f"{crops.tar}!{crops.clips[0][0]}").shape == (256, 256, 3)
    third = {crops.uri: crops for crops in cut(videos, settings, options, tmp_path)}
    assert third == again
