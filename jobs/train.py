"""The training job: data sets become crops, crops become a weights file.

data ─ read, split ─▶ samples ─ cut ─▶ crops ─ look over ─▶ stage A, stage B ─▶ OUTPUT/NAME.safetensors
driver                          CPU actors     driver       driver, one CPU or GPU

A GPU runs the steps of stage A; the teacher's answers, stage B and the measuring are the CPU's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from msgspec import structs

from detector.errors import InputError, SettingsError
from detector.memory import keep_freed_memory
from detector.model import Device, Dtype, default_dtype, load_network
from detector.training.batches import BatchOptions
from detector.training.clips import ClipOptions
from detector.training.data import Sample, read_samples
from detector.training.folding import was_folded
from detector.training.frames import FrameCycle
from detector.training.heads import HeadOptions
from detector.training.loop import CycleOptions
from detector.training.objective import ObjectiveOptions
from detector.training.start import start_from
from detector.training.train import Outcome, Training, train
from detector.weights import Architecture, Input, WeightsFile, resolve
from detector.weights import read as read_weights
from jobs import dataset, train_report
from jobs.crop_shards import VideoCrops, cut, extract_options
from jobs.files import alone_in, make_folder, storage_error, write_whole
from jobs.local import uri_of
from jobs.train_config import TrainSettings

Say = Callable[[str], None]
"""Takes one line of progress."""

_OURS = ".safetensors"
_SAY_EVERY = 20
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
    folder = Path(settings.output or "")
    start = _start(settings)
    architecture, inference = _shape(settings, start)
    _check_start(settings, architecture)
    make_folder(folder)
    with alone_in(folder):
        begun = (folder / "checkpoint.pt").exists()
        _same_settings(folder / "settings.json", settings, begun=begun)
        if not begun:
            _prepare(settings, inference, folder, say)
        plan = _plan(settings, read_samples(folder / "crops.csv"), architecture, inference, folder)
        say(train_report.opening(plan))
        _use_threads(settings)
        keep_freed_memory()
        try:
            return train(plan)
        except OSError as error:
            raise storage_error(folder, error) from error


def _prepare(settings: TrainSettings, inference: Input, folder: Path, say: Say) -> None:
    """Writes `crops.csv`, which a training that was begun goes on with, whatever became of the data."""
    samples, skipped = dataset.read(settings)
    crops, found = _crops(samples, settings, inference, folder / "crops", say)
    seen = dataset.report(settings, samples, crops, found, skipped, cut=True)
    write_whole(folder / "dataset.json", seen.as_json())
    for warning in seen.warnings():
        say(f"warning: {warning}")
    if seen.refused:
        raise InputError(
            seen.refused, hint=f"{folder / 'dataset.json'} and `deepfake-scan dataset check` say more."
        )
    unreadable = set(seen.audit.unreadable if seen.audit else ())
    dataset.write(folder / "crops.csv", [crop for crop in crops if crop.uri not in unreadable])


def _start(settings: TrainSettings) -> WeightsFile | None:
    """The weights that it starts from, None where it starts from something else."""
    name = settings.init_from
    if name is None or (Path(name).is_file() and not name.endswith(_OURS)):
        return None
    return read_weights(resolve(name))


def _shape(settings: TrainSettings, start: WeightsFile | None) -> tuple[Architecture, Input]:
    """The network, and what the header will say of its input.

    Raises:
        SettingsError: The start wants to be shown something that is not made for training.
    """
    if start is not None:
        theirs, ours = start.header.input, Input()
        kinds = ("fit", "colour", "mean", "std", "policy")
        other = [name for name in kinds if getattr(theirs, name) != getattr(ours, name)]
        if other:
            raise SettingsError(
                f"init_from: {settings.init_from} was trained with another {' and '.join(other)}",
                hint="Start from a weights file of this project.",
            )
        return start.header.architecture, structs.replace(theirs, size=settings.size or theirs.size)
    first, second, third, fourth = settings.layers
    architecture = Architecture(
        family=settings.family,
        layers=(first, second, third, fourth),
        groups=settings.groups,
        width_per_group=settings.width_per_group,
    )
    return architecture, Input(size=settings.size or Input().size)


def _check_start(settings: TrainSettings, architecture: Architecture) -> None:
    """Loads the start and the teacher once, so that what does not fit is told before videos are cut."""
    if settings.init_from is not None:
        network = start_from(_start_path(settings.init_from), architecture)
        if settings.fold_batchnorm is False and was_folded(network):
            raise SettingsError(
                f"fold_batchnorm: {settings.init_from} was trained with it, and has no statistics now",
                hint="Leave it out.",
            )
    _check_teacher(settings, architecture)


def _start_path(name: str) -> Path:
    return Path(name) if Path(name).is_file() else resolve(name)


def _check_teacher(settings: TrainSettings, architecture: Architecture) -> None:
    if settings.teacher is None:
        return
    if architecture.family != "resnext_lstm":
        raise SettingsError("teacher: only a resnext_lstm learns from a teacher", hint="Leave it out.")
    teacher = read_weights(resolve(settings.teacher))
    family = teacher.header.architecture.family
    if family != "efficientnet_lite0_lstm":
        raise SettingsError(f"teacher: {settings.teacher} is a {family}, not an efficientnet_lite0_lstm")
    load_network(teacher)


def _crops(
    samples: Sequence[Sample], settings: TrainSettings, inference: Input, folder: Path, say: Say
) -> tuple[list[Sample], list[tuple[Sample, VideoCrops]]]:
    """Pictures as they are, videos as the crops that were cut from them, with what each video gave."""
    videos = {uri_of(sample.uri): sample for sample in samples if dataset.is_video(sample)}
    crops = [sample for sample in samples if not dataset.is_video(sample)]
    found: list[tuple[Sample, VideoCrops]] = []
    if videos:
        say(f"{len(videos):,} videos to cut; those that were cut before are taken as they are")
        scan = settings.scan_settings()
        options = extract_options(scan, inference, settings.windows, settings.min_face_px)
        for one in cut(list(videos), scan, options, folder):
            found.append((videos[one.uri], one))
            crops += dataset.samples_of(videos[one.uri], one)
            if len(found) % _SAY_EVERY == 0 or len(found) == len(videos):
                say(f"{len(found):,} of {len(videos):,} videos cut, {len(crops):,} crops")
    # Not by shard: which video came first must not decide what is drawn.
    return sorted(crops, key=lambda crop: (crop.clip or crop.uri, crop.uri)), found


def _plan(
    settings: TrainSettings,
    crops: Sequence[Sample],
    architecture: Architecture,
    inference: Input,
    folder: Path,
) -> Training:
    sides = {split: [c for c in crops if c.split == split] for split in (dataset.TRAIN, dataset.VALIDATION)}
    device = _device(settings)
    init = settings.init_from
    cycle = FrameCycle(
        train=sides[dataset.TRAIN],
        validation=sides[dataset.VALIDATION],
        folder=folder,
        batches=BatchOptions(
            size=inference.size,
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
        init_from=None if init is None else _start_path(init),
        folded=init is not None if settings.fold_batchnorm is None else settings.fold_batchnorm,
        teacher=None if settings.teacher is None else resolve(settings.teacher),
    )
    clips = ClipOptions(frames=inference.frames, per_class=settings.clips, seed=settings.seed)
    groups = len({crop.group for crop in sides[dataset.VALIDATION]})
    return Training(
        name=settings.name,
        frames=cycle,
        input=inference,
        clips=clips if settings.clips else None,
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
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: cuda, but this machine has no GPU", hint="Use `device: auto` or `cpu`.")
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


def _dtype(settings: TrainSettings, device: Device) -> Dtype:
    return default_dtype(device) if settings.dtype == "auto" else settings.dtype


def _use_threads(settings: TrainSettings) -> None:
    left = len(os.sched_getaffinity(0)) - settings.workers
    torch.set_num_threads(settings.threads or max(1, left))


def _same_settings(path: Path, settings: TrainSettings, *, begun: bool) -> None:
    text = json.dumps(settings.model_dump(mode="json", exclude=_MACHINE), indent=2)
    if begun and path.exists() and path.read_text() != text:
        before, now = json.loads(path.read_text()), json.loads(text)
        changed = [key for key in now if before.get(key) != now[key]]
        raise SettingsError(
            f"{path.parent} holds a training that was begun with other settings: {', '.join(changed)}",
            hint="Give the settings of before to go on with it, or another output; move its folder `crops` "
            "there and no video is cut again.",
        )
    write_whole(path, text)
