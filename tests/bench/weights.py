"""`make bench BAR=weights`: the figures of the model cards, from the shipped files and the labelled crops.

Each of the 1,046 `val` crops of the labelled DFDC set is a clip of one frame, scored as a scan scores it,
with no flip averaging. Intervals draw whole groups of people.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict
from pathlib import Path

from detector.model import Model, settle_process
from detector.training.data import Sample
from detector.training.finish import measure
from detector.weights import bundled, manifest, read
from tests.shared import shared_data_folder, why_missing


def main() -> int:
    """Print every figure of every shipped file."""
    if missing := why_missing(shared_data_folder()):
        print(missing, file=sys.stderr)
        return 2
    settle_process()
    samples = validation(shared_data_folder() / "crops")
    for name in sorted(n for n in manifest()["files"] if n.endswith(".safetensors")):
        figures, _ = measure(Model(read(bundled() / name)), samples)
        print(name)
        for figure, value in asdict(figures).items():
            print(f"  {figure:18} {value if isinstance(value, int) else round(value, 3)}")
    return 0


def validation(folder: Path) -> list[Sample]:
    """The `val` crops of the labelled DFDC set."""
    with (folder / "dfdc_faces.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    archive = folder / "dfdc_faces.tar"
    return [Sample(f"{archive}!{row['file']}", int(row["label"]), row["group"]) for row in rows]


if __name__ == "__main__":
    sys.exit(main())
