"""The training job: data sets become crops, crops become a weights file.

data ─ read, split ─▶ samples ─ cut ─▶ crops ─ look over ─▶ stage A, stage B ─▶ OUTPUT/NAME.safetensors
driver                          CPU actors     driver       driver, one CPU or GPU
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import InputError, SettingsError
from detector.weights import Architecture, Input, WeightsFile, resolve
from detector.weights import read as read_weights
from jobs import dataset
from jobs.crop_shards import VideoCrops, cut, extract_options
from jobs.local import uri_of
from jobs.train_config import TrainSettings

if TYPE_CHECKING:
    from detector.model import Device, Dtype
    from detector.training.data import Sample
    from detector.training.train import Outcome, Training

Say = Callable[[str], None]
"""Takes one line of progress."""

_OURS = ".safetensors"
_DEFAULT_SIZE = 112
# What may differ between a training and the call that goes on with it.
_MACHINE = {"address", "extract_actors", "device", "dtype", "threads", "workers", "output"}


def run(settings: TrainSettings, say: Say) -> Outcome:
    """Trains, or goes on with a training that was stopped; the weights' path stands in the outcome.

    Args:
        settings: `data` and `output` are given.
        say: Told one line at a time how far it is.

    Raises:
        DeepfakeScanError: The settings do not go together, or the data leak people between the sides.
    """
    from detector.training.train import train
    from jobs.train_report import opening

    folder = Path(settings.output or "")
    start = _start(settings)
    architecture, size = _shape(settings, start)
    _check_teacher(settings, architecture)
    samples, skipped = dataset.read(settings)
    folder.mkdir(parents=True, exist_ok=True)
    _same_training(folder / "settings.json", settings, samples)
    crops, found = _crops(samples, settings, start.header.input if start else Input(), folder / "crops", say)
    unreadable = _look_over(
        folder / "dataset.json", lambda: dataset.report(samples, crops, found, skipped), say
    )
    plan = _plan(settings, [c for c in crops if c.uri not in unreadable], architecture, size, folder)
    say(opening(plan))
    _use_threads(settings)
    return train(plan)


def _start(settings: TrainSettings) -> WeightsFile | None:
    """The weights that it starts from, None where it starts from something else."""
    name = settings.init_from
    if name is None or (Path(name).is_file() and not name.endswith(_OURS)):
        return None
    return read_weights(resolve(name))


def _shape(settings: TrainSettings, start: WeightsFile | None) -> tuple[Architecture, int]:
    if start is not None:
        return start.header.architecture, settings.size or start.header.input.size
    first, second, third, fourth = settings.layers
    architecture = Architecture(
        family=settings.family,
        layers=(first, second, third, fourth),
        groups=settings.groups,
        width_per_group=settings.width_per_group,
    )
    return architecture, settings.size or _DEFAULT_SIZE


def _check_teacher(settings: TrainSettings, architecture: Architecture) -> None:
    if settings.teacher is None:
        return
    if architecture.family != "resnext_lstm":
        raise SettingsError("teacher: only a resnext_lstm learns from a teacher", hint="Leave it out.")
    family = read_weights(resolve(settings.teacher)).header.architecture.family
    if family != "efficientnet_lite0_lstm":
        raise SettingsError(f"teacher: {settings.teacher} is a {family}, not an efficientnet_lite0_lstm")


def _crops(
    samples: Sequence[Sample], settings: TrainSettings, inference: Input, folder: Path, say: Say
) -> tuple[list[Sample], list[tuple[Sample, VideoCrops]]]:
    """Pictures as they are, videos as the crops that were cut from them, with what each video gave."""
    videos = {uri_of(sample.uri): sample for sample in samples if dataset.is_video(sample)}
    crops = [sample for sample in samples if not dataset.is_video(sample)]
    if not videos:
        return crops, []
    found = []
    options = extract_options(settings.scan_settings(), inference, settings.windows, settings.min_face_px)
    for number, one in enumerate(cut(list(videos), settings.scan_settings(), options, folder), start=1):
        found.append((videos[one.uri], one))
        crops += dataset.samples_of(videos[one.uri], one)
        if number % 100 == 0 or number == len(videos):
            say(f"{number:,} of {len(videos):,} videos cut, {len(crops):,} crops")
    return sorted(crops, key=lambda sample: sample.uri), found


def _look_over(path: Path, report: Callable[[], dataset.Report], say: Say) -> set[str]:
    """Pictures that cannot be read. What was looked over by an earlier call is not looked over again.

    Raises:
        InputError: Results on this data would mean nothing.
    """
    if path.exists():
        before = json.loads(path.read_text())
        if not before["refused"]:
            return set((before["audit"] or {}).get("unreadable", ()))
    seen = report()
    path.write_text(seen.as_json())
    for warning in seen.warnings():
        say(f"warning: {warning}")
    if seen.refused:
        raise InputError(seen.refused, hint="`deepfake-scan dataset check` shows all of it.")
    return set(seen.audit.unreadable if seen.audit else ())


def _plan(
    settings: TrainSettings, crops: Sequence[Sample], architecture: Architecture, size: int, folder: Path
) -> Training:
    from detector.training.clips import ClipOptions
    from detector.training.data import BatchOptions
    from detector.training.frames import FrameCycle
    from detector.training.heads import HeadOptions
    from detector.training.loop import CycleOptions
    from detector.training.objective import ObjectiveOptions
    from detector.training.train import Training

    sides = {split: [c for c in crops if c.split == split] for split in (dataset.TRAIN, dataset.VALIDATION)}
    for split, held in sides.items():
        fakes = sum(crop.label for crop in held)
        needs_fakes = split == dataset.VALIDATION or settings.blended < 1
        if fakes == len(held) or (needs_fakes and not fakes):
            raise InputError(
                f"the side `{split}` has {len(held) - fakes} real and {fakes} fake crops; it needs both",
                hint="dataset.json in the output says what each video gave. Give more data, or name the "
                "sides in the column `split` of a CSV.",
            )
    device = _device(settings)
    init = settings.init_from
    cycle = FrameCycle(
        train=sides[dataset.TRAIN],
        validation=sides[dataset.VALIDATION],
        folder=folder,
        batches=BatchOptions(
            size=size,
            batch=settings.batch,
            steps=max(1, settings.images // settings.batch),
            seed=settings.seed,
            blended=settings.blended,
        ),
        cycle=CycleOptions(
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            decay=settings.falling,
            validate_every=settings.validate_every,
            workers=settings.workers,
            dtype=_dtype(settings, device),
            device=device,
        ),
        objective=ObjectiveOptions(smoothing=settings.smoothing),
        architecture=architecture,
        init_from=None if init is None else Path(init) if Path(init).is_file() else resolve(init),
        folded=init is not None if settings.fold_batchnorm is None else settings.fold_batchnorm,
        teacher=None if settings.teacher is None else resolve(settings.teacher),
    )
    groups = len({crop.group for crop in sides[dataset.VALIDATION]})
    return Training(
        name=settings.name,
        frames=cycle,
        clips=ClipOptions(per_class=settings.clips, seed=settings.seed) if settings.clips else None,
        heads=HeadOptions(seed=settings.seed),
        provenance=_provenance(settings, sides),
        validation_data=f"validation side of {', '.join(settings.data)} ({groups} groups)",
    )


def _provenance(settings: TrainSettings, sides: dict[str, list[Sample]]) -> dict[str, str]:
    kept = settings.model_dump(mode="json", exclude=_MACHINE)
    return {
        "start": str(settings.init_from),
        "data": f"{', '.join(settings.data)}: {len(sides[dataset.TRAIN]):,} crops to train on, "
        f"{len(sides[dataset.VALIDATION]):,} to validate",
        "recipe": json.dumps(kept, sort_keys=True),
    }


def _device(settings: TrainSettings) -> Device:
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda, but this machine has no GPU", hint="Use `device: auto` or `cpu`.")
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


def _dtype(settings: TrainSettings, device: Device) -> Dtype:
    from detector.model import default_dtype

    return (
        default_dtype("cuda" if device == "cuda" else "cpu") if settings.dtype == "auto" else settings.dtype
    )


def _use_threads(settings: TrainSettings) -> None:
    import torch

    left = len(os.sched_getaffinity(0)) - settings.workers
    torch.set_num_threads(settings.threads or max(1, left))


def _same_training(path: Path, settings: TrainSettings, samples: Sequence[Sample]) -> None:
    listed = hashlib.sha256("\n".join(sorted(map(repr, samples))).encode()).hexdigest()
    words = settings.model_dump(mode="json", exclude=_MACHINE) | {"files of the data": listed}
    text = json.dumps(words, indent=2)
    if not path.exists():
        path.write_text(text)
    elif path.read_text() != text:
        before, now = json.loads(path.read_text()), json.loads(text)
        changed = [key for key in now if before.get(key) != now[key]]
        raise SettingsError(
            f"{path.parent} holds a training with other settings: {', '.join(changed)}",
            hint="Give another output, or the settings of before to go on with it.",
        )
