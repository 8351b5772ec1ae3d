"""A cycle learns, and one that was stopped half-way ends in the very weights of one that was not."""

import csv
import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.errors import SettingsError
from detector.evaluation.metrics import auc
from detector.network import ResNeXtLSTM
from detector.training.batches import Batch, BatchOptions, PairedCrops
from detector.training.curves import draw_curves
from detector.training.distil import normalised
from detector.training.loop import Cycle, CycleOptions, rate_at
from detector.training.objective import FrameObjective, ObjectiveOptions, frame_logits
from detector.weights import Architecture

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=8, projection=16, hidden=8)
OPTIONS = CycleOptions(learning_rate=3e-3, workers=0, validate_every=10, checkpoint_every_s=60.0)


def _objective() -> FrameObjective:
    torch.manual_seed(0)
    return FrameObjective(ResNeXtLSTM(ARCHITECTURE), ObjectiveOptions())


def _batches(toy, steps=20) -> PairedCrops:
    train = [sample for sample in toy if sample.split == "train"]
    return PairedCrops(train, BatchOptions(size=32, batch=8, steps=steps))


def _auc_on(batch: Batch):
    def evaluate(module: nn.Module) -> dict[str, float]:
        network = module.get_submodule("network")
        logits = frame_logits(network, normalised(batch.frames))
        return {"auc": auc(batch.labels.long().numpy(), logits.double().numpy())}

    return evaluate


def _figures(_: nn.Module) -> dict[str, float]:
    return {"constant": 1.0}


def test_an_obvious_artefact_is_learned(toy, tmp_path: Path):
    unseen = PairedCrops(
        [sample for sample in toy if sample.split == "val"], BatchOptions(size=32, batch=16, steps=1)
    )[0]
    options = CycleOptions(learning_rate=3e-3, workers=0, average=0.9, validate_every=60)
    end = Cycle(_objective(), _batches(toy, 60), tmp_path, options, _auc_on(unseen)).run()
    assert end.finished
    assert end.figures["auc"] == pytest.approx(1.0, abs=0.02)


def test_killed_and_continued_is_the_same_as_undisturbed(toy, tmp_path: Path):
    whole = Cycle(_objective(), _batches(toy), tmp_path / "whole", OPTIONS, _figures)
    assert whole.run().finished

    class Stops(FrameObjective):
        """Asks its own process to stop at the eighth step, as a scheduler would."""

        def forward(self, batch):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 8:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch)

    torch.manual_seed(0)
    stops = Stops(ResNeXtLSTM(ARCHITECTURE), ObjectiveOptions())
    first = Cycle(stops, _batches(toy), tmp_path / "cut", OPTIONS, _figures).run()
    assert (first.step, first.finished) == (8, False)
    torch.manual_seed(99)
    other = FrameObjective(ResNeXtLSTM(ARCHITECTURE), ObjectiveOptions())
    second = Cycle(other, _batches(toy), tmp_path / "cut", OPTIONS, _figures)
    assert second.run().finished
    for name, value in whole.averaged_state().items():
        assert torch.equal(value, second.averaged_state()[name]), name


def test_the_log_forgets_steps_that_are_done_again(toy, tmp_path: Path):
    Cycle(_objective(), _batches(toy), tmp_path, OPTIONS, _figures).run()
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "step": 15}, tmp_path / "checkpoint.pt")
    Cycle(_objective(), _batches(toy), tmp_path, OPTIONS, _figures).run()
    with (tmp_path / "validation.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10", "20"]


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (b"", []),
        (b"step,con", []),
        (b"10,1.0\r\n", []),
        (b"step,constant\r\n10,1.0\r\n12\r\n14,1.0,14,1.0\r\n15,1", ["10"]),
        (b"step,constant\r\n10,1.0\r\n\0\0\0,\xff\r\n", ["10"]),
    ],
    ids=["empty", "no whole header", "no header", "short and glued rows", "bytes of a crash"],
)
def test_what_a_full_disk_left_of_a_log_stops_no_training(toy, tmp_path: Path, found: bytes, kept: list[str]):
    Cycle(_objective(), _batches(toy), tmp_path, OPTIONS, _figures).run()
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "step": 19}, tmp_path / "checkpoint.pt")
    for name in ("log.csv", "validation.csv"):
        (tmp_path / name).write_bytes(found)
    assert Cycle(_objective(), _batches(toy), tmp_path, OPTIONS, _figures).run().finished
    draw_curves(tmp_path)
    with (tmp_path / "validation.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"step": step, "constant": "1.0"} for step in [*kept, "20"]]


def test_a_cycle_without_a_checkpoint_keeps_no_rows_of_an_earlier_one(toy, tmp_path: Path):
    (tmp_path / "validation.csv").write_text("step,auc,more\n10,0.5,1\n200,0.7,1\n")
    Cycle(_objective(), _batches(toy, 1), tmp_path, OPTIONS, _figures).run()
    found = (tmp_path / "validation.csv").read_text()
    assert found == "step,constant\n1,1.0\n", (
        "rows of a cycle that left no checkpoint stand among the new ones"
    )


def test_a_stop_in_the_last_validation_is_not_forgotten(toy, tmp_path: Path):
    def stops(_: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {"constant": 1.0}

    end = Cycle(_objective(), _batches(toy, 1), tmp_path, OPTIONS, stops).run()
    assert end.finished
    assert end.signal == signal.SIGTERM, "it was asked to stop, and its caller does not learn of it"
    assert Cycle(_objective(), _batches(toy, 1), tmp_path, OPTIONS, stops).run().signal is None


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
def test_a_cycle_that_goes_on_counts_its_steps_where_it_did(toy, tmp_path: Path, monkeypatch):
    Cycle(_objective(), _batches(toy, 1), tmp_path, OPTIONS, _figures).run()
    places: list[str] = []
    load = torch.load

    def watched(path: Path, *, map_location: str, weights_only: bool) -> object:
        places.append(map_location)
        return load(path, map_location="cpu", weights_only=weights_only)

    monkeypatch.setattr(torch, "load", watched)
    gone_on = Cycle(_objective(), _batches(toy, 1), tmp_path, replace(OPTIONS, device="meta"), _figures)
    gone_on._resume()
    assert places == ["cpu"], "AdamW's counters are put on the device, which is waited for at every step"
    state = next(iter(gone_on._optimizer.state.values()))
    assert (state["step"].device.type, state["exp_avg"].device.type) == ("cpu", "meta")


def test_the_rate_rises_stays_and_falls():
    options = CycleOptions(warmup=0.1, decay=0.5)
    rates = [rate_at(step, 100, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == pytest.approx([1.0] * 41)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[50:]))
    assert rates[-1] < 0.01
    assert all(rate_at(step, 100, CycleOptions(warmup=0, decay=0)) == 1.0 for step in range(100))


def test_a_loss_that_is_not_a_number_stops_the_cycle(toy, tmp_path: Path):
    objective = _objective()
    with torch.no_grad():
        objective.network.frame_head.bias.fill_(float("nan"))
    with pytest.raises(SettingsError, match="step 0"):
        Cycle(objective, _batches(toy), tmp_path, OPTIONS, _figures).run()
