import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.evidence.table import Evidence
from lad_eval.methods import PriDe
from lad_eval.methods.conformance import random_evidence

# Sample a always prefers position 0 by 4:1; sample b is even.
CALIBRATION = Evidence.from_arrays(np.log([[0.8, 0.2], [0.8, 0.2], [0.5, 0.5], [0.5, 0.5]]), None, [0, 1, 0, 1], list("aabb"))
ROW = Evidence.from_arrays(np.log([[0.6, 0.4]]), None, [1], ["t"])


def test_geometric_prior_by_hand():
    pride = PriDe().calibrate(CALIBRATION)  # odds sqrt(4 : 1)
    assert np.exp(pride.log_prior_) == pytest.approx([2 / 3, 1 / 3])
    assert np.exp(pride.predict_log_proba(ROW)[0]) == pytest.approx([3 / 7, 4 / 7])  # .6/2 : .4/1


def test_arithmetic_prior_by_hand():
    pride = PriDe(prior_mean="arithmetic").calibrate(CALIBRATION)
    assert np.exp(pride.log_prior_) == pytest.approx([0.65, 0.35])  # ((.8, .2) + (.5, .5)) / 2
    assert np.exp(pride.predict_log_proba(ROW)[0]) == pytest.approx([42 / 94, 52 / 94])  # .6/.65 : .4/.35 = 42 : 52


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.integers(2, 7), st.integers(1, 5), st.sampled_from(["geometric", "arithmetic"]))
def test_equals_the_slow_implementation(slow, seed, n, samples, prior_mean):
    calibration = random_evidence(samples=samples, n_candidates=n, prefix="c", seed=seed)
    evidence = random_evidence(samples=3, n_candidates=n, seed=seed + 1)
    fast = PriDe(prior_mean=prior_mean).calibrate(calibration).predict_log_proba(evidence)
    np.testing.assert_allclose(fast, slow.pride(calibration, evidence, prior_mean), rtol=1e-9, atol=1e-9)
