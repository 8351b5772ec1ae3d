"""`make cards`: every figure of the model cards and the README, from the shipped files and the shared data.

Writes `weights/figures.json`, and from it the cards and the README's claim (`card_text`). A part that was
measured already for the same weights is taken from `.bench/cards`. The test split is looked at with `--test`
alone: once, when weights are final.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from detector.crops import resize
from detector.evaluation.figures import Items, figures, slices
from detector.evaluation.intervals import auc_change_interval
from detector.evaluation.metrics import auc
from detector.model import Model, settle_process
from detector.training.crop_store import CropStore
from detector.training.data import SPLITS
from detector.training.finish import measure
from detector.training.motion import moving_still
from detector.types import Clips, ClipScore, Status
from detector.verdict import decide
from detector.weights import WeightsFile, bundled, manifest, read
from jobs import evaluate, evaluate_report
from jobs.config import ScanSettings
from tests.bench import card_text
from tests.bench.peers import extractions, labelled_videos, peers
from tests.bench.weights import validation
from tests.shared import shared_data_folder, why_missing

FIGURES = bundled() / "figures.json"
PROFILES = {"fast": 10, "balanced": 20, "thorough": 100}
"""Frames that each looks at."""
_CACHE = Path(__file__).resolve().parents[2] / ".bench" / "cards"
_STILLS = 400
_OF_SLICES = ("column", "value", "against", "reals", "fakes", "auc", "recall", "false_positive_rate")
_CLIP_FRAMES = 10
_HELD_OUT = ("val", "test")
"""Splits of UTKFace that no weights learn from."""


def main() -> int:
    """Measure what is missing, write figures, cards and claim."""
    parser = argparse.ArgumentParser(prog="make cards")
    parser.add_argument("--test", action="store_true", help="look at the test split, once")
    options = parser.parse_args()
    if missing := why_missing(shared_data_folder()):
        print(missing, file=sys.stderr)
        return 2
    settle_process()
    _CACHE.mkdir(parents=True, exist_ok=True)
    looked = json.loads(FIGURES.read_text())["weights"]
    found, shas = {}, [entry["sha256"][:12] for name, entry in manifest()["files"].items() if "card" in entry]
    for name in sorted(n for n in manifest()["files"] if n.endswith(".safetensors")):
        weights, before = read(bundled() / name), looked.get(name.removesuffix(".safetensors"), {})
        # What was looked at once stays looked at.
        known = before.get("test") if before.get("sha256") == weights.sha256 else None
        found[name.removesuffix(".safetensors")] = _measured(weights, known, look=options.test)
    measured = _rounded({"weights": found, "peers": _kept(f"{'-'.join(shas)}-peers", _peers)})
    FIGURES.write_text(json.dumps(measured, indent=1) + "\n")
    card_text.write(measured)
    return 0


def _rounded(value: Any) -> Any:
    """Figures to six decimals: more would differ between machines."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def _measured(weights: WeightsFile, known: dict[str, Any] | None, *, look: bool) -> dict[str, Any]:
    crops = shared_data_folder() / "crops"
    parts: dict[str, Callable[[Model], Any]] = {
        "val": lambda model: _crops(model, weights, crops / "dfdc_faces.csv", ("val",), robustness=True),
        "utkface": lambda model: _crops(
            model,
            weights,
            crops.parent / "faces_real" / "utkface_part1.csv",
            _HELD_OUT,
            slice_by=["age", "gender", "race"],
        ),
        "ciplab": lambda model: _crops(model, weights, crops / "ciplab_photoshop.csv"),
        "time": _time,
        "margins": _margins,
        **{f"videos_{profile}": _videos_of(profile, weights) for profile in PROFILES},
    }
    if look and known is None:
        parts["test"] = lambda model: _crops(
            model, weights, crops / "dfdc_faces.csv", ("test",), robustness=True
        )
    measured: dict[str, Any] = {"weights_id": weights.weights_id, "sha256": weights.sha256}
    if known is not None:
        measured["test"] = known
    for name, part in parts.items():
        measured[name] = _kept(f"{weights.sha256[:12]}-{name}", partial(_part, weights, part))
    return measured


def _part(weights: WeightsFile, part: Callable[[Model], Any]) -> Any:
    return part(Model(weights))


def _kept(name: str, measure: Callable[[], Any]) -> Any:
    """A part of the figures, measured unless that was done already."""
    kept = _CACHE / f"{name}.json"
    if not kept.exists():
        print(name, flush=True)
        kept.write_text(json.dumps(measure()))
    return json.loads(kept.read_text())


def _peers() -> list[dict[str, Any]]:
    return [asdict(peer) for peer in peers(shared_data_folder())]


def _margins(model: Model) -> dict[str, Any]:
    """Validation crops cut tighter and wider, and its reals against blends that were not trained on."""
    found, _ = measure(model, validation(shared_data_folder() / "crops"))
    return asdict(found)


