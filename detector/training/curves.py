"""The curves of a cycle as a picture: losses from `log.csv`, figures from `validation.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Series = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""

_WIDTH, _HEIGHT, _EDGE = 900, 320, 56
_COLOURS = ((180, 80, 20), (30, 110, 220), (60, 150, 60), (140, 60, 140))
"""BGR."""
_NOT_CURVES = {"step", "images_per_s", "learning_rate"}


def draw_curves(folder: Path) -> Path | None:
    """Draws `curves.png` into the folder of a cycle; None where nothing was logged yet."""
    panels = [
        _panel(name, series) for name in ("log", "validation") if (series := _read(folder / f"{name}.csv"))
    ]
    if not panels:
        return None
    path = folder / "curves.png"
    cv2.imwrite(str(path), np.vstack(panels))
    return path


def _read(path: Path) -> dict[str, Series]:
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    steps = [float(row["step"]) for row in rows]
    return {name: (steps, [float(row[name]) for row in rows]) for name in rows[0] if name not in _NOT_CURVES}


def _panel(title: str, series: Mapping[str, Series]) -> NDArray[np.uint8]:
    """[320, 900, 3] uint8 BGR."""
    panel = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    last = max(steps[-1] for steps, _ in series.values())
    low = min(min(values) for _, values in series.values())
    high = max(max(values) for _, values in series.values())
    height = max(high - low, 1e-6)
    inner_width, inner_height = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE
    cv2.rectangle(panel, (_EDGE, _EDGE), (_WIDTH - _EDGE, _HEIGHT - _EDGE), (200, 200, 200))
    _write(panel, title, (_EDGE, 22), (0, 0, 0))
    _write(panel, f"{high:.3f}", (4, _EDGE + 5), (0, 0, 0))
    _write(panel, f"{low:.3f}", (4, _HEIGHT - _EDGE + 5), (0, 0, 0))
    _write(panel, f"step {last:.0f}", (_WIDTH - _EDGE - 80, _HEIGHT - _EDGE + 22), (0, 0, 0))
    for number, (name, (steps, values)) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        x = _EDGE + np.asarray(steps) / max(last, 1) * inner_width
        y = _EDGE + (high - np.asarray(values)) / height * inner_height
        points = np.rint(np.stack([x, y], 1)).astype(np.int32)
        cv2.polylines(panel, [points], isClosed=False, color=colour, thickness=2, lineType=cv2.LINE_AA)
        cv2.circle(panel, (int(points[-1, 0]), int(points[-1, 1])), 3, colour, -1)
        _write(panel, f"{name} {values[-1]:.3f}", (_EDGE + 160 + 170 * number, 22), colour)
    return panel


def _write(panel: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(panel, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
