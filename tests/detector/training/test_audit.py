"""An audit finds what would make results meaningless."""

import json
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.training.audit import LEAK, audit, blind_auc, blind_facts, container_facts, shared_people
from detector.training.data import Sample


def _set(folder: Path, brighter_fakes: bool) -> list[Sample]:
    samples = []
    rng = np.random.default_rng(0)
    for number in range(80):
        label = number % 2
        picture = rng.integers(0, 200, (24, 24, 3), dtype=np.uint8) + np.uint8(40 * label * brighter_fakes)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        group = f"g{number // 4}"
        samples.append(Sample(str(folder / f"{number}.png"), label, group, "train", group))
    return samples


def test_a_clean_list_is_usable_and_says_so_in_json(tmp_path: Path):
    found = audit(_set(tmp_path, brighter_fakes=False))
    assert found.usable
    assert found.counts == {"train/0": 40, "train/1": 40}
    assert found.groups == {"train": 20}
    assert found.blind_auc < LEAK
    assert json.loads(json.dumps(asdict(found)))["without_real"] == 0


def test_brightness_that_tells_the_classes_apart_is_found(tmp_path: Path):
    assert audit(_set(tmp_path, brighter_fakes=True)).blind_auc > 0.95


def test_people_on_two_sides_are_named_also_as_donors():
    samples = [
        Sample("a", 0, "anna", "train", "anna"),
        Sample("b", 1, "bert", "val", "bert", donor="anna"),
        Sample("c", 0, "carl", "val", "carl"),
    ]
    assert shared_people(samples) == ["anna"]


def test_doubles_and_unreadable_files_are_listed(tmp_path: Path):
    samples = _set(tmp_path, brighter_fakes=False)
    (tmp_path / "text.png").write_text("no picture")
    extra = [
        replace(samples[0], split="val", group="other"),
        replace(samples[0], uri=str(tmp_path / "text.png")),
        replace(samples[0], uri=str(tmp_path / "missing.png")),
        replace(samples[1], pair="nobody"),
    ]
    found = audit(samples + extra)
    assert found.doubled == [(samples[0].uri, samples[0].uri)]
    assert len(found.unreadable) == 2
    assert found.without_real == 1
    assert not found.usable
    assert found.blind_auc == pytest.approx(0.5, abs=0.2)


def test_a_container_that_tells_the_label_is_found():
    samples = [Sample(str(number), number % 2, f"g{number}") for number in range(60)]
    same = {"width": 640, "height": 360, "fps": 25.0, "duration_s": 4.0, "container": "mov", "codec": "h264"}
    rng = np.random.default_rng(0)
    sizes = [same | {"size": int(rng.integers(1e5, 1e6))} for _ in samples]
    codecs = [info | {"codec": "hevc" if s.label else "h264"} for info, s in zip(sizes, samples, strict=True)]
    assert blind_auc(container_facts(sizes), samples) < LEAK
    assert blind_auc(container_facts(codecs), samples) > 0.99
    assert np.isfinite(container_facts([same | {"size": 0, "fps": None, "duration_s": None}])).all()


def test_a_large_picture_is_looked_at_in_little_memory():
    picture = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), dtype=np.uint8)
    tracemalloc.start()
    facts = blind_facts(picture)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * picture.nbytes, f"looking at it takes {peak / picture.nbytes:.0f} times its own memory"
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
    sharpness = np.log1p(cv2.Laplacian(grey, cv2.CV_64F).var())
    assert facts == pytest.approx([1200, 1000, *picture.mean(axis=(0, 1)), grey.std(), sharpness])