def _crops(
    model: Model,
    weights: WeightsFile,
    path: Path,
    splits: Sequence[str] = SPLITS,
    *,
    robustness: bool = False,
    slice_by: Sequence[str] = (),
) -> dict[str, Any]:
    samples = [sample for sample in evaluate.read([], [str(path)], None) if sample.split in splits]
    scores = evaluate.score_crops(samples, model, robustness=robustness, say=print)
    report = evaluate_report.report(scores, weights, weights.header.policy, slice_by)
    kept = {name: report[name] for name in ("frame", "calibration", "robustness", "outcomes")}
    return kept | {"slices": _short(report["slices"])}


def _short(slices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the cards show of slices."""
    return [
        {name: one.get(name) for name in _OF_SLICES}
        | {"intervals": {"false_positive_rate": one["intervals"].get("false_positive_rate")}}
        for one in slices
    ]


def _videos_of(profile: str, weights: WeightsFile) -> Callable[[Model], dict[str, Any]]:
    return lambda model: _videos(model, weights, profile)


def _videos(model: Model, weights: WeightsFile, profile: str) -> dict[str, Any]:
    """Figures of the labelled videos, and of one value for each group: many are tracks of one person."""
    settings = ScanSettings.model_validate({"profile": profile, "address": "in-process"})
    scores = evaluate.score_videos(
        labelled_videos(shared_data_folder() / "videos"),
        settings,
        model,
        weights.header.policy,
        robustness=False,
        say=print,
    )
    assert scores.video is not None
    return {
        "frames": PROFILES[profile],
        "video": figures(scores.video, weights.header.policy),
        "by_group": figures(_one_per_group(scores.video), weights.header.policy),
        "other_sources": figures(_one_per_group(_not_dfdc(scores.video)), weights.header.policy),
        "slices": _short(slices(scores.video, weights.header.policy, ["manipulation"])),
        "outcomes": scores.outcomes,
    }


def _not_dfdc(items: Items) -> Items:
    """Without videos of the data set that the weights learned from."""
    return items.only(~np.char.startswith(items.groups, "dfdc_"))


def _one_per_group(items: Items) -> Items:
    """The mean logit of each group's reals, and of its fakes."""
    covered = items.only(items.covered)
    keys = sorted(set(zip(covered.groups.tolist(), covered.labels.tolist(), strict=True)))
    logits = [
        float(covered.logits[(covered.groups == group) & (covered.labels == label)].mean())
        for group, label in keys
    ]
    groups, labels = zip(*keys, strict=True)
    return Items(np.array(labels), np.array(logits), np.array(groups), {})


def _time(model: Model) -> dict[str, Any]:
    """What the order of frames adds: the LSTM alone against the mean of the frames; the mix as shipped."""
    return {
        "mix": model.header.architecture.mix,
        "real videos": _with_and_without(*_of_videos(model)),
        "stills in motion": _with_and_without(*_of_stills(model)),
    }


def _with_and_without(
    labels: list[int], groups: list[str], logits: list[tuple[float, float]]
) -> dict[str, Any]:
    """AUC of the frames alone, of the LSTM alone, and the difference with its interval."""
    y, g = np.array(labels), np.array(groups)
    frames, sequence = np.array(logits).T
    return {
        "clips": len(y),
        "groups": len(set(groups)),
        "auc_frames": auc(y, frames),
        "auc_lstm": auc(y, sequence),
        "gain_interval": auc_change_interval(y, frames, sequence, g),
    }


_Column = tuple[list[int], list[str], list[tuple[float, float]]]


def _of_videos(model: Model) -> _Column:
    labels, groups, logits = [], [], []
    by_uri = {sample.uri: sample for sample in labelled_videos(shared_data_folder() / "videos")}
    for uri, facts, clips in extractions(by_uri, ScanSettings().extract_options(model.header)):
        sample, scores = by_uri[uri], model.score(clips)
        found = [
            decide(facts, [replace(score, logit=of(score)) for score in scores], model.header.policy)
            for of in (_mean_of_frames, _of_sequence)
        ]
        if found[0].status is Status.SCORED:
            labels.append(sample.label)
            groups.append(sample.group)
            logits.append((found[0].logit or 0.0, found[1].logit or 0.0))
    return labels, groups, logits


def _of_stills(model: Model) -> _Column:
    """Validation crops, each set in motion: what passes in time is that motion, and nothing else."""
    samples = validation(shared_data_folder() / "crops")
    chosen = [samples[index] for index in np.random.default_rng(0).permutation(len(samples))[:_STILLS]]
    store, size, logits = CropStore(), model.header.input.size, []
    for number, sample in enumerate(chosen):
        moved = moving_still(store.crop(sample), _CLIP_FRAMES, np.random.default_rng(number))
        pixels = np.stack([resize(frame, size) for frame in moved])[None]
        [score] = model.score(Clips(pixels, np.ones((1, _CLIP_FRAMES), np.bool_)))
        logits.append((_mean_of_frames(score), _of_sequence(score)))
    return [sample.label for sample in chosen], [sample.group for sample in chosen], logits


def _mean_of_frames(score: ClipScore) -> float:
    return fmean(logit for logit in score.frame_logits if not math.isnan(logit))


def _of_sequence(score: ClipScore) -> float:
    return score.sequence_logit


if __name__ == "__main__":
    sys.exit(main())
