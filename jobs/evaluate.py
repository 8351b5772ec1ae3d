"""What weights are worth on labelled data: videos as a scan judges them, or crops that were cut elsewhere.

data ─ read ─▶ samples ─ extract ─▶ clips ─ score, once and after each change ─▶ items ─▶ figures
driver                   CPU actors        driver, one CPU or GPU                 driver
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.degrade import Picture
from detector.errors import InputError
from detector.evaluation.conditions import CONDITIONS, Change, changed
from detector.evaluation.figures import Items
from detector.model import Device, Model, default_dtype, settle_process
from detector.pipeline import decide, score
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.finish import score_pictures
from detector.training.sources import find
from detector.types import Clips, Facts, Policy, Reason, Status, VideoResult
from detector.weights import WeightsFile
from jobs.config import ScanSettings
from jobs.crop_shards import VideoCrops, extracted, plan_of
from jobs.dataset import is_video, once
from jobs.local import scheme_of, uri_of
from jobs.stages import unpacked

Say = Callable[[str], None]
"""Takes one line of progress."""

FACE_PX = "face_px"
_UNCHANGED = ""
_LONGEST_FACET = 100
"""Characters: an array of strings takes what its longest needs, for every row."""
_CROPS_PER_CALL = 64
_SAY_EVERY_VIDEOS, _SAY_EVERY_CROPS = 20, 1000


@dataclass(slots=True)
class _Column:
    """Scores as they come in; one row per video, frame or crop."""

    labels: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    facets: list[dict[str, str]] = field(default_factory=list)
    logits: dict[str, list[float]] = field(default_factory=dict)
    """By condition."""

    def add(self, sample: Sample, logits: dict[str, float], **facets: str) -> None:
        self.labels.append(sample.label)
        self.groups.append(sample.group)
        self.facets.append({name: value[:_LONGEST_FACET] for name, value in sample.facets} | facets)
        for name, logit in logits.items():
            self.logits.setdefault(name, []).append(logit)

    def items(self) -> dict[str, Items]:
        """By condition; all of them share what is not a score."""
        names = sorted({name for facets in self.facets for name in facets})
        labels, groups = np.array(self.labels, np.int64), np.array(self.groups, np.str_)
        facets = {name: np.array([one.get(name, "") for one in self.facets], np.str_) for name in names}
        return {
            name: Items(labels, np.array(logits, np.float64), groups, facets)
            for name, logits in {_UNCHANGED: [], **self.logits}.items()
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything that was scored, and what became of what was not."""

    video: Items | None
    """None where only crops were given."""
    frame: Items
    """Every frame, or crop, as a clip of its own."""
    changed: dict[str, Items]
    """Condition -> the videos, or the crops, after it."""
    outcomes: dict[str, int]
    """Videos or crops by status, or by the reason of a failure."""


def read(data: Sequence[str], crops: Sequence[str], split: str | None) -> list[Sample]:
    """Labelled samples, each once.

    Args:
        data: Folders and CSVs of videos.
        crops: CSVs of crops.
        split: Only those of this split.

    Raises:
        InputError: There are none, a file has no known form, or the two kinds are mixed up.
    """
    found = once([sample for path in (*data, *crops) for sample in find(Path(path))])
    kept = [sample for sample in found if split is None or sample.split == split]
    if not kept:
        raise InputError(f"no samples of split {split}" if found else "no samples", hint="See --help.")
    wrong = next((sample for sample in kept if is_video(sample) == bool(crops)), None)
    if wrong is not None:
        raise InputError(
            f"{wrong.uri} is {'a video' if crops else 'no video'}",
            hint="Videos are named as arguments, pictures of faces by --crops; one of both.",
        )
    return kept


def open_model(settings: ScanSettings, weights: WeightsFile) -> Model:
    """The network on the device that the settings name, or on a GPU where this machine has one."""
    settle_process()
    wanted = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    device: Device = "cuda" if wanted else "cpu"
    dtype = default_dtype(device) if settings.dtype == "auto" else settings.dtype
    return Model(weights, dtype=dtype, device=device)


