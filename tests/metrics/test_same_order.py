"""The same-order control: worked by hand, against all pairs one by one, and what it must be for a deterministic model."""

from itertools import combinations

import numpy as np
import pytest

from lad_eval.metrics import disagreement, same_order


def pair_by_pair(sample):
    """Shares of differing pairs of one sample, Int[T][R], by walking over all of them."""
    replies = [(order, reply) for order, repetitions in enumerate(sample) for reply in repetitions]
    shares = []
    for within in (True, False):
        pairs = [a != b for (s, a), (t, b) in combinations(replies, 2) if (s == t) == within]
        shares.append(sum(pairs) / len(pairs))
    return shares


def test_the_shares_are_those_of_all_pairs():
    chosen = np.random.default_rng(0).integers(-1, 3, size=(7, 6, 5))
    np.testing.assert_allclose(disagreement(chosen), [pair_by_pair(sample) for sample in chosen.tolist()])


def test_two_orders_twice_by_hand():
    """0 1 | 1 1: of two pairs within one differs, of four across two do."""
    assert disagreement(np.array([[[0, 1], [1, 1]]])).tolist() == [[0.5, 0.5]]


def test_a_deterministic_model_never_differs_from_itself():
    once = np.random.default_rng(1).integers(4, size=(20, 5, 1))
    control = same_order(np.repeat(once, 2, axis=2))
    assert control.same == (0, 0, 0)
    assert control.cross.value == control.difference.value > 0
    assert control.cross.low < control.cross.value < control.cross.high
    assert control.repeats == 2


def test_replies_without_an_answer_agree_with_each_other_only():
    assert disagreement(np.array([[[-1, -1], [-1, -1]], [[-1, 0], [0, 0]]])).tolist() == [[0, 0], [0.5, 0.5]]


def test_one_order_has_no_other_to_differ_from():
    control = same_order(np.array([[[0, 1]], [[1, 1]]]))
    assert control.same.value == pytest.approx(50)
    assert np.isnan(control.cross.value)
    assert np.isnan(control.difference.value)
