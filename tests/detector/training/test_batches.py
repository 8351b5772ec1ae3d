"""Batches: pairs under the same window, the same ones in every run."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.errors import InputError
from detector.training.batches import BatchOptions, PairedCrops
from detector.training.crop_store import CropStore
from detector.training.data import Sample


def test_a_batch_holds_pairs_under_the_same_window(toy):
    batch = PairedCrops(toy, BatchOptions(size=48, batch=8, seed=1))[5]
    assert batch.frames.shape == (8, 48, 48, 3)
    assert batch.frames.dtype == torch.uint8
    assert batch.labels.tolist() == [0.0] * 4 + [1.0] * 4
    assert torch.equal(batch.windows[:4], batch.windows[4:])
    for real, fake in zip(batch.rows[:4], batch.rows[4:], strict=True):
        assert toy[real].pair == toy[fake].pair
        assert (toy[real].label, toy[fake].label) == (0, 1)


def test_a_step_always_gives_the_same_batch_and_steps_differ(toy):
    options = BatchOptions(size=32, batch=8, seed=4)
    first, second = PairedCrops(toy, options), PairedCrops(toy, options)
    assert torch.equal(first[7].frames, second[7].frames)
    assert not torch.equal(first[7].frames, first[8].frames)


def test_blended_fakes_need_no_fake_files(toy):
    reals = [sample for sample in toy if sample.label == 0]
    batch = PairedCrops(reals, BatchOptions(size=32, batch=8, blended=1.0))[0]
    assert batch.rows[4:].tolist() == [-1] * 4
    assert not torch.equal(batch.frames[:4], batch.frames[4:])


def test_training_needs_both_classes(toy):
    with pytest.raises(InputError, match="needs both"):
        PairedCrops([sample for sample in toy if sample.label == 0], BatchOptions())


def test_what_is_stored_wider_is_learned_from_as_if_it_were_not(toy, tmp_path: Path):
    real = CropStore().read(toy[0].uri)
    wide = np.pad(real, ((16, 16), (16, 16), (0, 0)))
    cv2.imwrite(str(tmp_path / "wide.png"), wide[..., ::-1])
    stored = Sample(str(tmp_path / "wide.png"), 0, "g", reach=1.5)
    assert np.array_equal(CropStore().crop(stored), real)
