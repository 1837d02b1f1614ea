"""Figures of audits: numbers worked by hand, and what must hold for any answers."""

import numpy as np
import pytest

from lad_eval.metrics import bias_score, ckld, consistency, flip_rate, order_entropy, osi, rsd, summarise


def entropy(*shares):
    return -sum(share * np.log(share) for share in shares)


def test_a_released_flip_needs_two_answers_and_ours_no_more_than_a_reply_without_one():
    chosen = np.array([[0, 0, 0], [0, 1, 0], [2, -1, 2], [-1, -1, -1], [1, -1, 2]])
    assert flip_rate(chosen, released=True) == 40  # the second and the last
    assert flip_rate(chosen) == 100 - consistency(chosen) == 80  # all but the first
    answered = chosen[:2]
    assert flip_rate(answered) == flip_rate(answered, released=True) == 50


def test_osi_by_hand():
    chosen = np.array([[0, 0, 0, 1, 1], [2, 2, 2, 2, 2]])
    assert order_entropy(chosen, 4)[0] == pytest.approx(0.4855, abs=5e-5)
    assert osi(chosen, 4) == pytest.approx(entropy(0.6, 0.4) / np.log(4) / 2)
    assert order_entropy(chosen, 4, released=True) == pytest.approx([entropy(0.6, 0.4) / np.log(2), 0])
    assert order_entropy(chosen, 4, released=True)[0] == pytest.approx(0.9710, abs=5e-5)


def test_the_released_osi_does_not_grow_with_the_number_of_answers_and_ours_does():
    two, three = np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 1, 1, 2, 2]])
    assert osi(two, 3, released=True) == pytest.approx(1) == osi(three, 3, released=True)
    assert osi(two, 3) == pytest.approx(np.log(2) / np.log(3))
    assert osi(three, 3) == pytest.approx(1)


def test_osi_reaches_one_in_fewer_orders_than_images_and_leaves_missing_answers_out():
    assert osi(np.array([[0, 1, 2]]), 8) == pytest.approx(1)
    assert osi(np.array([[0, -1, 0]]), 4) == osi(np.array([[3]]), 4) == osi(np.array([[-1, -1]]), 4) == 0


def test_ckld_by_hand():
    gold, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    assert ckld(gold, predicted, 2, released=True) == pytest.approx(0.1438, abs=5e-5)
    assert ckld(gold, predicted, 2) == pytest.approx(0.5 * np.log(0.5 / (4 / 6)) + 0.5 * np.log(0.5 / (2 / 6)))


def test_ckld_of_a_position_that_is_never_answered_is_finite():
    gold, predicted = np.array([0, 1] * 50), np.zeros(100, dtype=int)
    assert ckld(gold, predicted, 2, released=True) == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.5e10))
    assert 1 < ckld(gold, predicted, 2) < 2
    assert ckld(gold, np.full(100, -1), 2) == pytest.approx(0)  # no answer, no preference


def test_rsd_by_hand():
    gold, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])  # recalls 1 and .5, accuracy .75
    assert rsd(gold, predicted, 2) == pytest.approx(0.3333, abs=5e-5)
    assert np.isnan(rsd(gold, 1 - gold, 2))
    assert rsd(np.array([0, 2, 2]), np.array([0, 2, 1]), 3) == pytest.approx(0.25 / (2 / 3))  # position 1 held none


def test_bias_score_by_hand():
    """Right at 0: probabilities .9 .1 and .7 .3; right at 1: .6 .4. Means .8 .2 and .6 .4, their mean .7 .3."""
    log_proba = np.log([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]])
    assert bias_score(log_proba, np.array([0, 0, 1])) == pytest.approx(0.2)
    assert bias_score(np.log(np.full((3, 4), 0.25)), np.array([0, 1, 2])) == pytest.approx(0)


def test_summaries_hold_the_figures_with_intervals(table):
    rng = np.random.default_rng(0)
    orders = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    summary = summarise(table(orders, rng.integers(3, size=30).tolist(), rng.integers(3, size=(30, 3)).tolist()))
    assert summary.flip == pytest.approx(100 - summary.consistency)
    assert summary.flip_low == pytest.approx(100 - summary.consistency_high)
    assert 0 < summary.osi_low < summary.osi < summary.osi_high < 1
    assert 0 < summary.ckld < 1
    assert summary.rsd > 0
