"""The report of `evaluate` as one HTML page: readable without script, without network, from disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.evaluate_report import SHOWN, interval_text
from jobs.files import write_whole
from jobs.page import render, strings

_REAL, _FAKE, _LINE = "#2b6cb0", "#c05621", "#718096"
_SIZE = (4.6, 3.6)
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: searched, read aloud
    "svg.hashsalt": "deepfake-scan",
    "font.family": "sans-serif",
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "text.color": _LINE,
    "legend.frameon": False,
}


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Writes the page, whole or not at all.

    Raises:
        StorageError: It cannot be written there.
    """
    write_whole(path, page(report))


def page(report: Mapping[str, Any]) -> str:
    """The HTML of a report by `evaluate_report.report`."""
    curves, words = report["curves"], strings()["evaluate"]
    plots = {
        words["roc"]: _svg(lambda axes: _roc(axes, curves["roc"]), words["roc_x"], words["roc_y"]),
        words["reliability"]: _svg(
            lambda axes: _reliability(axes, curves["reliability"]),
            words["reliability_x"],
            words["reliability_y"],
        ),
        words["histogram"]: _svg(
            lambda axes: _histogram(axes, curves["histogram"], report["policy"]),
            "p_fake",
            words["units"][report["unit"]],
        ),
    }
    units = ["video", "frame"] if report["video"] else ["frame"]
    return render(
        "evaluate.html.j2",
        static_page=True,
        report=report,
        plots=plots,
        units=units,
        shown=SHOWN,
        main=report[report["unit"]],
        ci=interval_text,
    )


def _svg(draw: Callable[[Axes], None], x: str, y: str) -> Markup:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :])  # noqa: S704  # drawn from numbers alone


def _roc(axes: Axes, roc: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle=":", linewidth=1)
    axes.plot(roc["false_positive_rate"], roc["true_positive_rate"], color=_FAKE)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _reliability(axes: Axes, bins: list[dict[str, float]]) -> None:
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle=":", linewidth=1)
    axes.plot([one["mean_p"] for one in bins], [one["fakes"] for one in bins], color=_FAKE, marker="o")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _histogram(axes: Axes, histogram: Mapping[str, Any], policy: Mapping[str, Any]) -> None:
    for name, colour in (("reals", _REAL), ("fakes", _FAKE)):
        axes.stairs(histogram[name], histogram["edges"], color=colour, label=name, fill=True, alpha=0.35)
        axes.stairs(histogram[name], histogram["edges"], color=colour)
    for threshold, name, style in (("uncertain", "uncertain from", ":"), ("flag", "flagged from", "--")):
        axes.axvline(policy[threshold], color=_LINE, linestyle=style, linewidth=1, label=name)
    axes.legend(loc="upper center")
