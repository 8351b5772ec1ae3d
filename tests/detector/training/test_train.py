"""A whole training on the toy set: both stages, one file."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

import detector.training.train
from detector.model import Model
from detector.training.batches import BatchOptions
from detector.training.clips import ClipOptions
from detector.training.frames import FrameCycle, FramesEnd, train_frames
from detector.training.heads import HeadOptions
from detector.training.loop import CycleOptions
from detector.training.train import Training, train
from detector.weights import Architecture, Input, read

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=8, projection=16, hidden=8)


def _plan(toy, folder: Path, steps: int = 40, **changes) -> Training:
    frames = FrameCycle(
        train=[sample for sample in toy if sample.split == "train"],
        validation=[sample for sample in toy if sample.split == "val"],
        folder=folder,
        batches=BatchOptions(size=32, batch=8, steps=steps),
        cycle=CycleOptions(learning_rate=3e-3, workers=0, average=0.9, validate_every=1000),
        architecture=ARCHITECTURE,
    )
    return Training(
        name="toy",
        frames=frames,
        input=Input(size=32),
        validation_data="toy",
        provenance={"data": "toy"},
        **changes,
    )


def test_both_stages_end_in_one_file(toy, tmp_path: Path):
    plan = _plan(toy, tmp_path, clips=ClipOptions(frames=3, per_class=8), heads=HeadOptions(epochs=2))
    outcome = train(plan)
    assert outcome.figures is not None
    assert outcome.figures.auc == 1.0
    assert outcome.heads is not None
    assert outcome.path == tmp_path / "toy.safetensors"
    header = read(outcome.path).header
    assert header.architecture.mix == outcome.heads.mix
    assert header.provenance == {"data": "toy"}
    assert header.policy.data == "toy"
    Model(read(outcome.path))


def test_the_same_call_again_gives_the_same_file(toy, tmp_path: Path):
    plan = _plan(toy, tmp_path, steps=3, clips=ClipOptions(frames=2, per_class=4))
    first, second = train(plan), train(plan)
    assert first.weights is not None
    assert second.weights is not None
    assert first.weights.sha256 == second.weights.sha256


def test_a_stop_in_the_last_step_begins_no_second_stage(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = _plan(toy, tmp_path, steps=1, clips=ClipOptions(frames=2, per_class=4))

    def stopped(_: object) -> FramesEnd:
        done = train_frames(plan.frames)
        return FramesEnd(replace(done.end, signal=signal.SIGTERM), done.state)

    with monkeypatch.context() as patched:
        patched.setattr(detector.training.train, "train_frames", stopped)
        assert train(plan).weights is None, "it was asked to stop, and went on with stage B"
    assert not (tmp_path / "clips").exists()
    assert train(plan).weights is not None


def test_without_clips_the_frames_decide(toy, tmp_path: Path):
    outcome = train(_plan(toy, tmp_path, steps=2, clips=None))
    assert outcome.heads is None
    assert outcome.weights is not None
    assert outcome.weights.header.architecture.mix == 0.0
