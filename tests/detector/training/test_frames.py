"""The whole of stage A on the toy set: it learns, starts from weights, and uses a teacher."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detector.efficientnet import EfficientNetLite0
from detector.errors import WeightsError
from detector.training.data import BatchOptions
from detector.training.frames import FrameCycle, run
from detector.training.loop import CycleOptions
from detector.weights import Architecture

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=8, projection=16, hidden=8)
CYCLE = CycleOptions(learning_rate=3e-3, workers=0, average=0.9, validate_every=1000)


def _plan(toy, folder: Path, steps: int, **changes) -> FrameCycle:
    return FrameCycle(
        name="toy",
        train=[sample for sample in toy if sample.split == "train"],
        validation=[sample for sample in toy if sample.split == "val"],
        folder=folder,
        batches=BatchOptions(size=32, batch=8, steps=steps),
        cycle=CYCLE,
        architecture=ARCHITECTURE,
        validation_data="toy",
        **changes,
    )


def test_a_cycle_ends_in_a_weights_file_that_the_next_starts_from(toy, tmp_path: Path):
    first = run(_plan(toy, tmp_path / "first", 40))
    assert first.end.finished
    assert first.figures is not None
    assert first.figures.auc == 1.0
    assert (tmp_path / "first" / "curves.png").stat().st_size > 1000
    path = tmp_path / "first" / "toy.safetensors"
    second = run(_plan(toy, tmp_path / "second", 1, init_from=path))
    assert second.figures is not None
    assert second.figures.auc == 1.0


def test_weights_of_another_architecture_are_refused(toy, tmp_path: Path):
    run(_plan(toy, tmp_path / "first", 1))
    plan = _plan(toy, tmp_path / "second", 1, init_from=tmp_path / "first" / "toy.safetensors")
    other = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=4, projection=16, hidden=8)
    with pytest.raises(WeightsError, match="architecture"):
        run(FrameCycle(**{name: getattr(plan, name) for name in plan.__slots__} | {"architecture": other}))


def test_a_teacher_is_asked_once(toy, tmp_path: Path):
    torch.manual_seed(0)
    save_file(EfficientNetLite0().state_dict(), tmp_path / "teacher.safetensors")
    changes = {"teacher": tmp_path / "teacher.safetensors", "teacher_size": 64}
    assert run(_plan(toy, tmp_path / "run", 2, **changes)).end.finished
    answers = (tmp_path / "run" / "teacher" / "logits.npy").stat().st_mtime_ns
    assert run(_plan(toy, tmp_path / "run", 2, **changes)).end.finished
    assert (tmp_path / "run" / "teacher" / "logits.npy").stat().st_mtime_ns == answers
