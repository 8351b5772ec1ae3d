"""Calibration and thresholds, held against collections whose truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

from detector.evaluation.calibration import (
    TooFewRealsError,
    calibrate,
    cross_fitted,
    fit_policy,
    reals_needed,
    set_thresholds,
)
from detector.evaluation.metrics import debiased_calibration_error, log_loss, sigmoid
from detector.types import Verdict
from detector.verdict import calibrated, verdict_of
from tests.seeded import POLICY


def test_calibration_undoes_a_known_slope_and_bias():
    rng = np.random.default_rng(1)
    true_logits = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < sigmoid(true_logits)).astype(int)
    found = calibrate(labels, (true_logits - 0.8) / 3)
    assert found.slope == pytest.approx(3, rel=0.08)
    assert found.bias == pytest.approx(0.8, abs=0.1)
    assert found.apply(np.array([1.0]))[0] == pytest.approx(found.slope + found.bias)


def test_few_samples_told_apart_without_a_mistake_ask_for_no_endless_slope():
    few = calibrate(np.array([0, 0, 1, 1]), np.array([-1.0, -0.8, 0.9, 1.1]))
    assert few.slope < 5


def test_cross_fitting_judges_no_group_by_itself():
    rng = np.random.default_rng(2)
    labels = np.tile([0, 1], 150)
    logits = rng.normal(0, 1, 300) * 4 + labels
    groups = np.repeat(np.arange(30), 10).astype(str)
    fitted = cross_fitted(labels, logits, groups, balanced=True)
    assert fitted is not None
    assert np.isfinite(fitted).all()
    own = calibrate(labels, logits).apply(logits)
    assert log_loss(labels, own) < log_loss(labels, fitted) < log_loss(labels, logits)
    moved = logits.copy()
    moved[groups == "3"] += 50
    again = cross_fitted(labels, moved, groups, balanced=True)
    assert again is not None
    assert again[groups == "3"] == pytest.approx(
        fitted[groups == "3"]
        + 50
        * (fitted[groups == "3"][1] - fitted[groups == "3"][0])
        / (logits[groups == "3"][1] - logits[groups == "3"][0])
    ), "its own logits moved, the calibration that judges them did not"


def test_a_perfect_calibration_is_not_made_worse_by_the_share_of_fakes():
    rng = np.random.default_rng(7)
    logits = rng.normal(-2, 1.5, 4000)
    labels = (rng.random(4000) < sigmoid(logits)).astype(int)
    fitted = cross_fitted(labels, logits, np.arange(4000).astype(str), balanced=False)
    assert fitted is not None
    assert labels.mean() < 0.25, "few fakes, as in life"
    assert debiased_calibration_error(labels, sigmoid(fitted)) < 0.02


def test_nothing_is_fitted_without_one_of_the_classes():
    labels, logits = np.repeat([0, 1], 50), np.random.default_rng(8).normal(0, 1, 100)
    groups = np.where(labels == 1, "the only faker", np.arange(100).astype(str))
    assert cross_fitted(labels, logits, groups, balanced=True) is None


def test_calibration_counts_the_videos_that_a_scan_will_flag():
    groups = np.arange(300).astype(str)
    for seed in range(40):
        logits = np.random.default_rng(seed).normal(-3, 2, 300)
        policy = set_thresholds(POLICY, logits, groups, "", flag_fpr=0.01, uncertain_fpr=0.05)
        verdicts = [verdict_of(calibrated(logit, policy), policy) for logit in logits.tolist()]
        assert verdicts.count(Verdict.FLAGGED) == 2, "(2 + 1) of 301; another rounding would flag 3"


def test_thresholds_hold_their_rates_on_what_they_were_fitted_on():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    logits = rng.normal(0, 1, 1000) + 1.5 * labels
    groups = np.array([f"g{index % 25}" for index in range(1000)])
    policy = fit_policy(labels, logits, groups, "made")
    scores = sigmoid(policy.slope * logits + policy.bias)
    reals = scores[labels == 0]
    assert (reals >= policy.flag).mean() <= policy.flag_fpr
    assert 0.03 < (reals >= policy.uncertain).mean() <= policy.uncertain_fpr
    assert policy.uncertain < policy.flag
    assert policy.groups == 25
    assert policy.strict is None, "25 people say nothing of one false alarm in a thousand"
    assert policy.uncertain_interval is not None
    assert policy.uncertain_interval[0] < 0.05 < policy.uncertain_interval[1]


def test_three_thousand_groups_of_reals_give_a_threshold_at_one_in_a_thousand():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 3000)
    logits = rng.normal(0, 1, 6000) + 4 * labels
    policy = fit_policy(labels, logits, np.arange(6000).astype(str), "made")
    assert policy.strict is not None
    assert policy.strict > policy.flag


@pytest.mark.parametrize(
    ("accounts", "each", "spread"), [(1000, 1, 0.0), (150, 8, 0.8), (150, 8, 3.0), (300, 4, 1.0)]
)
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_the_true_rate_lies_in_the_stated_interval_in_200_collections(
    accounts: int, each: int, spread: float, rate: float
):
    rng = np.random.default_rng(11)
    held, true_rates = [], []
    for _ in range(200):
        account = rng.normal(0, spread, accounts) if spread else np.zeros(accounts)
        logits = (account[:, None] + rng.normal(0, 1, (accounts, each))).ravel()
        groups = np.repeat(np.arange(accounts), each).astype(str)
        policy = set_thresholds(POLICY, logits, groups, "made", flag_fpr=rate, uncertain_fpr=max(rate, 0.05))
        edge = (np.log(policy.flag / (1 - policy.flag)) - policy.bias) / policy.slope
        true = norm.sf(edge / np.sqrt(1 + spread**2))
        assert policy.flag_interval is not None
        held.append(policy.flag_interval[0] <= true <= policy.flag_interval[1])
        true_rates.append(true)
    print(f"{accounts} x {each} at {rate:.0%}: held {np.mean(held):.1%}, mean {np.mean(true_rates):.3%}")
    assert np.mean(held) >= 0.92, "95 %, less what 200 draws allow"
    assert np.mean(true_rates) <= rate * 1.05, "on average the rate is not above the one asked for"


@pytest.mark.parametrize(("accounts", "each"), [(30, 20), (20, 50)])
def test_a_thousand_videos_of_few_accounts_are_few_videos(accounts: int, each: int):
    rng = np.random.default_rng(12)
    logits = (rng.normal(0, 3, accounts)[:, None] + rng.normal(0, 1, (accounts, each))).ravel()
    groups = np.repeat(np.arange(accounts), each).astype(str)
    with pytest.raises(TooFewRealsError, match=f"{accounts * each:,} are there"):
        set_thresholds(POLICY, logits, groups, "made", flag_fpr=0.01, uncertain_fpr=0.05)


def test_thresholds_from_videos_say_so_and_keep_the_calibration():
    logits = np.random.default_rng(4).normal(-2, 1, 500)
    policy = set_thresholds(
        POLICY, logits, np.arange(500).astype(str), "mine", flag_fpr=0.02, uncertain_fpr=0.1
    )
    assert (policy.level, policy.groups, policy.data, policy.flag_fpr) == ("video", 500, "mine", 0.02)
    assert (policy.slope, policy.bias) == (POLICY.slope, POLICY.bias)
    assert policy.policy_id != POLICY.policy_id
    assert (sigmoid(logits * policy.slope + policy.bias) >= policy.flag).mean() <= 0.02


def test_a_rate_below_one_in_a_thousand_may_be_asked_for_where_there_are_enough() -> None:
    logits, groups = np.random.default_rng(6).normal(-3, 1, 5000), np.arange(5000).astype(str)
    policy = set_thresholds(POLICY, logits, groups, "mine", flag_fpr=0.0005, uncertain_fpr=0.01)
    assert policy.strict is not None
    assert policy.strict < policy.flag, "one false alarm in a thousand is more than one in two thousand"


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.01, 99), (0.001, 999)])
def test_too_few_videos_are_told_in_a_number(rate: float, needed: int):
    assert reals_needed(rate) == needed
    few = np.random.default_rng(5).normal(0, 1, needed - 1)
    with pytest.raises(TooFewRealsError, match=f"at least {needed:,} real videos; {needed - 1:,} are there"):
        set_thresholds(POLICY, few, np.arange(needed - 1).astype(str), "", flag_fpr=rate, uncertain_fpr=rate)
    enough = np.append(few, 0.0)
    set_thresholds(POLICY, enough, np.arange(needed).astype(str), "", flag_fpr=rate, uncertain_fpr=rate)


def test_no_video_at_all_is_too_few():
    with pytest.raises(TooFewRealsError, match="0 are there"):
        set_thresholds(POLICY, np.zeros(0), np.zeros(0, str), "", flag_fpr=0.01, uncertain_fpr=0.05)
