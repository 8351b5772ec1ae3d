"""The teacher's answers are cached once and found again wherever the student looks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.errors import SettingsError
from detector.network import EfficientNetLite0LSTM, ResNeXtLSTM, build
from detector.training.batches import BatchOptions, PairedCrops
from detector.training.crop_store import CropStore
from detector.training.distil import cache_targets, normalised, under_window
from detector.training.objective import FrameObjective, ObjectiveOptions, frame_logits
from detector.weights import Architecture


@pytest.fixture(scope="module")
def teacher() -> EfficientNetLite0LSTM:
    torch.manual_seed(0)
    return EfficientNetLite0LSTM(Architecture(projection=16, hidden=8)).eval()


def test_cached_answers_are_the_teachers(teacher, toy, tmp_path: Path):
    targets = cache_targets(teacher, toy, tmp_path, size=64, workers=0)
    frames = torch.from_numpy(np.stack([CropStore().read(sample.uri) for sample in toy]))
    with torch.inference_mode():
        features = teacher.trunk.features(normalised(frames))
        assert targets.logits == pytest.approx(frame_logits(teacher, normalised(frames)).numpy(), abs=1e-5)
    maps = targets.maps(np.array([0, 29]))
    assert maps.stride8.shape == (2, 40, 8, 8)
    assert maps.stride16.shape == (2, 112, 4, 4)
    for row, found in zip((0, 29), maps.stride8, strict=True):
        expected = features.stride8[row].flatten(1)
        per_channel = [
            np.corrcoef(one, two)[0, 1] for one, two in zip(expected, found.flatten(1), strict=True)
        ]
        assert np.median(per_channel) > 0.99


def test_caching_goes_on_where_it_stopped(teacher, toy, tmp_path: Path):
    whole = cache_targets(teacher, toy, tmp_path, size=64, workers=0)
    expected = np.array(whole.logits)
    (kept,) = tmp_path.glob("*/state.json")
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "done": 12}))
    whole.logits[12:] = 0
    again = cache_targets(teacher, toy, tmp_path, size=64, workers=0)
    assert again.logits == pytest.approx(expected, abs=1e-6)


def test_answers_of_another_teacher_or_to_other_crops_are_not_taken(teacher, toy, tmp_path: Path):
    torch.manual_seed(1)
    other = EfficientNetLite0LSTM(Architecture(projection=16, hidden=8))
    turned, wider = toy[::-1], [replace(sample, reach=1.5) for sample in toy]
    for asked, samples in (
        (teacher, toy),
        (other, toy),
        (teacher, turned),
        (teacher, toy[:5]),
        (teacher, wider),
    ):
        kept = cache_targets(asked, samples, tmp_path / "kept", size=64, workers=0).logits
        fresh = cache_targets(
            asked, samples, tmp_path / f"fresh-{len(list(tmp_path.iterdir()))}", 64, 0
        ).logits
        assert np.array_equal(kept, fresh), (
            "answers of another teacher, or to other crops, were taken from disk"
        )


def test_a_teacher_may_see_a_size_that_is_no_multiple_of_16(teacher, toy, tmp_path: Path):
    maps = cache_targets(teacher, toy[:2], tmp_path, size=50, workers=0).maps(np.array([0, 1]))
    assert (maps.stride8.shape[2:], maps.stride16.shape[2:]) == ((7, 7), (4, 4)), (
        "what 50 px give, rounded up"
    )


def test_maps_are_seen_through_the_window():
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    whole = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    assert torch.allclose(under_window(maps, whole, 8), maps, atol=1e-4)
    mirrored = torch.tensor([[0.5, 0.5, 1.0, -1.0]])
    assert torch.allclose(under_window(maps, mirrored, 8), maps.flip(3), atol=1e-4)
    corner = torch.tensor([[0.25, 0.75, 0.5, 1.0]])
    assert torch.allclose(under_window(maps, corner, 4), maps[:, :, 4:, :4], atol=1e-4)


def test_a_student_learns_from_answers_and_ignores_them_for_blends(teacher, toy, tmp_path: Path):
    targets = cache_targets(teacher, toy, tmp_path, size=64, workers=0)
    architecture = Architecture(layers=(1, 1, 1, 1), groups=1, width_per_group=8, projection=16, hidden=8)
    objective = FrameObjective(ResNeXtLSTM(architecture), ObjectiveOptions(), targets)
    losses = objective(PairedCrops(toy, BatchOptions(size=32, batch=8))[0])
    assert set(losses) == {"label", "features"}
    torch.stack(list(losses.values())).sum().backward()
    assert objective.network.trunk.conv1.weight.grad is not None
    assert objective.network.lstm.weight_ih_l0.grad is None
    other = build(Architecture(family="efficientnet_lite0_lstm", projection=16, hidden=8))
    with pytest.raises(SettingsError, match="teacher"):
        FrameObjective(other, ObjectiveOptions(), targets)
    blends = PairedCrops(toy, BatchOptions(size=32, batch=8, blended=1.0))[0]
    assert all(torch.isfinite(loss) for loss in objective(blends).values())
