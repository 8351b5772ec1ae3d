"""The plot of the bar `cost`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from tests.bench.comparison import Cost

_COLOURS = ("#9aa5b1", "#c3ccd5", "#7fb0d8", "#2f6fa8", "#d9822b")


def draw(costs: Sequence[Cost], default: str, path: Path) -> None:
    """Bars of CPU seconds by clip, on a logarithmic scale, each of ours with its ratio to the reference."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.1 * len(costs) + 1.2), layout="constrained")
    names = (
        "one decode",
        "floor: and the network",
        "ours, float32",
        f"ours, default ({default})",
        "reference",
    )
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        values = [_values(cost)[number] for cost in costs]
        rows = [row + (number - 2) * height for row in range(len(costs))]
        bars = axes.barh(rows, values, height, label=name, color=_COLOURS[number])
        texts = [f" {_text(cost, number)}" for cost in costs]
        axes.bar_label(bars, texts, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(0.1, 2 * max(cost.reference for cost in costs))
    axes.set_yticks(range(len(costs)), [cost.clip for cost in costs])
    axes.invert_yaxis()
    axes.set_xlabel("CPU seconds for 20 frames of a clip")
    axes.legend(fontsize=8, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _values(cost: Cost) -> tuple[float, ...]:
    return cost.decode, cost.floor, *cost.ours, cost.reference


def _text(cost: Cost, number: int) -> str:
    seconds = f"{_values(cost)[number]:.2f}"
    if number in (2, 3):
        return f"{seconds}: {cost.cheaper[number - 2]:.1f} times cheaper"
    return seconds
