"""Figures against values worked out by hand or by a second formula."""

import numpy as np
import pytest

from detector.training.metrics import (
    auc,
    brier,
    calibrate,
    calibration_error,
    equal_error_rate,
    false_positive_interval,
    interval,
    log_loss,
    recall_at,
    sigmoid,
    threshold_at,
)


def _scored(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return labels, rng.normal(0, 1, count) + labels


def test_auc_counts_ordered_pairs_and_half_of_the_ties():
    labels = np.array([0, 0, 1, 1])
    assert auc(labels, np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.75)
    assert auc(labels, np.array([1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.5)
    assert auc(labels, np.array([0.0, 1.0, 1.0, 2.0])) == pytest.approx(3.5 / 4)
    labels, scores = _scored()
    wins = scores[labels == 1][:, None] > scores[labels == 0][None]
    assert auc(labels, scores) == pytest.approx(wins.mean())


def test_auc_of_a_single_class_is_not_a_number():
    assert np.isnan(auc(np.ones(3, int), np.arange(3.0)))


@pytest.mark.parametrize(("rate", "flagged"), [(0.0, 0), (0.1, 1), (0.19, 1), (0.2, 2), (1.0, 10)])
def test_threshold_flags_no_more_reals_than_allowed(rate, flagged):
    scores = np.arange(10.0)
    assert (scores >= threshold_at(np.zeros(10, int), scores, rate)).sum() == flagged


def test_threshold_keeps_tied_reals_below_it():
    labels, scores = np.array([0, 0, 0, 0, 1]), np.array([1.0, 2.0, 2.0, 2.0, 2.0])
    assert (scores[:4] >= threshold_at(labels, scores, 0.25)).sum() == 0
    assert recall_at(labels, scores, 0.25) == 0.0


def test_error_rates_meet_where_classes_overlap_evenly():
    labels = np.array([0] * 4 + [1] * 4)
    assert equal_error_rate(labels, np.array([0, 1, 2, 5, 4, 6, 7, 8.0])) == pytest.approx(0.25)
    assert equal_error_rate(labels, np.arange(8.0)) == 0.0


def test_log_loss_brier_and_calibration_error_of_known_probabilities():
    labels, logits = np.array([1, 0]), np.array([0.0, 0.0])
    assert log_loss(labels, logits) == pytest.approx(np.log(2))
    assert brier(labels, sigmoid(logits)) == pytest.approx(0.25)
    assert calibration_error(labels, sigmoid(logits)) == 0.0
    assert calibration_error(np.array([1, 1]), np.array([0.6, 0.6])) == pytest.approx(0.4)


def test_calibration_undoes_a_known_slope_and_bias():
    rng = np.random.default_rng(1)
    true_logits = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < sigmoid(true_logits)).astype(int)
    found = calibrate(labels, (true_logits - 0.8) / 3)
    assert found.slope == pytest.approx(3, rel=0.08)
    assert found.bias == pytest.approx(0.8, abs=0.1)
    assert found.apply(np.array([1.0]))[0] == pytest.approx(found.slope + found.bias)


def test_interval_draws_groups_and_holds_the_figure():
    labels, scores = _scored()
    groups = np.array([f"g{index // 20}" for index in range(400)])
    low, high = interval(auc, labels, scores, groups, draws=200)
    assert low < auc(labels, scores) < high
    single = interval(auc, labels, scores, np.array([f"g{index}" for index in range(400)]), draws=200)
    assert 0.5 < (high - low) / (single[1] - single[0]) < 2


def test_copies_inside_a_group_do_not_narrow_the_interval():
    labels, scores = _scored(60)
    groups = np.array([f"g{index // 3}" for index in range(60)])
    once = interval(auc, labels, scores, groups, draws=300)
    copied = interval(auc, *(np.repeat(part, 10) for part in (labels, scores, groups)), draws=300)
    assert copied == pytest.approx(once)


def test_false_positive_interval_looks_at_reals_only():
    labels = np.array([0] * 100 + [1] * 100)
    scores = np.concatenate([np.arange(100.0), np.full(100, 1000.0)])
    low, high = false_positive_interval(labels, scores, np.arange(200).astype(str), 95.0, draws=300)
    assert 0 < low < 0.05 < high < 0.12


def test_few_samples_told_apart_without_a_mistake_ask_for_no_endless_slope():
    few = calibrate(np.array([0, 0, 1, 1]), np.array([-1.0, -0.8, 0.9, 1.1]))
    assert few.slope < 5
