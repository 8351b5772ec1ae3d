"""`make bench-peers`: the shipped weights beside the mean of their frames and beside MesoNet, all on one set.

The items are the `val` crops of the labelled DFDC set, each a clip of one frame, and the labelled videos, cut
by the scan's own code: the same faces for all, each peer's at its own size, since resizing them afterwards
moves the AUC by hundredths. MesoNet, which knows single frames, has the mean of their logits for a track.
Intervals are 95 %, whole groups of people drawn. CPU time is that of the networks in float32 on one core.
Some six minutes.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from detector.crops import resize
from detector.evaluation.calibration import FLAG_FPR, UNCERTAIN_FPR
from detector.evaluation.intervals import Interval, auc_change_interval, auc_interval
from detector.evaluation.metrics import Scores, auc, recall_at
from detector.model import Model, settle_process
from detector.network import build
from detector.pipeline import decide
from detector.training.crop_store import CropStore
from detector.training.data import Sample
from detector.training.finish import groups_of, labels_of
from detector.types import Clips, ClipScore, ExtractOptions, Facts
from detector.weights import UNMEASURED, bundled, manifest, read, resolve
from jobs.config import ScanSettings
from jobs.crop_shards import VideoCrops, extracted, plan_of
from jobs.local import uri_of
from jobs.stages import unpacked
from tests.bench import mesonet
from tests.bench.weights import validation
from tests.shared import shared_data_folder, why_missing

_CROPS_PER_CALL = 64
_REPEATS = 5
_TIMED = (3, 10)  # clips and their frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """How well a peer ranks labelled items; `gain` is its AUC less that of the default weights."""

    items: int
    groups: int
    auc: float
    auc_interval: Interval
    recall_fpr5: float
    recall_fpr1: float
    gain: float
    gain_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Somebody's network and its figures; `frame_ms` are CPU ms of one core."""

    name: str
    crops: Ranked
    videos: Ranked
    parameters: int
    frame_ms: float


@dataclass(frozen=True, slots=True)
class _Network:
    """What takes part; `score` takes clips of `size` px."""

    name: str
    size: int
    parameters: int
    score: Callable[[Clips], list[ClipScore]]


def peers(shared: Path) -> list[Peer]:
    """Figures of all, the default weights first; `shared` is the folder of the shared test data."""
    networks = _networks(shared / "models")
    crops, videos = validation(shared / "crops"), labelled_videos(shared / "videos")
    on_crops = _ranked(crops, np.stack([_crop_logits(network, crops) for network in networks]))
    on_videos = _ranked(videos, _video_logits(networks, videos))
    figures = zip(on_crops, on_videos, _frame_ms(networks), strict=True)
    return [
        Peer(name=network.name, crops=of_crops, videos=of_videos, parameters=network.parameters, frame_ms=ms)
        for network, (of_crops, of_videos, ms) in zip(networks, figures, strict=True)
    ]


def labelled_videos(folder: Path) -> list[Sample]:
    """The videos of `faces` and `fake` whose index calls them real or fake."""
    samples = []
    for index in (folder / "faces" / "index.csv", folder / "fake" / "index.csv"):
        with index.open(newline="") as file:
            samples += [
                Sample(
                    uri_of(str(index.parent / row["file"])),
                    int(row["label"] == "fake"),
                    row["group"],
                    facets=(("manipulation", row["manipulation"] if row["label"] == "fake" else ""),),
                )
                for row in csv.DictReader(file)
                if row["label"] in ("real", "fake")
            ]
    return samples


def _networks(models: Path) -> list[_Network]:
    files = [name for name in manifest()["files"] if name.endswith(".safetensors")]
    files.sort(key=lambda name: (name != manifest()["default"], name))
    return [
        *(network for name in files for network in _shipped(bundled() / name)),
        *(_mesonet(models / name) for name in mesonet.FILES),
    ]


def _shipped(path: Path) -> Iterator[_Network]:
    """A weights file, and where its LSTM has a share the same without it."""
    weights = read(path)
    model, header = Model(weights), weights.header
    parameters = sum(tensor.numel() for tensor in build(header.architecture).parameters())
    network = _Network(path.stem, header.input.size, parameters, model.score)
    yield network
    if header.architecture.mix > 0:
        mean = partial(_frame_means, model)
        yield replace(network, name=f"{path.stem}, frame mean", score=mean)


def _frame_means(model: Model, clips: Clips) -> list[ClipScore]:
    return [_mean(score.frame_logits) for score in model.score(clips)]


def _mesonet(path: Path) -> _Network:
    network = mesonet.load(path)

    def score(clips: Clips) -> list[ClipScore]:
        logits = np.full(clips.mask.shape, np.nan)
        logits[clips.mask] = network.frame_logits(clips.pixels[clips.mask])
        return [_mean(of_clip) for of_clip in logits.tolist()]

    parameters = sum(tensor.numel() for tensor in network.parameters())
    return _Network(path.stem, mesonet.SIZE, parameters, score)


def _mean(frame_logits: Iterable[float]) -> ClipScore:
    each = tuple(frame_logits)
    mean = float(np.nanmean(each))
    return ClipScore(mean, mean, each)


