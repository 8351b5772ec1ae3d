"""One cycle of training: starts from weights, ends in weights, and may be killed anywhere between.

A step's batch depends on the step alone, and a checkpoint holds all that changes (parameters, optimizer,
averages, random state, step), so a cycle that was killed and continued does the same arithmetic as one that
was not: on a CPU to the last bit, on a GPU up to the order of its sums.
"""

from __future__ import annotations

import csv
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from detector.errors import SettingsError
from detector.training.batches import Batch
from detector.training.workers import Worker

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Figures of the averaged module, by name; called in eval mode without gradients."""

_log = logging.getLogger(__name__)
_CHECKPOINT = "checkpoint.pt"
_AVERAGE_WARMUP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleOptions:
    """How a cycle runs; its length is the number of batches in its data set."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    """Share of the steps over which the rate rises."""
    decay: float = 1.0
    """Share of the steps, the last ones, over which the rate falls to 0 along a cosine."""
    average: float = 0.998
    """Decay per step of the running average of the weights, which is what the cycle ends in."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    validate_every: int = 200
    """Steps between validations; the last step is always validated."""
    checkpoint_every_s: float = 180.0
    workers: int = 1
    """Processes that read and degrade pictures; 0 = this one."""
    worker_nice: int = 19
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 pays on a GPU and on processors that compute it; elsewhere it is 10 times slower."""
    device: str = "cpu"


@dataclass(slots=True)
class CycleEnd:
    """How a cycle ended."""

    step: int
    finished: bool
    """Whether all steps were done; if not, run it again to go on."""
    signal: int | None = None
    """What asked it to stop, be it in the last step."""
    figures: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""


class Cycle:
    """A module that gives its losses, a data set of batches, and a folder for the state.

    Args:
        module: Called with a Batch; returns losses by name, whose sum is minimised.
        batches: Item i is the batch of step i.
        folder: Holds `checkpoint.pt`, `log.csv` and `validation.csv`.
        options: How to run.
        evaluate: Called with the averaged module.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Dataset[Batch],
        folder: Path,
        options: CycleOptions,
        evaluate: Evaluate,
    ) -> None:
        self._module = module.to(device=options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batches, self._folder, self._options, self._evaluate = batches, folder, options, evaluate
        self._steps = len(batches)  # type: ignore[arg-type]
        self._average = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self._module, options.weight_decay), lr=options.learning_rate
        )
        self._step = 0
        self._stopped_by: int | None = None
        self._figures: dict[str, float] = {}

    def run(self) -> CycleEnd:
        """Runs from the last checkpoint, or from the start, to the end or until SIGINT or SIGTERM."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        with self._until_asked_to_stop():
            self._train()
        self._save()
        return CycleEnd(self._step, self._step == self._steps, self._stopped_by, self._figures)

    def averaged_state(self) -> dict[str, Tensor]:
        """The averaged parameters and buffers of the module."""
        return self._average

    def _train(self) -> None:
        report, save = _Every(30.0), _Every(self._options.checkpoint_every_s)
        seen = 0
        for batch in self._remaining():
            losses = self._update(batch)
            self._step += 1
            seen += len(batch.labels)
            if report.due():
                self._report(losses, seen / report.elapsed())
            if self._step % self._options.validate_every == 0 or self._step == self._steps:
                self._validate()
            if save.due():
                self._save()
            if self._stopped_by is not None:
                return

    def _remaining(self) -> Iterator[Batch]:
        options = self._options
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(self._step, self._steps),
            num_workers=options.workers,
            prefetch_factor=4 if options.workers else None,
            worker_init_fn=Worker(options.worker_nice),
        )
        yield from loader

    def _update(self, batch: Batch) -> dict[str, float]:
        """One step of the optimizer and the average; returns the losses."""
        options = self._options
        self._module.train()
        for group in self._optimizer.param_groups:
            group["lr"] = options.learning_rate * rate_at(self._step, self._steps, options)
        moved = Batch(*(part.to(options.device) for part in batch))
        with torch.autocast(options.device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            losses: dict[str, Tensor] = self._module(moved)
        total = torch.stack(list(losses.values())).sum()
        if not math.isfinite(total.item()):
            raise SettingsError(
                f"step {self._step}: the loss is {total.item()}",
                hint="Begin again with a lower learning_rate, in another output.",
            )
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it bare
        nn.utils.clip_grad_norm_(self._module.parameters(), options.clip)
        self._optimizer.step()
        self._update_average()
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self._options.average, (1 + self._step) / (_AVERAGE_WARMUP + self._step))
        for name, value in self._module.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    def _validate(self) -> None:
        """Figures of the averaged weights; the module gets its own weights back."""
        own = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
        self._module.load_state_dict(self._average)
        self._module.eval()
        with torch.inference_mode():
            self._figures = dict(self._evaluate(self._module))
        self._module.load_state_dict(own)
        _append(self._folder / "validation.csv", {"step": self._step, **self._figures})
        figures = "  ".join(f"{name} {value:.4f}" for name, value in self._figures.items())
        _log.info("step %d: %s", self._step, figures)

    def _report(self, losses: dict[str, float], images_per_s: float) -> None:
        rate = self._optimizer.param_groups[0]["lr"]
        row = {"step": self._step, "images_per_s": round(images_per_s, 2), "learning_rate": rate, **losses}
        _append(self._folder / "log.csv", row)
        parts = " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
        _log.info("step %d/%d  %.1f images/s  %s", self._step, self._steps, images_per_s, parts)

    def _save(self) -> None:
        state = {
            "step": self._step,
            "module": self._module.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "figures": self._figures,
        }
        _write(self._folder / _CHECKPOINT, state)

    def _resume(self) -> None:
        path = self._folder / _CHECKPOINT
        if path.exists():
            self._load(path)
            _log.info("continuing at step %d of %d", self._step, self._steps)
        for name in ("log.csv", "validation.csv"):
            _forget_after(self._folder / name, self._step)

    def _load(self, path: Path) -> None:
        # To the CPU first: AdamW counts its steps there, and on a GPU would wait for each counter.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        self._step = state["step"]
        self._module.load_state_dict(state["module"])
        for name, value in state["average"].items():
            self._average[name].copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self._figures = state["figures"]

    @contextmanager
    def _until_asked_to_stop(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the cycle after the step at hand, with a checkpoint."""

        def stop(number: int, _frame: FrameType | None) -> None:
            self._stopped_by = number

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def rate_at(step: int, steps: int, options: CycleOptions) -> float:
    """Share of the full learning rate at a step: a linear rise, a plateau, a cosine down to 0."""
    rise = min(1.0, (step + 1) / max(1.0, options.warmup * steps))
    fall_start = steps * (1 - options.decay)
    progress = max(0.0, (step - fall_start) / max(1.0, steps - fall_start))
    return rise * 0.5 * (1 + math.cos(math.pi * progress))


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and normalisation do not."""
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


class _Every:
    """Tells when a number of seconds has passed since it last said so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started = self._last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started


def _write(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def _append(path: Path, row: Mapping[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow(row.values())


def _forget_after(path: Path, step: int) -> None:
    """Drops the rows of steps that will be done again, and those that a kill or a full disk cut off."""
    if not path.exists():
        return
    header, *rows = path.read_text(errors="replace").split("\n")[:-1] or [""]
    whole = [row for row in rows if row.count(",") == header.count(",")]
    kept = [row for row in whole if (number := row.split(",")[0]).isdecimal() and int(number) <= step]
    if not kept or not header.startswith("step,"):
        path.unlink()
        return
    path.write_text("\n".join([header, *kept]) + "\n")
