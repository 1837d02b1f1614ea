import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence
from lad_eval.methods import Majority, PermutationAverage, RandomAverage
from lad_eval.methods.conformance import random_evidence
from lad_eval.methods.replying import most_voted
from lad_eval.tasks.request import Permutation


def test_two_shifts_by_hand():
    """Images (0, 1) are shown as 01 and as 10; image 0 gets .9 and .5, image 1 gets .1 and .5."""
    evidence = Evidence.from_arrays(np.log([[0.9, 0.1], [0.5, 0.5]]), None, [0, 1], ["a", "a"], perm=[[0, 1], [1, 0]])
    proba = np.exp(PermutationAverage().predict_log_proba(evidence))
    assert proba == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))  # sqrt(.9 .5) : sqrt(.1 .5) = 3 : 1


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.integers(2, 6), st.integers(1, 4))
def test_equals_the_slow_implementation(slow, seed, n, samples):
    """Two circles of shifts a sample, which must not mix unless they are the same, in any order of rows."""
    circles = Evidence.concatenate([random_evidence(samples=samples, n_candidates=n, seed=seed + part) for part in range(2)])
    _, first = np.unique(
        np.column_stack([np.unique(circles.sample_id, return_inverse=True)[1], circles.perm]), axis=0, return_index=True
    )
    rows = circles.select(np.random.default_rng(seed).permutation(first))
    np.testing.assert_allclose(PermutationAverage().predict_log_proba(rows), slow.permutation_average(rows), atol=1e-9)


def test_a_repeated_request_does_not_count_twice():
    rows = random_evidence(samples=2)
    repeated = Evidence.concatenate([rows, rows.select([2, 2, 5])])
    found = PermutationAverage().predict_log_proba(repeated)
    np.testing.assert_allclose(found[: len(rows)], PermutationAverage().predict_log_proba(rows), atol=1e-12)


def test_lacking_shifts_are_counted():
    rows = random_evidence(samples=3).select(np.arange(11))  # the last sample lacks one of its four
    with pytest.raises(EvidenceError, match=r"needs all 4 cyclic shifts .* 3 of 11 rows lack some"):
        PermutationAverage().predict(rows)


def test_position_bias_cancels():
    """A fixed preference for positions, however strong, leaves the answer with the image."""
    rows = random_evidence(samples=5)
    signal = np.eye(4)[rows.gold_position]
    biased = Evidence.from_arrays(signal + np.array([9.0, 0, -5, 3]), None, rows.gold_position, rows.sample_id, perm=rows.perm)
    np.testing.assert_array_equal(PermutationAverage().predict(biased), rows.gold_position)


def test_majority_by_hand():
    """Shifts of 0123 answer images 2, 1, 1, 2: a tie, and the shown order's answer wins; of 1, 2, 2, 3 image 2 wins."""
    perm = [[(j - s) % 4 for j in range(4)] for s in range(4)]
    for chosen, winner in (((2, 1, 1, 2), 2), ((1, 2, 2, 3), 2), ((0, 1, 2, 3), 0)):
        logs = np.full((4, 4), -3.0)
        for shift, image in enumerate(chosen):
            logs[shift, perm[shift].index(image)] = 0
        rows = Evidence.from_arrays(logs, None, [0] * 4, ["a"] * 4, perm=perm)
        assert rows.perm[0][Majority().predict(rows)[0]] == winner


def test_votes_for_nothing_do_not_count():
    assert most_voted(np.array([[-1, 2, -1], [-1, -1, -1], [3, 1, 1]]), 4).tolist() == [2, -1, 1]


def test_random_orders_by_hand():
    """All six orders of three images, each log-probability a number of its own; K = 3 reads the first three of six."""
    shown = Permutation((0, 1, 2))
    orders = [order.order for order in shown.random_orders(6)]
    assert len(set(orders)) == 6
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=6))
    rows = Evidence.from_arrays(logs, None, [0] * 6, ["a"] * 6, perm=orders)
    for k in (1, 3, 6):
        by_image = np.zeros(3)
        for order, log in zip(orders[:k], logs, strict=False):
            by_image[list(order)] += log / k
        found = RandomAverage(k=k).predict_over_orders(rows, np.arange(6)[None, :])
        np.testing.assert_allclose(found[0], by_image - np.log(np.exp(by_image).sum()), atol=1e-12)
    np.testing.assert_allclose(RandomAverage(k=6).predict_log_proba(rows)[0], found[0], atol=1e-12)
    with pytest.raises(EvidenceError, match="average-random needs the 3 random orders of every displayed order"):
        RandomAverage(k=3).predict(rows.select([0, 1]))
