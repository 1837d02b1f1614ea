import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.errors import EvidenceError
from lad_eval.evidence import Evidence
from lad_eval.methods import PermutationAverage
from lad_eval.methods.synthetic import random_evidence


def test_two_shifts_by_hand():
    """Images (0, 1) are shown as 01 and as 10; image 0 gets .9 and .5, image 1 gets .1 and .5."""
    evidence = Evidence.from_arrays(np.log([[0.9, 0.1], [0.5, 0.5]]), None, [0, 1], ["a", "a"], perm=[[0, 1], [1, 0]])
    proba = np.exp(PermutationAverage().predict_log_proba(evidence))
    assert proba == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))  # sqrt(.9 .5) : sqrt(.1 .5) = 3 : 1


@settings(max_examples=40, deadline=None)
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
