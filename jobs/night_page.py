"""The night's report as one HTML page: readable without script, without network, from disk."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jobs.night import BINS, MOST_FLAGGED, Night
from jobs.night_change import PSI_CHANGED, PSI_LEAST, PSI_LOOK
from jobs.page import render
from jobs.units import rounded_time

_MOST_INPUTS = 20
_FULL, _WIDTH = 190.0, 1000.0 / BINS
"""Height of the highest column and width of each, in a drawing of 1000 by 200."""


def page(night: Night, pages: Mapping[str, str]) -> str:
    """The HTML of a night.

    Args:
        night: From `night.look`.
        pages: Relative links to evidence pages by video_id; a video without one is listed without a link.
    """
    return render(
        "night.html.j2",
        static_page=True,
        night=night,
        pages=pages,
        columns=_columns(night.histogram),
        powers=_powers(night.histogram),
        bin_width=1 / BINS,
        most_flagged=MOST_FLAGGED,
        most_inputs=_MOST_INPUTS,
        psi_look=PSI_LOOK,
        psi_changed=PSI_CHANGED,
        psi_least=PSI_LEAST,
        rounded_time=rounded_time,
    )


def _columns(histogram: tuple[int, ...]) -> list[dict[str, float]]:
    """The columns that are not empty: place and size in the drawing, what they stand for, videos."""
    most = max(histogram)
    return [
        {
            "x": place * _WIDTH,
            "width": _WIDTH * 0.9,
            "height": _height(videos, most),
            "start": place / BINS,
            "videos": videos,
        }
        for place, videos in enumerate(histogram)
        if videos
    ]


def _powers(histogram: tuple[int, ...]) -> list[float]:
    """Heights of 10, 100, 1,000... videos, as far as the columns reach."""
    most = max(histogram)
    return [_height(10**power, most) for power in range(1, len(str(most)))]


def _height(videos: int, most: int) -> float:
    # By the logarithm: beside a hundred thousand at zero, the ten flagged ones would not be seen.
    return _FULL * math.log1p(videos) / math.log1p(most)
