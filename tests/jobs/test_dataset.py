"""`dataset check`: what is said of labelled data before it is trained on."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.jobs.conftest import Command
from tests.media import moving_face, write_video


def _picture(path: Path, seed: int, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 120, (48, 48, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise + np.uint8(level))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(12):
        _picture(tmp_path / "set" / "real" / f"p{number}" / "a.png", number)
        _picture(tmp_path / "set" / "fake" / f"p{number}" / "b.png", 100 + number)
    return tmp_path / "set"


def test_a_good_set_is_fit_and_its_csv_can_be_trained_on(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    done = command("dataset", "check", pictures, "--csv", tmp_path / "samples.csv")
    assert (done.code, done.err) == (0, "")
    assert "fakes without their real: 0" in done.out
    assert done.out.splitlines()[-1] == "fit for training"
    again = command("dataset", "check", tmp_path / "samples.csv", "--json")
    assert json.loads(again.out)["audit"]["groups"] == {"train": 10, "val": 2}


def test_brightness_that_tells_the_label_is_a_leak(command: Command, pictures: Path) -> None:
    for number in range(12):
        _picture(pictures / "fake" / f"p{number}" / "b.png", 100 + number, level=80)
    done = command("dataset", "check", pictures)
    assert done.code == 0
    assert "warning: leak: size, colour and sharpness alone tell real from fake (AUC 1.00)" in done.out


def test_broken_files_are_listed(command: Command, pictures: Path) -> None:
    (pictures / "real" / "p0" / "a.png").write_bytes(b"no picture")
    (pictures / "real" / "p1" / "readme.md").write_text("x")
    report = json.loads(command("dataset", "check", pictures, "--json").out)
    assert report["audit"]["unreadable"] == [str(pictures / "real" / "p0" / "a.png")]
    assert report["skipped"] == {".md": 1}


def test_of_crops_that_others_cut_every_one_is_tried(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    lines = [
        f"{path},{path.parent.parent.name},{path.parent.name},clip of {path.parent},1.25"
        for path in pictures.rglob("*.png")
    ]
    (pictures / "real" / "p0" / "first.png").write_bytes(b"no picture")
    lines.insert(0, f"{pictures / 'real/p0/first.png'},real,p0,clip of {pictures / 'real/p0'},1.25")
    (tmp_path / "s.csv").write_text("\n".join(["uri,label,group,clip,reach", *lines]))
    report = json.loads(command("dataset", "check", tmp_path / "s.csv", "--json").out)
    assert report["audit"]["unreadable"] == [str(pictures / "real" / "p0" / "first.png")], (
        "clip and reach of a CSV made its crops pass for ones that were cut here"
    )


def test_pictures_that_cannot_be_read_do_not_count_for_their_side(command: Command, tmp_path: Path) -> None:
    lines = ["uri,label,group,split"]
    for number, split in enumerate(("train", "train", "val", "val")):
        _picture(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'fake' if number % 2 else 'real'},p{number},{split}")
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "s.csv").write_text("\n".join(lines))
    done = command("dataset", "check", tmp_path / "s.csv", "--json")
    assert json.loads(done.out)["lacking"] == ["the side `val` has 1 reals and 0 fakes; it needs both"]
    assert done.code == 2


def test_the_same_picture_with_two_labels_is_not_fit(command: Command, pictures: Path) -> None:
    shutil.copy(pictures / "real" / "p3" / "a.png", pictures / "fake" / "p3" / "b.png")
    done = command("dataset", "check", pictures)
    assert done.code == 2
    assert "not fit for training: 1 pictures come twice" in done.out


def test_a_side_without_fakes_is_not_fit(command: Command, tmp_path: Path) -> None:
    lines = ["uri,label,group,split"]
    for number, split in enumerate(("train", "train", "val")):
        _picture(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'fake' if number == 1 else 'real'},p{number},{split}")
    (tmp_path / "s.csv").write_text("\n".join(lines))
    done = command("dataset", "check", tmp_path / "s.csv", "--json")
    assert done.code == 2
    report = json.loads(done.out)
    assert report["lacking"] == ["the side `val` has 1 reals and 0 fakes; it needs both"]
    assert report["audit"]["blind_auc"] is not None


def test_videos_beside_pictures_are_opened_not_cut(command: Command, pictures: Path) -> None:
    (pictures / "real" / "v").mkdir()
    write_video(pictures / "real" / "v" / "a.mp4", moving_face(12, (160, 160), face_px=90))
    done = command("dataset", "check", pictures, "--address", "in-process")
    assert done.code == 0, done.out
    assert "no_face" not in done.out


def test_a_split_for_some_lines_only_is_refused(command: Command, tmp_path: Path) -> None:
    for name in "ab":
        _picture(tmp_path / f"{name}.png", ord(name))
    (tmp_path / "s.csv").write_text("uri,label,group,split\na.png,real,1,train\nb.png,fake,2,\n")
    done = command("dataset", "check", tmp_path / "s.csv")
    assert done.code == 2
    assert "split stands in 1 of 2 lines" in done.err


def test_dfdc_videos_are_opened_and_broken_ones_named(command: Command, tmp_path: Path) -> None:
    part = tmp_path / "dfdc_train_part_0"
    part.mkdir()
    for number, name in enumerate("abcd"):
        write_video(part / f"{name}.mp4", moving_face(12, (160, 160), face_px=90, seed=number))
    (part / "e.mp4").write_bytes(b"\0" * 2000)
    fake = {"label": "FAKE", "split": "train"}
    labels = {
        "a.mp4": {"label": "REAL", "split": "train"},
        "b.mp4": {"label": "REAL", "split": "train"},
        "c.mp4": fake | {"original": "a.mp4"},
        "d.mp4": fake | {"original": "b.mp4"},
        "e.mp4": fake | {"original": "b.mp4"},
        "away.mp4": fake | {"original": "a.mp4"},
    }
    (part / "metadata.json").write_text(json.dumps(labels))
    done = command("dataset", "check", tmp_path, "--address", "in-process", "--validation", "50%")
    assert done.code == 0, done.err
    assert f"{part / 'e.mp4'}: not_video" in done.out
    assert "file size, shape, rate, length, codec and container alone" in done.out
    assert "1 real in train" in done.out


def test_what_is_no_data_set_is_told(command: Command, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    done = command("dataset", "check", tmp_path / "videos")
    assert done.code == 2
    assert "not a data set of a form that is known" in done.err
    assert command("dataset", "check", tmp_path / "nowhere").code == 2
