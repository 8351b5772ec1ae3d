"""Stage A on the toy set: it learns, starts from weights, folds normalisation, and uses a teacher."""

from pathlib import Path

import pytest
import torch

from detector.errors import WeightsError
from detector.network import build
from detector.training.batches import BatchOptions
from detector.training.finish import Draft, export
from detector.training.frames import FrameCycle, train_frames
from detector.training.loop import CycleOptions
from detector.weights import Architecture, Input

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=8, projection=16, hidden=8)
CYCLE = CycleOptions(learning_rate=3e-3, workers=0, average=0.9, validate_every=1000)


def _plan(toy, folder: Path, steps: int, **changes) -> FrameCycle:
    plan = {
        "train": [sample for sample in toy if sample.split == "train"],
        "validation": [sample for sample in toy if sample.split == "val"],
        "folder": folder,
        "batches": BatchOptions(size=32, batch=8, steps=steps),
        "cycle": CYCLE,
        "architecture": ARCHITECTURE,
    }
    return FrameCycle(**plan | changes)


def _weights(toy, path: Path, architecture: Architecture = ARCHITECTURE, state=None) -> Path:
    torch.manual_seed(0)
    draft = Draft(name="toy", architecture=architecture, input=Input(size=32), provenance={})
    validation = [sample for sample in toy if sample.split == "val"]
    export(path, draft, state or build(architecture).state_dict(), validation, "toy")
    return path


def test_a_cycle_learns_and_the_next_starts_from_its_weights(toy, tmp_path: Path):
    first = train_frames(_plan(toy, tmp_path / "first", 40))
    assert first.end.finished
    assert first.end.figures["auc"] == 1.0
    assert set(first.end.figures) == {"auc", "auc_unseen_blends"}
    assert (tmp_path / "first" / "curves.png").stat().st_size > 1000
    path = _weights(toy, tmp_path / "toy.safetensors", state=first.state)
    second = train_frames(_plan(toy, tmp_path / "second", 1, init_from=path))
    assert second.end.figures["auc"] == 1.0


def test_folded_normalisation_trains_and_comes_back(toy, tmp_path: Path):
    first = train_frames(_plan(toy, tmp_path / "first", 40))
    path = _weights(toy, tmp_path / "toy.safetensors", state=first.state)
    second = train_frames(_plan(toy, tmp_path / "second", 3, init_from=path, folded=True))
    assert second.end.figures["auc"] == 1.0
    assert second.state is not None
    build(ARCHITECTURE).load_state_dict(second.state)


def test_weights_of_another_architecture_are_refused(toy, tmp_path: Path):
    other = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=4, projection=16, hidden=8)
    path = _weights(toy, tmp_path / "toy.safetensors", other)
    with pytest.raises(WeightsError, match="architecture"):
        train_frames(_plan(toy, tmp_path / "run", 1, init_from=path))


def test_a_trained_student_learns_from_a_teacher_too(toy, tmp_path: Path):
    teacher = Architecture(family="efficientnet_lite0_lstm", projection=16, hidden=8)
    files = {"teacher": _weights(toy, tmp_path / "teacher.safetensors", teacher)}
    files["init_from"] = _weights(toy, tmp_path / "start.safetensors")
    assert train_frames(_plan(toy, tmp_path / "run", 1, folded=True, **files)).end.finished


def test_a_teacher_is_asked_once(toy, tmp_path: Path):
    teacher = Architecture(family="efficientnet_lite0_lstm", projection=16, hidden=8)
    plan = _plan(toy, tmp_path / "run", 2, teacher=_weights(toy, tmp_path / "teacher.safetensors", teacher))
    assert train_frames(plan).end.finished
    (answers,) = (tmp_path / "run" / "teacher").glob("*/logits.npy")
    written = answers.stat().st_mtime_ns
    assert train_frames(plan).end.finished
    assert answers.stat().st_mtime_ns == written
    assert len(list(answers.parent.parent.iterdir())) == 1
