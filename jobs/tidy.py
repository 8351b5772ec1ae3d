"""Rows as pages show them: judged by the policy of today, and without gaps.

What a newer release wrote, or somebody else, may lack anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from detector.verdict import score_of, verdict_at

_WHOLE = {
    "persons": ("person_id", "start_s", "end_s", "windows", "p_fake"),
    "tracks": ("person_id", "start_s", "end_s"),
    "segments": ("person_id", "start_s", "end_s", "p_fake"),
}
_BOX = ("t_s", "x", "y", "w", "h")
_COUNTS = (
    "windows_planned",
    "windows_scored",
    "frames_decoded",
    "frames_corrupt",
    "tracks_found",
    "tracks_scored",
)
_NUMBERS = ("p_fake", "p_fake_today", "flag_today", "uncertain_today", "fps", "duration_s")


def tidied(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the view `today` whose tracks and people are judged as it is, and whose numbers are numbers.

    People, tracks, segments and boxes that lack a number are left out, counts that are missing are 0, and
    what is to be a number and is none is None.
    """
    made = dict(row) | {name: row[name] or 0 for name in _COUNTS}
    made |= {name: row[name] if _is_number(row[name]) else None for name in _NUMBERS}
    made |= {name: _whole(row[name], numbers) for name, numbers in _WHOLE.items()}
    made["tracks"] = [track | {"boxes": _whole(track["boxes"], _BOX)} for track in made["tracks"]]
    for part in (*made["tracks"], *made["persons"]):
        part["p_fake"] = _score_today(part, row)
    for person in made["persons"]:
        person["verdict"] = verdict_at(person["p_fake"], made["flag_today"], made["uncertain_today"])
    made["warnings"] = [warning for warning in row["warnings"] or () if warning is not None]
    made["extra"] = {key: value for key, value in dict(row["extra"] or ()).items() if value is not None}
    return made


def _score_today(part: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """The score of a track or person; as it stands where the policy of today is that of the scan."""
    logit, slope, bias = part["logit"], row["slope_today"], row["bias_today"]
    if all(map(_is_number, (logit, slope, bias))):
        return score_of(logit, slope, bias)
    return part["p_fake"] if _is_number(part["p_fake"]) else None


def _whole(
    elements: Iterable[Mapping[str, Any] | None] | None, numbers: Iterable[str]
) -> list[dict[str, Any]]:
    names = tuple(numbers)
    return [
        dict(element)
        for element in elements or ()
        if element is not None and all(_is_number(element[name]) for name in names)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
