"""Intervals hold the truth as often as they say, also where items come in groups and hits are rare."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm

from detector.evaluation.intervals import (
    auc_change_interval,
    auc_interval,
    bootstrap,
    effective_items,
    effective_scores,
    rate_at_threshold,
    rate_interval,
)
from detector.evaluation.metrics import auc

_PEOPLE_DIFFER = 0.6
_FAKES_ARE_HIGHER = 1.2
_TRUE_AUC = norm.cdf(_FAKES_ARE_HIGHER / sqrt(2 * (1 + _PEOPLE_DIFFER**2)))


def _people(people: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and groups of people who each bring reals and fakes, and differ from each other."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(people), 2 * pairs)
    labels = np.tile(np.repeat([0, 1], pairs), people)
    person = rng.normal(0, _PEOPLE_DIFFER, people)[groups]
    return labels, person + rng.normal(0, 1, len(labels)) + _FAKES_ARE_HIGHER * labels, groups.astype(str)


def _coverage(sets: int, draws: int) -> float:
    held = 0
    for seed in range(sets):
        labels, scores, groups = _people(28, 6, seed)
        low, high = auc_interval(labels, scores, groups, draws=draws, seed=seed)
        held += low <= _TRUE_AUC <= high
    return held / sets


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say():
    assert 0.89 <= _coverage(sets=120, draws=250) <= 0.99


@pytest.mark.slow
def test_bootstrap_intervals_hold_the_truth_in_93_to_97_of_100_simulated_sets():
    held = _coverage(sets=500, draws=1000)
    print(f"bootstrap intervals held the truth in {held:.1%} of 500 sets")
    assert 0.93 <= held <= 0.97


@pytest.mark.slow
def test_near_one_intervals_of_few_people_are_too_narrow_by_as_much_as_the_docs_say():
    said = {20: 0.78, 50: 0.88, 100: 0.90}
    for people, share in said.items():
        held = 0
        for seed in range(300):
            labels = np.repeat([0, 1], people)
            scores = np.random.default_rng(seed).normal(0, 1, 2 * people) + 3 * labels
            low, high = auc_interval(labels, scores, np.arange(2 * people).astype(str), draws=300, seed=seed)
            held += low <= norm.cdf(3 / sqrt(2)) <= high
        print(f"{people} real and {people} fake people, AUC .98: held in {held / 300:.0%} of 300 sets")
        assert held / 300 == pytest.approx(share, abs=0.01)


def test_groups_that_resemble_themselves_widen_the_interval():
    labels, scores, pairs = _people(30, 10, 0)
    groups = np.char.add(pairs, labels.astype(str))  # who brings reals brings no fakes
    low, high = auc_interval(labels, scores, groups, draws=300)
    alone = auc_interval(labels, scores, np.arange(len(labels)).astype(str), draws=300)
    assert low < auc(labels, scores) < high
    assert high - low > 1.3 * (alone[1] - alone[0])


def test_copies_inside_a_group_do_not_narrow_the_interval():
    labels, scores, groups = _people(20, 3, 1)
    once = auc_interval(labels, scores, groups, draws=300)
    copied = auc_interval(*(np.repeat(part, 10) for part in (labels, scores, groups)), draws=300)
    assert copied == pytest.approx(once)


def test_what_no_draw_changes_has_no_interval():
    labels, groups = np.tile([0, 1], 20), np.arange(40).astype(str)
    assert all(map(np.isnan, auc_interval(labels, labels.astype(float), groups))), "AUC 1 of 40 is not sure"
    assert all(map(np.isnan, auc_interval(labels[:0], np.zeros(0), groups[:0]))), "nothing was scored"


def test_groups_of_scores_count_by_how_alike_they_are():
    rng = np.random.default_rng(1)
    groups, alone = np.repeat(np.arange(100), 10).astype(str), rng.normal(0, 1, 1000)
    assert effective_scores(np.repeat(rng.normal(0, 1, 100), 10), groups) == pytest.approx(100)
    assert effective_scores(alone, groups) > 800
    assert effective_scores(alone, np.arange(1000).astype(str)) == 1000
    assert effective_scores(alone, np.full(1000, "one")) == 1
    assert effective_scores(np.zeros(1000), groups) == pytest.approx(100), "all the same: as alike as can be"


def test_one_group_says_nothing_of_others():
    labels, scores, _ = _people(5, 5, 2)
    assert all(map(np.isnan, auc_interval(labels, scores, np.full(len(labels), "one"))))


def test_a_change_is_told_more_sharply_than_its_two_sides():
    labels, scores, groups = _people(28, 10, 3)
    after = scores - 0.1 * labels
    low, high = auc_change_interval(labels, scores, after, groups, draws=300)
    assert low < auc(labels, after) - auc(labels, scores) < high < 0
    sides = auc_interval(labels, scores, groups, draws=300)
    assert high - low < (sides[1] - sides[0]) / 3


def test_a_figure_that_most_draws_lack_has_no_interval():
    groups = np.arange(10).astype(str)
    found = bootstrap(lambda weights: {"only with the first": weights[0] or np.nan}, groups, draws=400)
    assert found["only with the first"][0] == 1, "about two in three draws hold the first"
    never = bootstrap(lambda weights: {"never": float("nan")}, groups, draws=10)
    assert all(map(np.isnan, never["never"]))


def test_a_rate_of_zero_has_an_upper_end():
    hit, groups = np.zeros(300, bool), np.arange(300).astype(str)
    assert rate_interval(hit, groups) == (0.0, pytest.approx(0.0122, abs=1e-4)), "Clopper-Pearson"
    ten = np.repeat(np.arange(30), 10).astype(str)
    assert rate_interval(hit, ten) == (0.0, pytest.approx(0.1157, abs=1e-4)), "30 people, not 300 items"
    assert rate_interval(~hit, groups)[1] == 1.0


def test_items_of_a_group_that_are_all_alike_count_once():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.random(200) < 0.2, 10)
    groups = np.repeat(np.arange(200), 10).astype(str)
    assert effective_items(alike, groups) == pytest.approx(200, rel=0.03)
    independent = rng.random(2000) < 0.2
    assert effective_items(independent, groups) > 1400
    assert effective_items(independent, np.arange(2000).astype(str)) == 2000


@pytest.mark.parametrize(("people", "each"), [(400, 1), (60, 8)])
def test_rate_intervals_hold_the_truth_of_grouped_items(people: int, each: int):
    rng = np.random.default_rng(7)
    held = []
    for _ in range(300):
        person = rng.beta(0.5, 9.5, people) if each > 1 else np.full(people, 0.05)
        hit = rng.random((people, each)) < person[:, None]
        low, high = rate_interval(hit.ravel(), np.repeat(np.arange(people), each).astype(str))
        held.append(low <= 0.05 <= high)
    assert np.mean(held) >= 0.92, "exact intervals hold at least what they say, but for chance"


def test_the_rate_of_a_threshold_that_was_set_by_counting_is_a_beta():
    low, high = rate_at_threshold(flagged=0, effective=299)
    assert low < 0.001
    assert high == pytest.approx(1 - 0.025 ** (1 / 299)), "nothing flagged of 299"
