import numpy as np
import pytest

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence
from lad_eval.methods import LAD, PriDe
from lad_eval.methods.conformance import random_calibration, random_evidence


def test_missing_position_is_named():
    rows = random_calibration()
    gone = rows.select(np.flatnonzero(~((rows.sample_id == "c1") & (rows.gold_position == 2))))
    with pytest.raises(
        EvidenceError, match=r"4 cyclic shifts: 1 of 5 samples are not; the answer of 'c1' was never at position 2\."
    ):
        PriDe().calibrate(gone)


def test_repeated_position_is_named():
    rows = random_calibration()
    twice = Evidence.concatenate([rows, rows.select([0])])
    with pytest.raises(EvidenceError, match=rf"'c0' was more than once at position {rows.gold_position[0]}\."):
        PriDe().calibrate(twice)


def test_whole_evidence_hints_at_its_calibration_rows():
    whole = Evidence.concatenate([random_calibration(), random_evidence().select([0])])
    with pytest.raises(EvidenceError, match=r"Calibrate on evidence\.calibration alone\."):
        PriDe().calibrate(whole)


def test_orders_must_be_cyclic_shifts():
    swapped = np.array([[0, 1, 2], [1, 2, 0], [2, 1, 0]])  # the answer, image 0, stands everywhere once
    rows = Evidence.from_arrays(np.zeros((3, 3)), None, [0, 2, 2 - 1 + 1], list("ccc"), perm=swapped)
    with pytest.raises(EvidenceError, match="position 1 and more than once at position 2"):
        PriDe().calibrate(rows)
    rows = Evidence.from_arrays(np.zeros((3, 3)), None, [0, 1, 2], list("ccc"), perm=[[0, 1, 2], [1, 0, 2], [1, 2, 0]])
    with pytest.raises(EvidenceError, match="the orders of 'c' are not the cyclic shifts of one order"):
        PriDe().calibrate(rows)


def test_orders_that_were_not_recorded_are_not_asked_for():
    logs = np.log([[0.8, 0.2], [0.6, 0.4]])
    assert PriDe().calibrate(Evidence.from_arrays(logs, None, [0, 1], ["c", "c"])).is_calibrated


def test_a_failed_calibration_leaves_the_method_as_it_was():
    lad = LAD().calibrate(random_calibration())
    before = lad.predict_log_proba(random_evidence())
    with pytest.raises(EvidenceError):
        lad.calibrate(random_calibration().select([0, 1]))
    np.testing.assert_array_equal(lad.predict_log_proba(random_evidence()), before)


def test_overlap_names_the_samples():
    lad = LAD().calibrate(random_calibration())
    with pytest.raises(
        EvidenceError, match=r"5 evaluated samples were also calibrated on \(c0, c1, c2, \.\.\.\): evaluate evidence\.test"
    ):
        lad.predict(random_calibration())


def test_missing_attention_names_the_span():
    with pytest.raises(EvidenceError, match=r"lad needs attention \(span 'delimited'\) and this evidence has none"):
        LAD().calibrate(random_evidence(attention=False))


def test_state_tells_what_was_calibrated_on():
    lad = LAD().calibrate(random_calibration())
    assert (lad.n_candidates_, lad.n_layers_, lad.calibration_ids_.tolist()) == (4, 6, ["c0", "c1", "c2", "c3", "c4"])