def _crop_logits(network: _Network, samples: Sequence[Sample]) -> Scores:
    """Logits [N] of crops, each a clip of one frame."""
    store, logits = CropStore(), []
    for start in range(0, len(samples), _CROPS_PER_CALL):
        part = samples[start : start + _CROPS_PER_CALL]
        pixels = np.stack([resize(store.crop(sample), network.size) for sample in part])[:, None]
        logits += [score.logit for score in network.score(Clips(pixels, np.ones((len(part), 1), np.bool_)))]
    return np.array(logits)


def _video_logits(networks: Sequence[_Network], samples: Sequence[Sample]) -> Scores:
    """Logits [networks, N] of videos, nan where no face is scored."""
    column = {sample.uri: number for number, sample in enumerate(samples)}
    as_scanned = ScanSettings().extract_options(read(resolve("default")).header)
    logits = np.full((len(networks), len(samples)), np.nan)
    for size in sorted({network.size for network in networks}):
        options = replace(as_scanned, crop=replace(as_scanned.crop, size=size))
        for uri, facts, clips in extractions(column, options):
            for number, network in enumerate(networks):
                if network.size == size:
                    found = decide(facts, network.score(clips), UNMEASURED).logit
                    logits[number, column[uri]] = np.nan if found is None else found
    return logits


def extractions(uris: Iterable[str], options: ExtractOptions) -> Iterator[tuple[str, Facts, Clips]]:
    """Videos as a scan cuts them, one after the other."""
    plan, missing = plan_of(uris)
    for video in chain(missing, extracted(plan, ScanSettings(address="in-process"), options)):
        if isinstance(video, VideoCrops):
            raise FileNotFoundError(f"{video.uri}: {video.message}")
        row, facts, clips = unpacked(video)
        yield row["uri"], facts, clips


def _ranked(samples: Sequence[Sample], logits: Scores) -> list[Ranked]:
    """Figures for each row of logits [networks, N], on the items that have a score."""
    held = np.isfinite(logits).all(0)
    labels, groups, default = labels_of(samples)[held], groups_of(samples)[held], logits[0, held]
    return [
        Ranked(
            items=len(labels),
            groups=len(set(groups.tolist())),
            auc=auc(labels, scores),
            auc_interval=auc_interval(labels, scores, groups),
            recall_fpr5=recall_at(labels, scores, UNCERTAIN_FPR),
            recall_fpr1=recall_at(labels, scores, FLAG_FPR),
            gain=auc(labels, scores) - auc(labels, default),
            gain_interval=auc_change_interval(labels, default, scores, groups),
        )
        for scores in logits[:, held]
    ]


def _frame_ms(networks: Sequence[_Network]) -> list[float]:
    """CPU ms per frame, medians of turns that all take one after the other."""
    times: list[list[float]] = [[] for _ in networks]
    for _ in range(_REPEATS):
        for network, taken in zip(networks, times, strict=True):
            shape = (*_TIMED, network.size, network.size, 3)
            pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            clips = Clips(pixels, np.ones(_TIMED, np.bool_))
            began = time.process_time()
            network.score(clips)
            taken.append(1000 * (time.process_time() - began) / clips.mask.size)
    return [statistics.median(taken) for taken in times]


def main() -> int:
    """Print the figures of all, and how far each is from the default weights."""
    shared = shared_data_folder()
    if missing := why_missing(shared):
        print(missing, file=sys.stderr)
        return 2
    settle_process()
    found = peers(shared)
    default = found[0]
    print(
        f"{default.crops.items:,} crops of {default.crops.groups} groups of people, and "
        f"{default.videos.items} videos of {default.videos.groups}: those of "
        f"{len(labelled_videos(shared / 'videos'))} in which a face is scored"
    )
    print(
        f"\n{'':26}{'crops: AUC':>11}{'95 %':>14}{'at 5 %':>8}{'at 1 %':>8}"
        f"{'videos: AUC':>13}{'95 %':>14}{'parameters':>13}{'ms/frame':>10}"
    )
    for peer in found:
        print(
            f"{peer.name:26}{peer.crops.auc:11.3f}{_span(peer.crops.auc_interval):>14}"
            f"{peer.crops.recall_fpr5:8.1%}{peer.crops.recall_fpr1:8.1%}"
            f"{peer.videos.auc:13.3f}{_span(peer.videos.auc_interval):>14}"
            f"{peer.parameters:13,}{peer.frame_ms:10.1f}"
        )
    print(f"\n{f'AUC over {default.name}':38}{'crops':>8}{'95 %':>18}{'videos':>10}{'95 %':>18}")
    for peer in found[1:]:
        print(
            f"{peer.name:38}{peer.crops.gain:+8.3f}{_change(peer.crops.gain_interval):>18}"
            f"{peer.videos.gain:+10.3f}{_change(peer.videos.gain_interval):>18}"
        )
    best = max(
        (peer for peer in found if f"{peer.name}.h5" in mesonet.FILES), key=lambda peer: peer.crops.auc
    )
    print(f"\nthe best MesoNet on crops: {best.name}, AUC {best.crops.auc:.3f}")
    return 0


def _span(interval: Interval) -> str:
    return f"{interval[0]:.3f}-{interval[1]:.3f}"


def _change(interval: Interval) -> str:
    return f"{interval[0]:+.3f} .. {interval[1]:+.3f}"


if __name__ == "__main__":
    sys.exit(main())
