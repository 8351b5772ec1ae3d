"""`make bench BAR=weights`: the figures of the model cards, from the shipped files and the labelled crops.

Each of the 1,046 `val` crops of the labelled DFDC set is a clip of one frame, scored as a scan scores it,
with no flip averaging. Intervals draw whole groups of people.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.crops import resize
from detector.model import Model
from detector.training.metrics import auc
from detector.types import Clips
from detector.weights import bundled, manifest, read
from tests.shared import shared_data_folder, why_missing

_BATCH = 64
_DRAWS = 500


def main() -> int:
    """Print a line per shipped file and disturbance."""
    if missing := why_missing(shared_data_folder()):
        print(missing, file=sys.stderr)
        return 2
    crops, labels, groups = _validation()
    print(f"{len(crops)} crops, {len(set(groups.tolist()))} groups")
    for name in sorted(n for n in manifest()["files"] if n.endswith(".safetensors")):
        model = Model(read(bundled() / name))
        for disturbance, disturbed in (("as they are", crops), ("JPEG 40", [_jpeg(c, 40) for c in crops])):
            logits = _logits(model, disturbed)
            low, high = _interval(labels, logits, groups)
            print(f"{name}  {disturbance}: AUC {auc(labels, logits):.3f} ({low:.3f}-{high:.3f})")
    return 0


def _validation() -> tuple[list[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.str_]]:
    folder = shared_data_folder() / "crops"
    with (folder / "dfdc_faces.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file) if row["split"] == "val"}
    crops: dict[str, NDArray[np.uint8]] = {}
    with tarfile.open(folder / "dfdc_faces.tar") as archive:
        for member in archive:
            if (name := member.name.removeprefix("./")) in rows:
                crops[name] = _decoded((archive.extractfile(member) or io.BytesIO()).read())
    labels = np.array([int(rows[name]["label"]) for name in crops])
    return list(crops.values()), labels, np.array([rows[name]["group"] for name in crops])


def _logits(model: Model, crops: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    size = model.header.input.size
    pixels = np.stack([resize(crop, size) for crop in crops])[:, None]
    mask = np.ones(pixels.shape[:2], np.bool_)
    batches = [slice(i, i + _BATCH) for i in range(0, len(pixels), _BATCH)]
    return np.array([s.logit for b in batches for s in model.score(Clips(pixels[b], mask[b]))])


def _interval(
    labels: NDArray[np.int64], logits: NDArray[np.float64], groups: NDArray[np.str_]
) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = []
    for _ in range(_DRAWS):
        chosen = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        drawn.append(auc(labels[chosen], logits[chosen]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _decoded(data: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _jpeg(crop: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    coded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[
        1
    ]
    return _decoded(coded.tobytes())


if __name__ == "__main__":
    sys.exit(main())
