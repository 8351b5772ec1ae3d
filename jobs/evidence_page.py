"""Evidence as one HTML page: the verdict in words, each person with what was scored, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from detector.drawing import Picture, jpeg, veiled, with_boxes, with_heat
from detector.types import Reason, TimedBox, VideoResult
from detector.verdict import calibrated
from jobs.evidence import Again, Evidence, Heat
from jobs.page import jpeg_uri, render, strings
from jobs.tidy import tidied

_MOST_STILLS, _MOST_CROPS = 40, 40
_FACE_IN_STILL = 0.5
"""How large a face can be in a whole frame, in parts of its side: blur enough for that."""


@dataclass(frozen=True, slots=True)
class CropShown:
    """One crop of a clip: when, its own score, and its picture."""

    t_s: float
    p_fake: float | None
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonShown:
    """One person: tracks as in the table, the crops that were scored, and the map of the strongest one."""

    person_id: int
    p_fake: float
    verdict: str
    start_s: float
    end_s: float
    windows: int
    tracks: Sequence[Mapping[str, Any]]
    segments: Sequence[Mapping[str, Any]]
    crops: Sequence[CropShown]
    crops_left_out: int
    heat: tuple[str, str, str] | None
    heat_at_s: float
    heat_fake: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A page of the review server: where it leads back to, its own path, what else its reader has to know."""

    back: str
    own: str
    note: str = ""


def page(evidence: Evidence, *, clear: bool, index: str | None = None, served: Served | None = None) -> str:
    """The HTML of one video's evidence.

    Args:
        evidence: Of an `Examiner`.
        clear: Pictures as they are; else grey and blurred.
        index: Relative link to the page of the scan, where there is one.
        served: As part of the review server; else with its style in it.
    """
    evidence = replace(evidence, row=tidied(evidence.row))
    row = evidence.row
    return render(
        "evidence.html.j2",
        static_page=served is None,
        evidence=evidence,
        row=row,
        judged=_judged(evidence),
        people=list(_people(evidence, clear=clear)),
        unscored=_unscored(row["tracks"]),
        stills=list(_stills(evidence.again, clear=clear)) if evidence.again else [],
        advice=_advice(row),
        meaning=Reason(row["reason"]).meaning if row["reason"] in set(Reason) else None,
        settings=_settings(evidence),
        made_at=datetime.now(UTC),
        version=version("deepfake-scan"),
        clear=clear,
        index=index,
        back=served.back if served else "",
        own=served.own if served else "",
        note=served.note if served else "",
    )


def _judged(evidence: Evidence) -> dict[str, Any]:
    """Verdict, score and thresholds of today, and how often such a flag is wrong."""
    row, policy = evidence.row, evidence.policy
    verdict = row["verdict_today"]
    return {
        "verdict": verdict,
        "p_fake": row["p_fake_today"],
        "flag": row["flag_today"],
        "uncertain": row["uncertain_today"],
        "level": policy.level if policy else row["threshold_level"],
        "flag_fpr": policy.flag_fpr if policy else row["threshold_fpr"],
        "interval": policy.flag_interval if policy else None,
        "groups": policy.groups if policy else 0,
        "data": policy.data if policy else "",
        "before": row["verdict"] if row["verdict"] != verdict else None,
    }


def _people(evidence: Evidence, *, clear: bool) -> Iterator[PersonShown]:
    """The scored people, the highest score first, by the policy of today."""
    row = evidence.row
    for person in sorted(row["persons"], key=lambda one: -one["p_fake"]):
        number = person["person_id"]
        crops, left_out = _crops(evidence, number, clear=clear)
        heat = evidence.again.heat.get(number) if evidence.again else None
        yield PersonShown(
            person_id=number,
            p_fake=person["p_fake"],
            verdict=person["verdict"],
            start_s=person["start_s"],
            end_s=person["end_s"],
            windows=person["windows"],
            tracks=[track for track in row["tracks"] if track["person_id"] == number],
            segments=[s for s in row["segments"] if s["person_id"] == number],
            crops=crops,
            crops_left_out=left_out,
            heat=_heat(heat, evidence.again, clear=clear) if heat and evidence.again else None,
            heat_at_s=heat.t_s if heat else 0.0,
            heat_fake=heat.fake if heat else True,
        )


def _crops(evidence: Evidence, person: int, *, clear: bool) -> tuple[list[CropShown], int]:
    """The crops of a person in order of time, and how many more there are."""
    again, policy = evidence.again, evidence.policy
    if again is None:
        return [], 0
    found = sorted(
        (box.t_s, again.scores[track.clip].frame_logits[frame], track.clip, frame)
        for track in (scored.track for scored in again.result.tracks)
        if track.clip is not None and track.person_id == person
        for frame, box in enumerate(track.boxes)
    )
    pixels = again.extraction.clips.pixels
    shown = [
        CropShown(t_s, calibrated(logit, policy) if policy else None, _uri(_seen(pixels[c, i], clear=clear)))
        for t_s, logit, c, i in (found[place] for place in _few(len(found), _MOST_CROPS))
    ]
    return shown, len(found) - len(shown)


def _heat(heat: Heat, again: Again, *, clear: bool) -> tuple[str, str, str]:
    crop = _seen(again.extraction.clips.pixels[heat.clip, heat.frame], clear=clear)
    first, second, third = map(_uri, with_heat(crop, heat.heat))
    return first, second, third


def _stills(again: Again, *, clear: bool) -> Iterator[tuple[float, str]]:
    """Whole frames with the boxes of all faces in them."""
    stills = again.extraction.stills
    boxes = _boxes(again.result)
    for i in _few(len(stills.times_s), _MOST_STILLS):
        t_s = stills.times_s[i]
        still = _seen(stills.pixels[i], clear=clear, face=_FACE_IN_STILL)
        yield t_s, _uri(with_boxes(still, boxes.get(round(1e3 * t_s), [])))


def _seen(picture: Picture, *, clear: bool, face: float = 1.0) -> Picture:
    return picture if clear else veiled(picture, face)


def _uri(picture: Picture) -> str:
    return jpeg_uri(jpeg(picture))


def _few(count: int, most: int) -> list[int]:
    """Places of at most `most` among so many, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _boxes(result: VideoResult) -> dict[int, list[tuple[str, TimedBox]]]:
    """Boxes by time in ms, with the word that stands beside them."""
    found: dict[int, list[tuple[str, TimedBox]]] = {}
    tracks = [t.track for t in result.tracks] or list(result.facts.tracks)
    for track in tracks:
        word = str(track.person_id) if track.clip is not None else "-"
        for box in track.boxes:
            found.setdefault(round(1e3 * box.t_s), []).append((word, box))
    return found


def _unscored(tracks: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many tracks have no score, by reason."""
    reasons = [track["reason"] for track in tracks if track["reason"]]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _advice(row: Mapping[str, Any]) -> str:
    """What to do about a video without a score."""
    advice = strings()["advice"]
    found: str = advice.get(row["reason"] or row["status"], "")
    return found


def _settings(evidence: Evidence) -> dict[str, Any]:
    """The settings behind the score, by name; empty where the scan left none."""
    words = evidence.settings.get("scored_by")
    if not isinstance(words, dict):
        return {}
    return {name: "none" if words[name] is None else words[name] for name in sorted(words)}
