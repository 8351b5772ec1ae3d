"""Clips for stage B: what comes from clips, what from stills, and what is kept from the last time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.network import ClipNetwork, build
from detector.training import clips as module
from detector.training.clips import ClipOptions, clip_set, one_per_clip
from detector.weights import Architecture

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=4, projection=8, hidden=8)
OPTIONS = ClipOptions(frames=4, per_class=6)


@pytest.fixture
def network() -> ClipNetwork:
    torch.manual_seed(0)
    return build(ARCHITECTURE).eval()


def _make(network, samples, folder: Path, *, training: bool):
    return clip_set(network, samples, OPTIONS, folder, size=32, training=training)


def test_every_real_brings_a_blended_pair_of_the_same_person(network, toy, tmp_path: Path):
    made = _make(network, toy, tmp_path, training=True)
    pairs = made.features[12:]
    assert made.labels.tolist() == [0.0] * 6 + [1.0] * 6 + [0.0, 1.0] * 6
    assert made.groups[12::2].tolist() == made.groups[13::2].tolist() == made.groups[:6].tolist()
    assert made.features.shape == (24, 4, 8)
    assert not torch.equal(pairs[::2], pairs[1::2])
    assert made.mask.all()


def test_validation_has_labelled_clips_alone(network, toy, tmp_path: Path):
    assert _make(network, toy, tmp_path, training=False).labels.tolist() == [0.0] * 6 + [1.0] * 6


def test_a_still_moves_and_a_clip_stays_as_it_was_cut(network, toy, tmp_path: Path):
    still = [sample for sample in toy if sample.label == 0][:1]
    moving = _make(network, still, tmp_path / "still", training=False).features[0]
    assert not torch.equal(moving[0], moving[3])
    short = [replace(still[0], clip="one") for _ in range(3)]
    made = _make(network, short, tmp_path / "clip", training=False)
    assert made.mask.tolist() == [[True, True, True, False]]
    assert torch.equal(made.features[0, 0], made.features[0, 2])
    assert not made.features[0, 3].any()


def test_features_are_kept_for_the_same_network_only(network, toy, tmp_path: Path, monkeypatch):
    first = _make(network, toy, tmp_path, training=True)
    asked = []
    real = module.clip_features
    monkeypatch.setattr(module, "clip_features", lambda *args: asked.append(1) or real(*args))
    assert torch.equal(_make(network, toy, tmp_path, training=True).features, first.features)
    assert not asked
    with torch.no_grad():
        network.projection.bias.add_(1.0)
    assert not torch.equal(_make(network, toy, tmp_path, training=True).features, first.features)
    assert asked


def test_one_crop_stands_for_a_clip(toy):
    crops = [replace(toy[0], uri=str(number), clip="one") for number in range(5)]
    assert [sample.uri for sample in one_per_clip([*crops, toy[1]])] == ["2", toy[1].uri]
    assert np.isclose(len(one_per_clip(toy)), len(toy))
