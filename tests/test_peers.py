"""The networks that the shipped weights are measured beside are those that their authors published."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from detector.crops import resize
from detector.evaluation.metrics import auc
from detector.training.crop_store import CropStore
from detector.training.finish import labels_of
from tests.bench import mesonet
from tests.bench.weights import validation

# Trainable ones, as the paper counts them.
PARAMETERS = {"Meso4": 27_977, "MesoInception": 28_615}


def stored(path: Path) -> list[float]:
    """Every number of a weights file, sorted."""
    found: list[float] = []

    def add(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found.extend(item[()].ravel().tolist())

    with h5py.File(path) as file:
        file.visititems(add)
    return sorted(found)


@pytest.mark.parametrize("name", mesonet.FILES)
def test_every_tensor_of_a_published_file_is_used_and_nothing_else(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / name
    network = mesonet.load(path)
    used = [
        value for tensor in network.state_dict().values() if tensor.dim() for value in tensor.ravel().tolist()
    ]
    assert sorted(used) == stored(path), f"{name}: the network does not hold what the file holds"
    trained = sum(tensor.numel() for tensor in network.parameters())
    assert trained == PARAMETERS[name.partition("_")[0]], f"{name}: not the network of the paper"


@pytest.mark.parametrize("name", [name for name in mesonet.FILES if "DF" in name])
def test_what_was_trained_on_deepfakes_knows_the_crops_that_its_authors_show(
    shared_data: Path, name: str
) -> None:
    pictures = sorted((shared_data / "models" / "mesonet_test_images").iterdir())
    pixels = np.stack([resize(CropStore().read(str(path)), mesonet.SIZE) for path in pictures])
    logits = mesonet.load(shared_data / "models" / name).frame_logits(pixels)
    for path, logit in zip(pictures, logits, strict=True):
        assert (logit > 0) == path.name.startswith("df_"), f"{name} gives {path.name} the logit {logit:.2f}"
    assert len({path.name.partition("_")[0] for path in pictures}) == 2, "reals or fakes are missing"


def test_meso4_ranks_labelled_crops_better_than_chance(shared_data: Path) -> None:
    samples, store = validation(shared_data / "crops")[:100], CropStore()
    pixels = np.stack([resize(store.crop(sample), mesonet.SIZE) for sample in samples])
    logits = mesonet.load(shared_data / "models" / "Meso4_DF.h5").frame_logits(pixels)
    assert len(samples) == 100
    assert logits.std() > 0.5, f"the scores hardly differ: {logits.min():.2f} to {logits.max():.2f}"
    found = auc(labels_of(samples), logits)
    assert found > 0.5, f"AUC {found:.3f}: reals and fakes may have changed places"
