"""Batch calibration: by hand, over orders apart, as PriDe on calibration rows, and what it may not be used for."""

import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.evidence.table import Evidence
from lad_eval.methods import PriDe, make_evidence_method, make_method
from lad_eval.methods.calibration import log_softmax
from lad_eval.methods.conformance import random_calibration, random_evidence
from lad_eval.plugins.calibrated import check_answers_here

ROWS = Evidence.from_arrays(np.log([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]]), None, [0, 0])


@pytest.mark.parametrize(("space", "scores", "answer"), [("log", (-0.1682, 0.5493, 0), 1), ("probability", (-0.1, 0.1, 0), 1)])
def test_two_rows_by_hand(space, scores, answer):
    method = make_method("batch-calibration", space=space)
    np.testing.assert_allclose(method._scores(ROWS)[0], scores, atol=5e-5)
    assert method.predict(ROWS)[0] == answer


def test_rows_of_one_order_are_a_batch_of_their_own():
    evidence = random_evidence()
    expected = np.empty_like(evidence.log_probs)
    for order in np.unique(evidence.perm, axis=0):
        rows = (evidence.perm == order).all(axis=1)
        expected[rows] = evidence.log_probs[rows] - evidence.log_probs[rows].mean(axis=0)
    method = make_method("batch-calibration", batch="order")
    np.testing.assert_allclose(method.predict_log_proba(evidence), log_softmax(expected), atol=1e-12)


def test_on_calibration_rows_it_is_pride():
    rows = random_calibration()
    pride = PriDe().calibrate(rows)
    expected = log_softmax(rows.log_probs - pride.log_prior_)
    np.testing.assert_allclose(make_method("batch-calibration").predict_log_proba(rows), expected, atol=1e-12)


def test_the_batch_is_the_evaluated_rows_and_nothing_else_that_was_run():
    evidence = random_evidence()
    index = np.arange(0, len(evidence), 2)[:, None]
    method = make_method("batch-calibration")
    alone = method.predict(evidence.select(index[:, 0]))
    np.testing.assert_array_equal(method.decide(evidence, index).position, alone)


def test_answers_that_depend_on_other_questions_are_not_for_single_ones():
    with pytest.raises(UserError, match="does not answer from one pass"):
        make_evidence_method("batch-calibration")
    for name in ("batch-calibration", "pride-original"):
        with pytest.raises(UserError, match=f"{name} decides all questions of a run together"):
            check_answers_here(make_method(name))
        with pytest.raises(UserError, match=name):
            make_method(f"average-cyclic+{name}")
