"""From logits to scores and verdicts: calibration, clip -> person -> video, segments, abstention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from detector.types import (
    ClipScore,
    Facts,
    Person,
    Policy,
    Reason,
    Segment,
    Status,
    Track,
    TrackScore,
    Verdict,
    VideoResult,
)


def calibrated(logit: float, policy: Policy) -> float:
    """p_fake in [0, 1] of a raw logit (Platt scaling: slope and bias fitted on validation)."""
    return score_of(logit, policy.slope, policy.bias)


def score_of(logit: float, slope: float, bias: float) -> float:
    """The same by the two numbers of a calibration."""
    z = logit * slope + bias
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def verdict_of(p_fake: float | None, policy: Policy) -> Verdict:
    """What a score means against the thresholds of a policy."""
    return verdict_at(p_fake, policy.flag, policy.uncertain)


def verdict_at(p_fake: float | None, flag: float | None, uncertain: float | None) -> Verdict:
    """What a score means against two thresholds; nothing without them, or if it is no number."""
    if p_fake is None or flag is None or uncertain is None or not math.isfinite(p_fake):
        return Verdict.NOT_ASSESSED
    if p_fake >= flag:
        return Verdict.FLAGGED
    return Verdict.UNCERTAIN if p_fake >= uncertain else Verdict.NOT_FLAGGED


def decide(facts: Facts, scores: Sequence[ClipScore], policy: Policy) -> VideoResult:
    """The answer for one video.

    A person's score is the calibrated mean logit over its windows, the video's that of its highest person:
    a maximum over windows would multiply the false-positive rate by their number.

    Args:
        facts: of `extract`.
        scores: of `score`, one per clip of the extraction.
        policy: calibration and thresholds.
    """
    if facts.failure is not None:
        return VideoResult(facts=facts, status=Status.FAILED, verdict=Verdict.NOT_ASSESSED)
    if any(not math.isfinite(score.logit) for score in scores):
        return failed(facts, Reason.MODEL_ERROR, "the network gave a score that is not a number")
    tracks = tuple(_scored(track, scores, policy) for track in facts.tracks)
    persons = _persons(tracks, policy)
    if not persons:
        status = Status.NOT_SCORABLE if tracks else Status.NO_FACE
        return VideoResult(facts=facts, status=status, verdict=Verdict.NOT_ASSESSED, tracks=tracks)
    top = max(persons, key=lambda person: person.logit)
    return VideoResult(
        facts=facts,
        status=Status.SCORED,
        verdict=top.verdict,
        logit=top.logit,
        p_fake=top.p_fake,
        p_fake_max_window=max(track.p_fake for track in tracks if track.p_fake is not None),
        windows_scored=len({t.track.window for t in tracks if t.logit is not None}),
        persons=persons,
        tracks=tracks,
        segments=_segments(tracks, policy),
    )


def failed(facts: Facts, reason: Reason, message: str) -> VideoResult:
    """The answer for a video that failed after its facts were known; they stay in it, without tracks."""
    facts = replace(facts, failure=reason, message=message, tracks=())
    return VideoResult(facts=facts, status=Status.FAILED, verdict=Verdict.NOT_ASSESSED)


def _scored(track: Track, scores: Sequence[ClipScore], policy: Policy) -> TrackScore:
    if track.clip is None:
        return TrackScore(track=track, logit=None, p_fake=None)
    logit = scores[track.clip].logit
    return TrackScore(track=track, logit=logit, p_fake=calibrated(logit, policy))


def _persons(tracks: Iterable[TrackScore], policy: Policy) -> tuple[Person, ...]:
    by_person: dict[int, list[TrackScore]] = {}
    for track in tracks:
        if track.logit is not None:
            by_person.setdefault(track.track.person_id, []).append(track)
    return tuple(_person(person_id, by_person[person_id], policy) for person_id in sorted(by_person))


def _person(person_id: int, tracks: Sequence[TrackScore], policy: Policy) -> Person:
    logit = fmean(track.logit for track in tracks if track.logit is not None)
    p_fake = calibrated(logit, policy)
    return Person(
        person_id=person_id,
        start_s=min(track.track.start_s for track in tracks),
        end_s=max(track.track.end_s for track in tracks),
        windows=len({track.track.window for track in tracks}),
        logit=logit,
        p_fake=p_fake,
        verdict=verdict_of(p_fake, policy),
    )


def _segments(tracks: Iterable[TrackScore], policy: Policy) -> tuple[Segment, ...]:
    """Per person, runs of neighbouring windows at or above the uncertain threshold; their highest score."""
    segments: list[Segment] = []
    last_window: dict[int, int] = {}
    for scored in sorted(tracks, key=lambda t: (t.track.person_id, t.track.window)):
        track, p_fake = scored.track, scored.p_fake
        if p_fake is None or p_fake < policy.uncertain:
            continue
        joins = last_window.get(track.person_id) in (track.window - 1, track.window)
        last_window[track.person_id] = track.window
        start_s, highest = track.start_s, p_fake
        if joins:
            before = segments.pop()
            start_s, highest = before.start_s, max(before.p_fake, p_fake)
        segments.append(
            Segment(start_s=start_s, end_s=track.end_s, person_id=track.person_id, p_fake=highest)
        )
    return tuple(segments)
