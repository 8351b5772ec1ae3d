"""A weights file made from trained tensors reads back, and carries the policy measured on it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.evaluation.metrics import auc
from detector.model import Model
from detector.network import ResNeXtLSTM
from detector.training.crop_store import CropStore
from detector.training.finish import (
    Draft,
    export,
    groups_of,
    labels_of,
    logits_of,
    score_pictures,
)
from detector.weights import Architecture, Input, read

ARCHITECTURE = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=4, projection=16, hidden=8)


@pytest.fixture
def exported(toy, tmp_path: Path):
    torch.manual_seed(0)
    draft = Draft(
        name="toy", architecture=ARCHITECTURE, input=Input(size=32), provenance={"data": "made by the tests"}
    )
    return export(tmp_path / "toy.safetensors", draft, ResNeXtLSTM(ARCHITECTURE).state_dict(), toy, "toy")


def test_the_file_reads_back_and_scores_as_measured(exported, toy):
    weights, figures = exported
    model = Model(weights)
    assert figures.crops == 30
    assert figures.groups == 10
    assert figures.auc == pytest.approx(auc(labels_of(toy), logits_of(model, toy)))
    if figures.auc in (0.0, 1.0):  # the same in every draw, so nothing is said of other people
        assert np.isnan([figures.auc_low, figures.auc_high]).all()
    else:
        assert figures.auc_low <= figures.auc <= figures.auc_high
    assert all(
        0 <= value <= 1 for value in (figures.auc_jpeg40, figures.auc_wider, figures.auc_unseen_blends)
    )
    assert model.header.provenance == {"data": "made by the tests"}
    assert len(model.header.policy.policy_id) == 12


def test_the_policy_changes_no_score(exported, tmp_path: Path):
    weights, _ = exported
    assert read(tmp_path / "toy.safetensors").weights_id == weights.weights_id


def test_a_crop_scores_the_same_alone_and_among_others(exported, toy):
    model = Model(exported[0])
    store = CropStore()
    alone = score_pictures(model, [store.read(toy[3].uri)])
    assert logits_of(model, toy)[3] == pytest.approx(alone[0], abs=1e-4)


def test_groups_are_those_of_the_samples(toy):
    assert set(groups_of(toy)) == {f"g{person}" for person in range(10)}