def score_crops(samples: Sequence[Sample], model: Model, *, robustness: bool, say: Say) -> Scores:
    """Crops, each a clip of one frame; one that cannot be read is counted, and has no score."""
    store, column, outcomes = CropStore(), _Column(), Counter[str]()
    conditions = _conditions(robustness)
    for start in range(0, len(samples), _CROPS_PER_CALL):
        part = samples[start : start + _CROPS_PER_CALL]
        pictures = [_picture(store, sample, outcomes) for sample in part]
        there = [picture for picture in pictures if picture is not None]
        logits = {name: iter(_crop_logits(model, there, change)) for name, change in conditions.items()}
        for sample, picture in zip(part, pictures, strict=True):
            none = dict.fromkeys(conditions, math.nan)
            column.add(sample, none if picture is None else {name: next(logits[name]) for name in conditions})
        if (start + len(part)) % _SAY_EVERY_CROPS < _CROPS_PER_CALL:
            say(f"{start + len(part):,} of {len(samples):,} crops")
    found = column.items()
    return Scores(None, found.pop(_UNCHANGED), found, dict(outcomes))


def _picture(store: CropStore, sample: Sample, outcomes: Counter[str]) -> Picture | None:
    try:
        picture = store.crop(sample)
    except InputError:
        outcomes["unreadable"] += 1
        return None
    outcomes["scored"] += 1
    return picture


def _crop_logits(model: Model, pictures: Sequence[Picture], change: Change | None) -> Iterator[float]:
    if not pictures:
        return
    seen = [picture if change is None else change(picture[None])[0] for picture in pictures]
    yield from score_pictures(model, seen).tolist()


def score_videos(
    samples: Sequence[Sample],
    settings: ScanSettings,
    model: Model,
    policy: Policy,
    *,
    robustness: bool,
    say: Say,
) -> Scores:
    """Videos as a scan judges them; the frames that were scored beside them.

    Raises:
        ClusterError: Ray cannot be reached.
        StorageError: The videos cannot be read any more.
    """
    video, frame, outcomes = _Column(), _Column(), Counter[str]()
    conditions = _conditions(robustness)
    by_uri = {s.uri if scheme_of(s.uri) else uri_of(s.uri): s for s in samples}
    plan, missing = plan_of(by_uri)
    options = settings.extract_options(model.header)

    extractions = chain(map(_missing, missing), map(_came, extracted(plan, settings, options)))
    for done, (uri, facts, clips) in enumerate(extractions, start=1):
        sample = by_uri[uri]
        results = {name: _judged(facts, clips, model, policy, change) for name, change in conditions.items()}
        first = results[_UNCHANGED]
        outcomes[str(first.facts.failure or first.status)] += 1
        logits = {name: math.nan if one.logit is None else one.logit for name, one in results.items()}
        video.add(sample, logits, **_face_px(first))
        for logit in _frame_logits(clips, model) if first.status is Status.SCORED else ():
            frame.add(sample, {_UNCHANGED: logit})
        if done % _SAY_EVERY_VIDEOS == 0:
            say(f"{done:,} of {len(samples):,} videos")
    found = video.items()
    return Scores(found.pop(_UNCHANGED), frame.items()[_UNCHANGED], found, dict(outcomes))


def _came(row: dict[str, Any] | VideoCrops) -> tuple[str, Facts, Clips]:
    return _missing(row) if isinstance(row, VideoCrops) else (row["uri"], *unpacked(row)[1:])


def _missing(video: VideoCrops) -> tuple[str, Facts, Clips]:
    """A video that never reached a decoder, or whose worker died."""
    failure = Reason(video.reason or Reason.LOST)
    return video.uri, Facts(failure=failure, message=video.message), Clips.none()


def _judged(facts: Facts, clips: Clips, model: Model, policy: Policy, change: Change | None) -> VideoResult:
    return decide(facts, score(clips if change is None else changed(clips, change), model), policy)


def _frame_logits(clips: Clips, model: Model) -> list[float]:
    """Logits of all frames, each as a clip of its own."""
    frames = clips.pixels[clips.mask][:, None]
    return [one.logit for one in model.score(Clips(frames, np.ones(frames.shape[:2], np.bool_)))]


def _face_px(result: VideoResult) -> dict[str, str]:
    """Size of the face that decided, as a facet."""
    if not result.persons:
        return {}
    top = max(result.persons, key=lambda person: person.logit)
    sizes = [one.track.face_px for one in result.tracks if one.track.person_id == top.person_id]
    return {FACE_PX: f"{np.median(sizes):.0f}"}


def _conditions(robustness: bool) -> dict[str, Change | None]:
    return {_UNCHANGED: None, **(CONDITIONS if robustness else {})}
