"""From logits to verdicts: what is averaged, what is the highest, and when there is no answer."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.types import (
    ClipScore,
    Facts,
    Policy,
    Reason,
    Status,
    Track,
    TrackReason,
    Verdict,
    VideoResult,
)
from detector.verdict import calibrated, decide, verdict_of

POLICY = Policy(
    policy_id="test",
    slope=1.0,
    bias=0.0,
    flag=0.9,
    flag_fpr=0.01,
    uncertain=0.7,
    uncertain_fpr=0.05,
    level="crop",
)
LOGITS = st.floats(-30, 30)
Seen = tuple[int, int, float | None]  # person, window, logit (None: not scored)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def clip_score(value: float) -> ClipScore:
    return ClipScore(value, value, (value,))


def judge(seen: Sequence[Seen], policy: Policy = POLICY) -> VideoResult:
    """The answer for tracks that last 1 s, a window every 10 s."""
    clips = iter(range(len(seen)))
    tracks = tuple(
        Track(
            track_id=i,
            person_id=person,
            window=window,
            start_s=10.0 * window,
            end_s=10.0 * window + 1,
            face_px=100,
            quality=0.9,
            boxes=(),
            clip=None if value is None else next(clips),
            reason=TrackReason.TOO_SMALL if value is None else None,
        )
        for i, (person, window, value) in enumerate(seen)
    )
    scores = [clip_score(value) for _, _, value in seen if value is not None]
    return decide(Facts(windows_planned=10, tracks=tracks), scores, policy)


def spans(result: VideoResult) -> list[tuple[int, float, float]]:
    return [(s.person_id, s.start_s, s.end_s) for s in result.segments]


# --- calibration and thresholds -----------------------------------------------------------------------------


@given(value=st.floats(-1e6, 1e6), slope=st.floats(0.01, 10), bias=st.floats(-10, 10))
def test_a_score_is_a_probability_whatever_the_logit(value: float, slope: float, bias: float) -> None:
    policy = replace(POLICY, slope=slope, bias=bias)

    assert 0 <= calibrated(value, policy) <= 1


@given(a=LOGITS, b=LOGITS)
def test_a_higher_logit_never_gives_a_lower_score(a: float, b: float) -> None:
    assert (a <= b) == (calibrated(a, POLICY) <= calibrated(b, POLICY)) or abs(a - b) < 1e-9 or min(a, b) > 20


def test_slope_and_bias_are_applied_to_the_logit() -> None:
    policy = replace(POLICY, slope=2.0, bias=-1.0)

    assert calibrated(0.5, policy) == pytest.approx(0.5)
    assert calibrated(1.0, policy) == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    ("p", "verdict"),
    [
        (0.0, Verdict.NOT_FLAGGED),
        (0.6999, Verdict.NOT_FLAGGED),
        (0.7, Verdict.UNCERTAIN),
        (0.8999, Verdict.UNCERTAIN),
        (0.9, Verdict.FLAGGED),
        (1.0, Verdict.FLAGGED),
        (None, Verdict.NOT_ASSESSED),
    ],
)
def test_a_score_at_a_threshold_belongs_above_it(p: float | None, verdict: Verdict) -> None:
    assert verdict_of(p, POLICY) is verdict


# --- persons and video --------------------------------------------------------------------------------------


def test_the_video_has_the_score_of_its_highest_person_not_of_the_highest_window() -> None:
    result = judge([(0, 0, logit(0.2)), (0, 1, logit(0.2)), (1, 0, logit(0.99)), (1, 1, logit(0.3))])

    person = result.persons[1]
    assert person.logit == pytest.approx((logit(0.99) + logit(0.3)) / 2)
    assert result.p_fake == person.p_fake == pytest.approx(calibrated(person.logit, POLICY))
    assert result.p_fake_max_window == pytest.approx(0.99)
    assert result.p_fake is not None
    assert result.p_fake < 0.9, "one high window of two flagged the video"
    assert result.verdict is person.verdict is Verdict.UNCERTAIN


def test_persons_say_when_they_were_seen() -> None:
    result = judge([(0, 0, 0.0), (1, 2, 0.0), (0, 3, 0.0)])

    assert [(p.person_id, p.start_s, p.end_s, p.windows) for p in result.persons] == [
        (0, 0, 31, 2),
        (1, 20, 21, 1),
    ]
    assert result.windows_scored == 3


SEEN = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.none() | LOGITS),
    max_size=12,
    unique_by=lambda seen: seen[:2],
)


@given(seen=SEEN)
def test_scores_stand_in_order_for_any_tracks(seen: list[Seen]) -> None:
    result = judge(seen)
    scored = [value for _, _, value in seen if value is not None]

    assert len(result.tracks) == len(seen)
    assert [t.logit for t in result.tracks] == [value for _, _, value in seen]
    if not scored:
        assert result.status is (Status.NOT_SCORABLE if seen else Status.NO_FACE)
        assert (result.logit, result.p_fake, result.p_fake_max_window) == (None, None, None)
        assert result.verdict is Verdict.NOT_ASSESSED
        return
    assert result.status is Status.SCORED
    assert result.p_fake == max(person.p_fake for person in result.persons)
    assert result.p_fake is not None
    assert result.p_fake_max_window is not None
    assert result.p_fake <= result.p_fake_max_window + 1e-12
    assert min(scored) - 1e-9 <= (result.logit or 0) <= max(scored) + 1e-9
    assert all(person.verdict is verdict_of(person.p_fake, POLICY) for person in result.persons)


# --- no answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_an_error_of_the_network_not_a_verdict(value: float) -> None:
    result = judge([(0, 0, 1.0), (0, 1, value)])

    assert (result.status, result.facts.failure) == (Status.FAILED, Reason.MODEL_ERROR)
    assert (result.p_fake, result.persons, result.verdict) == (None, (), Verdict.NOT_ASSESSED)


def test_a_failed_video_has_no_score() -> None:
    result = decide(Facts(failure=Reason.CORRUPT, message="broken"), [], POLICY)

    assert (result.status, result.verdict) == (Status.FAILED, Verdict.NOT_ASSESSED)
    assert (result.p_fake, result.logit) == (None, None)


def test_half_is_never_a_stand_in() -> None:
    nothing = [judge([]), judge([(0, 0, None)]), decide(Facts(failure=Reason.LOST), [], POLICY)]

    assert [result.p_fake for result in nothing] == [None, None, None]
    assert judge([(0, 0, 0.0)]).p_fake == 0.5, "a measured one half is one"


# --- segments -----------------------------------------------------------------------------------------------

HIGH, MIDDLE, LOW = logit(0.95), logit(0.75), logit(0.1)


def test_neighbouring_windows_from_the_uncertain_threshold_on_are_one_segment() -> None:
    result = judge([(0, 0, LOW), (0, 1, MIDDLE), (0, 2, HIGH), (0, 3, LOW), (0, 4, HIGH)])

    assert spans(result) == [(0, 10, 21), (0, 40, 41)]
    assert [s.p_fake for s in result.segments] == pytest.approx([0.95, 0.95])


def test_segments_of_two_persons_are_kept_apart() -> None:
    result = judge([(0, 0, HIGH), (1, 0, HIGH), (0, 1, HIGH), (1, 1, LOW), (1, 2, HIGH)])

    assert spans(result) == [(0, 0, 11), (1, 0, 1), (1, 20, 21)]


def test_a_window_without_the_person_divides_its_segment() -> None:
    assert spans(judge([(0, 0, HIGH), (0, 2, HIGH)])) == [(0, 0, 1), (0, 20, 21)]


@given(seen=SEEN)
def test_segments_hold_exactly_the_windows_at_or_above_the_threshold(seen: list[Seen]) -> None:
    result = judge(seen)
    inside = {
        (person, window)
        for person, window, value in seen
        for s in result.segments
        if value is not None and s.person_id == person and s.start_s <= 10 * window < s.end_s
    }
    high = {(p, w) for p, w, v in seen if v is not None and calibrated(v, POLICY) >= POLICY.uncertain}

    assert inside == high
