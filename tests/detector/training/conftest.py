"""A toy set of crops with an obvious artefact: fakes carry a bright disc."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.training.data import Sample, read_samples

SIZE = 64


def _crop(person: int, fake: bool) -> np.ndarray:
    rng = np.random.default_rng(person)
    picture = cv2.GaussianBlur(rng.integers(0, 200, (SIZE, SIZE, 3), dtype=np.uint8), (0, 0), 4)
    if fake:
        cv2.circle(picture, (32, 32), 14, (250, 250, 40), -1)
    return np.asarray(picture)


@pytest.fixture(scope="session")
def toy_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people, one real and two fakes each; the pictures of the first five lie in a tar."""
    folder = tmp_path_factory.mktemp("toy")
    lines = ["uri,label,group,split,pair"]
    with tarfile.open(folder / "crops.tar", "w") as tar:
        for person in range(10):
            for number, label in enumerate(("real", "fake", "1")):
                name = f"p{person}_{number}.png"
                cv2.imwrite(str(folder / name), _crop(person, fake=number > 0)[..., ::-1])
                split = "val" if person >= 8 else "train"
                inside = person < 5
                lines.append(f"{'crops.tar!' if inside else ''}{name},{label},g{person},{split},g{person}")
                if inside:
                    tar.add(folder / name, arcname=name)
                    (folder / name).unlink()
    (folder / "crops.csv").write_text("\n".join(lines) + "\n")
    return folder / "crops.csv"


@pytest.fixture(scope="session")
def toy(toy_csv: Path) -> list[Sample]:
    return read_samples(toy_csv)
