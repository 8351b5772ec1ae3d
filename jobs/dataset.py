"""Labelled data as training takes it: found, split by people, cut to crops, and looked over for leaks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import InputError
from detector.training.audit import LEAK, Audit, audit, blind_auc, container_facts, shared_people
from detector.training.clips import one_per_clip
from detector.training.data import Sample, split_by_component
from detector.training.sources import find, write_samples
from detector.types import Facts
from detector.weights import Input
from jobs.crop_shards import REACH, VideoCrops, extract_options, extracted, plan_of, video_info
from jobs.files import storage_error
from jobs.listed import SUFFIXES, suffix
from jobs.local import scheme_of, uri_of
from jobs.schema import printable
from jobs.train_config import TrainSettings

_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_SHOWN = 10
TRAIN, VALIDATION = "train", "val"
_NAMES = {
    f"{split}/{label}": f"{name} in {split}"
    for split in (TRAIN, VALIDATION, "test")
    for label, name in ((0, "real"), (1, "fake"))
}


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be known of a data set before it is trained on."""

    audit: Audit | None
    """Of its pictures, and of one crop of each clip that was cut from a video; None where there are none."""
    videos: dict[str, int]
    """Videos by `split/label`."""
    shared: list[str]
    """People on more than one side of the split."""
    failed: list[tuple[str, str, str]]
    """Videos that give no crops: uri, reason, message."""
    container_auc: float | None
    """AUC of a classifier that knows file size, shape, rate, length, codec and container only."""
    skipped: dict[str, int]
    """Files that are neither videos nor pictures, by suffix."""
    lacking: list[str]
    """What a side of the split has too little of, in sentences."""

    @property
    def refused(self) -> str | None:
        """Why results on this data would mean nothing, None where they may."""
        if self.shared:
            return f"{len(self.shared)} people are on more than one side of the split: {_few(self.shared)}"
        doubled = self.audit.doubled if self.audit else []
        if doubled:
            return f"{len(doubled)} pictures come twice, with another label or split: {_few(doubled)}"
        return "; ".join(self.lacking) or None

    def warnings(self) -> list[str]:
        """Sentences for the user, the gravest first."""
        found = [
            f"leak: {what} alone tell real from fake (AUC {value:.2f}); a network will learn that"
            for what, value in self._blind()
            if value > LEAK
        ]
        if self.failed:
            reasons = Counter(reason for _, reason, _ in self.failed)
            found.append(f"{len(self.failed)} videos give no crops: {_counts(reasons)}")
        if self.audit and self.audit.unreadable:
            found.append(
                f"{len(self.audit.unreadable)} pictures cannot be read: {_few(self.audit.unreadable)}"
            )
        if self.skipped:
            found.append(f"neither videos nor pictures, left out: {_counts(Counter(self.skipped))}")
        return found

    def in_words(self) -> str:
        """For a person to read."""
        lines = []
        for what, counts in (("crops", self.audit.counts if self.audit else {}), ("videos", self.videos)):
            if counts:
                lines.append(f"{what}: {', '.join(f'{n:,} {_NAMES.get(k, k)}' for k, n in counts.items())}")
        if self.audit:
            groups = ", ".join(f"{count:,} in {split}" for split, count in self.audit.groups.items())
            lines.append(f"groups of people: {groups}; fakes without their real: {self.audit.without_real:,}")
        lines += [
            f"{what} alone tell real from fake with AUC {value:.2f} (.50 is chance)"
            for what, value in self._blind()
        ]
        lines += [f"  {uri}: {reason}: {message}" for uri, reason, message in self.failed]
        lines += [f"warning: {warning}" for warning in self.warnings()]
        lines.append(f"not fit for training: {self.refused}" if self.refused else "fit for training")
        return "\n".join(map(printable, lines))

    def _blind(self) -> list[tuple[str, float]]:
        """What a classifier that sees no face knew, and its AUC."""
        values = {
            "size, colour and sharpness": self.audit.blind_auc if self.audit else None,
            "file size, shape, rate, length, codec and container": self.container_auc,
        }
        return [(what, value) for what, value in values.items() if value is not None and isfinite(value)]

    def as_json(self) -> str:
        """All of it; an AUC that one class alone does not have is null."""
        content = asdict(self) | {"refused": self.refused}
        if self.audit and not isfinite(self.audit.blind_auc):
            content["audit"]["blind_auc"] = None
        return json.dumps(content, indent=2, allow_nan=False)


def read(settings: TrainSettings) -> tuple[list[Sample], dict[str, int]]:
    """Samples of all data sets with their split, and how many files of other kinds were left out.

    Raises:
        InputError: Nothing is there, a form is unknown, or a split is named for a part of the samples only.
    """
    found = once([sample for path in settings.data for sample in find(Path(path))])
    kept = [sample for sample in found if is_video(sample) or suffix(sample.uri) in _PICTURES]
    uris = {sample.uri for sample in kept}
    skipped = Counter(suffix(sample.uri) or "no suffix" for sample in found if sample.uri not in uris)
    if not kept:
        raise InputError(f"no videos and no pictures in {', '.join(settings.data)}")
    named = sum(bool(sample.split) for sample in kept)
    if 0 < named < len(kept):
        raise InputError(f"split stands in {named} of {len(kept)} lines; it has to stand in all or in none")
    if not named:
        kept = split_by_component(kept, settings.validation, settings.seed)
    return kept, dict(skipped)


