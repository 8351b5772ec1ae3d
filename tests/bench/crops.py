"""How the labelled DFDC crops lie around a YuNet box: where the defaults of `CropSpec` come from.

`make bench BAR=crops` runs YuNet on each of the crops, padded so that boxes may lean out, and prints the side
of the crop over the longer side of the box and where the box's centre lies in the crop. Needs the shared
test data; a few minutes. `ARGS="--every 10"` takes every tenth crop.
"""

import argparse
import csv
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detector import faces
from detector.types import CropSpec, FaceBox
from tests.shared import shared_data_folder, why_missing

PADDING_PX = 48
COLUMNS = ("side", "centre x", "centre y", "box h / w")
LABELS = {"0": "real", "1": "fake"}


def measure(folder: Path, every: int) -> dict[str, list[tuple[float, ...]]]:
    """Values of COLUMNS of each crop with a face, by label."""
    look = faces.load("yunet")
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in LABELS.values()}
    missed = 0
    for label, crop in _crops(folder, every):
        box = central_face(look, crop)
        if box is None:
            missed += 1
            continue
        side = crop.shape[0]
        centre = ((box.x + box.w / 2 - PADDING_PX) / side, (box.y + box.h / 2 - PADDING_PX) / side)
        found[label].append((side / box.side, *centre, box.h / box.w))
    print(f"{sum(map(len, found.values())):,} crops measured, {missed:,} without a face")
    return found


def _crops(folder: Path, every: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Label and pixels, `[H, W, 3] uint8 RGB`, of each crop of the list."""
    with (folder / "dfdc_faces.csv").open() as file:
        labels = {row["file"]: LABELS[row["label"]] for row in csv.DictReader(file)}
    wanted = set(sorted(labels)[::every])
    with tarfile.open(folder / "dfdc_faces.tar") as tar:
        for member in tar:
            if member.name in wanted and (stored := tar.extractfile(member)):
                rgb = cv2.imdecode(np.frombuffer(stored.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                yield labels[member.name], np.asarray(rgb, np.uint8)


def central_face(
    look: faces.Look, crop: NDArray[np.uint8], least: float = faces.START_SCORE
) -> FaceBox | None:
    """The box whose centre lies closest to the crop's: a few crops show another face beside theirs."""
    padded = np.asarray(cv2.copyMakeBorder(crop, *(PADDING_PX,) * 4, cv2.BORDER_CONSTANT), np.uint8)
    boxes = [box for box in look(padded, False) if box.score >= least]
    middle = padded.shape[0] / 2
    return min(boxes, key=lambda b: np.hypot(b.x + b.w / 2 - middle, b.y + b.h / 2 - middle), default=None)


def report(found: dict[str, list[tuple[float, ...]]]) -> None:
    """Medians and 10-90 percentiles by label, and what CropSpec would be."""
    everything = np.array([row for rows in found.values() for row in rows])
    for name, rows in {**found, "both": everything.tolist()}.items():
        print(f"\n{f'{name}, {len(rows):,} crops':26}{'median':>9}{'10 %':>9}{'90 %':>9}")
        for title, column in zip(COLUMNS, np.array(rows).T, strict=True):
            low, median, high = np.percentile(column, (10, 50, 90))
            print(f"  {title:24}{median:9.3f}{low:9.3f}{high:9.3f}")
    scale, below = np.median(everything[:, 0]), 0.5 - np.median(everything[:, 2])
    spec = CropSpec()
    print(f"\nmeasured: scale {scale:.3f}, shift_y {below:.3f}")
    print(f"CropSpec: scale {spec.scale:.3f}, shift_y {spec.shift_y:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="take every n-th crop")
    asked = parser.parse_args()
    folder = shared_data_folder()
    if missing := why_missing(folder):
        sys.exit(missing)
    report(measure(folder / "crops", asked.every))


if __name__ == "__main__":
    main()
