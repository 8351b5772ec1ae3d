"""Figures against values worked out by hand or by a second formula."""

import numpy as np
import pytest
from sklearn import metrics as judge

from detector.evaluation.metrics import (
    Ranking,
    auc,
    brier,
    calibration_error,
    confusion,
    debiased_calibration_error,
    equal_mass_bins,
    log_loss,
    recall_at,
    risk_coverage,
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
    overlapping = Ranking(labels, np.array([0, 1, 2, 5, 4, 6, 7, 8.0])).curve()
    assert overlapping.equal_error_rate == pytest.approx(0.25)
    assert Ranking(labels, np.arange(8.0)).curve().equal_error_rate == 0.0


def test_log_loss_brier_and_calibration_error_of_known_probabilities():
    labels, logits = np.array([1, 0]), np.array([0.0, 0.0])
    assert log_loss(labels, logits) == pytest.approx(np.log(2))
    assert brier(labels, sigmoid(logits)) == pytest.approx(0.25)
    assert calibration_error(labels, sigmoid(logits)) == 0.0
    assert calibration_error(np.array([1, 1]), np.array([0.6, 0.6])) == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(20))
def test_every_figure_agrees_with_scikit_learn(seed: int):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(20, 500))
    labels = (rng.random(count) < rng.uniform(0.1, 0.9)).astype(int)
    labels[:2] = 0, 1
    logits = np.round(rng.normal(0, 2, count) + rng.uniform(0, 3) * labels, int(rng.integers(0, 6)))  # ties
    weights = rng.integers(0, 4, count).astype(float) if seed % 2 else np.ones(count)
    weights[:2] = 1
    p, flagged = sigmoid(logits), sigmoid(logits) >= 0.6
    false, true, _ = judge.roc_curve(labels, logits, sample_weight=weights, drop_intermediate=False)
    curve = Ranking(labels, logits).curve(weights)
    decided = confusion(labels, flagged, weights)
    ours_and_theirs = {
        "auc": (curve.auc, judge.roc_auc_score(labels, logits, sample_weight=weights)),
        "ap": (curve.average_precision, judge.average_precision_score(labels, logits, sample_weight=weights)),
        "tpr at 5%": (curve.recall_at(0.05), true[false <= 0.05].max()),
        "tpr at 1%": (curve.recall_at(0.01), true[false <= 0.01].max()),
        "accuracy": (decided.accuracy, judge.accuracy_score(labels, flagged, sample_weight=weights)),
        "balanced": (
            decided.balanced_accuracy,
            judge.balanced_accuracy_score(labels, flagged, sample_weight=weights),
        ),
        "precision": (
            np.nan_to_num(decided.precision),
            judge.precision_score(labels, flagged, sample_weight=weights, zero_division=0),
        ),
        "recall": (decided.recall, judge.recall_score(labels, flagged, sample_weight=weights)),
        "f1": (decided.f1, judge.f1_score(labels, flagged, sample_weight=weights)),
        "log loss": (log_loss(labels, logits, weights), judge.log_loss(labels, p, sample_weight=weights)),
        "brier": (brier(labels, p, weights), judge.brier_score_loss(labels, p, sample_weight=weights)),
    }
    for name, (ours, theirs) in ours_and_theirs.items():
        assert ours == pytest.approx(theirs, abs=1e-6), name
    assert np.unique(np.round(curve.roc(), 9), axis=1) == pytest.approx(np.unique([false, true], axis=1))
    counts = judge.confusion_matrix(labels, flagged, sample_weight=weights).ravel()
    ours = decided.true_negatives, decided.false_positives, decided.false_negatives, decided.true_positives
    assert ours == pytest.approx(counts)


def test_recall_at_a_rate_is_what_the_threshold_of_that_rate_finds():
    labels, scores = _scored()
    for rate in (0.0, 0.01, 0.05, 0.3, 1.0):
        found = (scores[labels == 1] >= threshold_at(labels, scores, rate)).mean()
        assert recall_at(labels, scores, rate) == pytest.approx(found), rate


def test_a_figure_that_one_class_does_not_have_is_not_a_number():
    curve = Ranking(np.zeros(4, int), np.arange(4.0)).curve()
    figures = (curve.auc, curve.average_precision, curve.equal_error_rate, curve.recall_at(0.1))
    assert all(map(np.isnan, figures))
    assert np.isnan(confusion(np.zeros(4, int), np.ones(4, bool)).recall)
    assert np.isnan(Ranking(np.zeros(0, int), np.zeros(0)).curve().auc)


def test_bins_hold_as_many_items_each_in_the_order_of_their_scores():
    labels, logits = _scored(100)
    bins = equal_mass_bins(labels, sigmoid(logits), 10)
    assert [one.items for one in bins] == [10] * 10
    assert [one.mean_p for one in bins] == sorted(one.mean_p for one in bins)
    assert sum(one.fakes * one.items for one in bins) == pytest.approx(labels.sum())


def test_the_debiased_calibration_error_of_true_probabilities_is_near_0_and_the_plain_one_is_not():
    rng = np.random.default_rng(5)
    plain, debiased = [], []
    for _ in range(50):
        p = rng.random(600)
        labels = (rng.random(600) < p).astype(int)
        plain.append(calibration_error(labels, p))
        debiased.append(debiased_calibration_error(labels, p))
    assert np.mean(plain) > 0.04, "chance alone puts a gap into every bin"
    assert np.mean(debiased) < 0.02


def test_the_debiased_calibration_error_finds_a_gap_that_is_there():
    rng = np.random.default_rng(6)
    p = rng.random(20_000)
    labels = (rng.random(20_000) < np.clip(p + 0.1, 0, 1)).astype(int)
    assert debiased_calibration_error(labels, p) == pytest.approx(0.1, abs=0.02)


def test_risk_falls_where_confidence_says_what_is_wrong():
    wrong = np.array([True, False, False, True])
    assert risk_coverage(wrong, np.array([0.1, 0.9, 0.8, 0.2])).tolist() == [0, 0, 1 / 3, 0.5]


def test_the_order_of_items_with_the_same_score_changes_nothing():
    p, first, mixed = np.full(300, 0.5), np.repeat([0, 1], 150), np.tile([0, 1], 150)
    for labels in (first, mixed):
        assert calibration_error(labels, p) == 0.0
        assert debiased_calibration_error(labels, p) == 0.0