def once(samples: Sequence[Sample]) -> list[Sample]:
    """Each file once.

    Raises:
        InputError: One comes with two labels or on two sides.
    """
    held: dict[str, Sample] = {}
    for sample in samples:
        # A member of a tar has no path of its own.
        name = sample.uri if "!" in sample.uri or scheme_of(sample.uri) else uri_of(sample.uri)
        first = held.setdefault(name, sample)
        if (first.label, first.split) != (sample.label, sample.split):
            raise InputError(f"{sample.uri} comes twice, with another label or split")
    return list(held.values())


def is_video(sample: Sample) -> bool:
    """Whether a sample is a video, by its suffix."""
    return suffix(sample.uri) in SUFFIXES


def samples_of(video: Sample, crops: VideoCrops) -> list[Sample]:
    """The crops of a video as samples of its label and people."""
    return [
        replace(video, uri=f"{crops.tar}!{member}", clip=f"{video.uri}#{number:03}", reach=REACH)
        for number, clip in enumerate(crops.clips)
        for member in clip
    ]


def report(
    settings: TrainSettings,
    samples: Sequence[Sample],
    crops: Sequence[Sample],
    found: Sequence[tuple[Sample, VideoCrops]],
    skipped: dict[str, int],
    *,
    cut: bool,
) -> Report:
    """Looks a data set over.

    Args:
        settings: What is to be trained.
        samples: Videos and pictures.
        crops: Pictures, and what was cut from videos.
        found: Each video and what it gave.
        skipped: From `read`.
        cut: Whether the videos were cut, and not merely opened.
    """
    infos = [(video, crops.info) for video, crops in found if crops.info is not None and not crops.reason]
    blind = None
    if {video.label for video, _ in infos} == {0, 1}:
        blind = blind_auc(container_facts([info for _, info in infos]), [video for video, _ in infos])
    # What was cut here can be read; of what others cut, whatever their CSV says, every picture is tried.
    cut_here = {crop.uri for video, given in found for crop in samples_of(video, given)}
    ours = [crop for crop in crops if crop.uri in cut_here]
    looked_at = [crop for crop in crops if crop.uri not in cut_here] + one_per_clip(ours)
    seen = audit(looked_at) if looked_at else None
    unreadable = set(seen.unreadable if seen else ())
    usable = [sample for sample in (crops if cut else samples) if sample.uri not in unreadable]
    return Report(
        audit=seen,
        videos=dict(sorted(Counter(f"{s.split}/{s.label}" for s in samples if is_video(s)).items())),
        shared=shared_people(samples),
        failed=[failure for _, video in found if (failure := _failure(video, cut=cut))],
        container_auc=blind,
        skipped=skipped,
        lacking=_lacking(usable, all_blended=settings.blended == 1),
    )


def _lacking(samples: Sequence[Sample], *, all_blended: bool) -> list[str]:
    counts = Counter((sample.split, sample.label) for sample in samples)
    needed = {TRAIN: (0,) if all_blended else (0, 1), VALIDATION: (0, 1)}
    return [
        f"the side `{split}` has {counts[split, 0]:,} reals and {counts[split, 1]:,} fakes; it needs both"
        for split, labels in needed.items()
        if not all(counts[split, label] for label in labels)
    ]


def _failure(video: VideoCrops, *, cut: bool) -> tuple[str, str, str] | None:
    if video.reason:
        return video.uri, video.reason, video.message
    if cut and not video.clips:
        return video.uri, "no_face", "no face in it is large and long enough to be learned from"
    return None


def check(settings: TrainSettings) -> tuple[Report, list[Sample]]:
    """Reads every picture and opens every video of data sets, at one frame each; nothing is stored.

    Raises:
        InputError: As `read`.
        ClusterError: Ray cannot be reached.
    """
    samples, skipped = read(settings)
    videos = {uri_of(sample.uri): sample for sample in samples if is_video(sample)}
    looked_at: list[VideoCrops] = []
    if videos:
        plan, looked_at = plan_of(videos)
        scan = settings.scan_settings()
        options = extract_options(scan, Input(frames=1), windows=1, min_face_px=settings.min_face_px)
        looked_at += [_looked_at(row) for row in extracted(plan, scan, options)]
    pictures = [sample for sample in samples if not is_video(sample)]
    found = [(videos[crops.uri], crops) for crops in looked_at]
    return report(settings, samples, pictures, found, skipped, cut=False), samples


def write(path: Path, samples: Sequence[Sample]) -> None:
    """Writes samples as a CSV that `data` may name.

    Raises:
        StorageError: It cannot be written there.
    """
    whole = [replace(sample, uri=str(Path(sample.uri).absolute())) for sample in samples]
    try:
        write_samples(path.absolute(), whole)
    except OSError as error:
        raise storage_error(path, error) from error


def _looked_at(row: dict[str, Any] | VideoCrops) -> VideoCrops:
    if isinstance(row, VideoCrops):
        return row
    facts = msgspec.json.decode(row["facts"], type=Facts)
    return VideoCrops(row["uri"], row["version"], facts.failure, facts.message, video_info(row, facts))


def _few(names: Sequence[object]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())
