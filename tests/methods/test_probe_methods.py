"""Methods that read probes: numbers worked by hand, and what must hold for any evidence."""

import numpy as np
import pytest

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.table import Evidence
from lad_eval.methods import make_evidence_method, make_method
from lad_eval.methods.base import passes_of, shared_passes
from lad_eval.methods.conformance import random_evidence
from lad_eval.tasks.probes import Probe

P, FREE = [0.5, 0.3, 0.2], [0.6, 0.2, 0.2]


def evidence(log_probs, attention=None, sample="s", key=None):
    rows = len(log_probs)
    return Evidence.from_arrays(log_probs, attention, [0] * rows, [sample] * rows, key=key)


def probed(method, own, *probes):
    return own.with_probes({probe.label: rows for probe, rows in zip(method.probes, probes, strict=True)})


def test_contextual_calibration_by_hand():
    method = make_method("cc", probe="images")
    rows = probed(method, evidence(np.log([P])), evidence(np.log([FREE])))
    assert np.exp(method.predict_log_proba(rows))[0] == pytest.approx([0.25, 0.45, 0.30])
    assert method.predict(rows).tolist() == [1]
    half = method.set_params(alpha=0.5)
    expected = np.array(P) / np.sqrt(FREE)
    assert np.exp(half.predict_log_proba(rows))[0] == pytest.approx(expected / expected.sum())


def test_contextual_calibration_averages_probabilities_of_three_captions():
    method = make_method("cc")
    free = [[0.6, 0.2, 0.2], [0.3, 0.6, 0.1], [0.6, 0.1, 0.3]]  # mean .5 .3 .2
    rows = probed(method, evidence(np.log([P])), *(evidence(np.log([p])) for p in free))
    assert np.exp(method.predict_log_proba(rows))[0] == pytest.approx([1 / 3] * 3)


def test_words_are_averaged_over_the_calibration_by_position():
    calibration = random_evidence(samples=2, n_candidates=3, prefix="c")
    probe = evidence(np.log([[0.7, 0.1, 0.2], [0.5, 0.3, 0.2]] * 3))  # mean .6 .2 .2
    method = make_method("cc", probe="words")
    method.calibrate(calibration.with_probes({Probe(caption="words").label: probe}))
    assert np.exp(method.predict_log_proba(evidence(np.log([P]))))[0] == pytest.approx([0.25, 0.45, 0.30])


@pytest.mark.parametrize("name", ["cc", "cc(probe=caption)", "cc(probe=images)", "capcal", "capcal(rate=adaptive)"])
def test_even_probes_leave_the_answers_as_they_are(name):
    method, own = make_method(name.partition("(")[0], **_settings(name)), random_evidence()
    even = Evidence.from_arrays(np.zeros((len(own), 4)), None, own.gold_position, own.sample_id)
    rows = own.with_probes({probe.label: even for probe in method.probes})
    np.testing.assert_allclose(method.predict_log_proba(rows), own.log_probs, atol=1e-9)


def _settings(name):
    inside = name.partition("(")[2].rstrip(")")
    return dict([inside.split("=")]) if inside else {}


@pytest.mark.parametrize(
    ("settings", "own", "expected"),
    [
        ({}, P, [0.2333, 0.4333, 0.3333]),
        ({"rate": "adaptive"}, P, [-0.0333, 0.5667, 0.4667]),  # H / ln 3 = .9372: alpha is cut to 2
        ({"rate": "adaptive"}, [0.98, 0.01, 0.01], [0.8442, 0.0779, 0.0779]),  # alpha = .5093
    ],
)
def test_capcal_by_hand(settings, own, expected):
    method = make_method("capcal", **settings)
    corrected = method._corrected(np.array([own]), np.array([FREE]))
    assert corrected[0] == pytest.approx(expected, abs=5e-5)
    rows = probed(method, evidence(np.log([own])), evidence(np.log([FREE])))
    shown = np.maximum(expected, 0)
    assert np.exp(method.predict_log_proba(rows))[0] == pytest.approx(shown / shown.sum(), abs=5e-5)


def test_icr_by_hand():
    method = make_method("icr")
    own, without = (evidence(np.zeros((1, 2)), [a]) for a in ([[0.2, 0.3], [0.4, 0.1]], [[0.1, 0.3], [0.1, 0.1]]))
    rows = probed(method, own, without)
    assert method._scores(rows)[0] == pytest.approx([0.4, 0])
    assert method.predict(rows).tolist() == [0]


def test_icr_is_attention_sorting_where_the_probe_looks_everywhere_alike():
    own = random_evidence()
    even = np.broadcast_to(np.random.default_rng(1).random((len(own), 6, 1)), own.attention.shape) / 10
    method = make_method("icr")
    sorting = make_method("attention-sorting").predict(own)
    assert method.predict(probed(method, own, evidence(own.log_probs, even))).tolist() == sorting.tolist()


def test_a_constant_for_each_layer_of_the_probe_changes_no_answer_of_icr():
    own, method = random_evidence(), make_method("icr")
    attention = np.random.default_rng(2).random(own.attention.shape) / 50
    moved = attention + np.arange(6)[:, None] / 10
    before, after = (method.predict(probed(method, own, evidence(own.log_probs, a))) for a in (attention, moved))
    assert before.tolist() == after.tolist()


def test_icr_learns_the_mean_attention_of_the_calibrations_probes():
    calibration, own = random_evidence(samples=2, prefix="c"), random_evidence()
    attention = np.random.default_rng(3).random(calibration.attention.shape) / 50
    probe = evidence(calibration.log_probs, attention)
    method = make_method("icr", probe="calibration").calibrate(calibration.with_probes({"probe(caption=na)": probe}))
    expected = (own.attention - attention.mean(axis=0)).sum(axis=1).argmax(axis=1)
    assert method.predict(own).tolist() == expected.tolist()


def test_a_missing_probe_is_refused():
    message = r"^cc needs probe\(images=grey, caption=na\) of each row and this evidence has none: `lad-eval run --methods cc`"
    with pytest.raises(EvidenceError, match=message):
        make_method("cc").predict(random_evidence())
    with pytest.raises(UserError, match="cc does not answer from one pass of the model"):
        make_evidence_method("cc")
    with pytest.raises(EvidenceError, match=r"probe\(images=grey\) must have a row for each row of the evidence"):
        random_evidence().with_probes({"probe(images=grey)": evidence(np.zeros((2, 4)))})


def test_a_probe_costs_each_question_its_share_and_one_of_all_samples_none():
    """Two samples in two orders: each sample has one probe of 2 passes, and all share one of 1 pass."""
    own = Evidence.from_arrays(np.zeros((4, 2)), None, [0, 1] * 2, ["a", "a", "b", "b"], key=["1", "2", "3", "4"])
    of_samples = Evidence.from_arrays(
        np.zeros((4, 2)), None, [0] * 4, ["a", "a", "b", "b"], key=["x", "x", "y", "y"], forward_passes=[2] * 4
    )
    of_all = Evidence.from_arrays(np.zeros((4, 2)), None, [0] * 4, ["probe"] * 4, key=["z"] * 4)
    rows = own.with_probes({"probe(images=grey)": of_samples, "probe(images=grey, caption=na)": of_all})
    assert passes_of(rows, np.arange(4)[:, None]).tolist() == [2] * 4
    assert passes_of(rows, np.array([[0, 1], [2, 3]])).tolist() == [4, 4]
    assert shared_passes(rows) == 1
    assert shared_passes(own) == 0


def test_a_probe_of_one_request_counts_like_it_however_many_questions_it_serves():
    """Two questions of a sample, each decided over the same two orders: 2 passes of requests and 2 of probes for both."""
    rows = Evidence.from_arrays(np.zeros((2, 2)), None, [0, 0], ["a", "a"], key=["k", "l"])
    own = Evidence.from_arrays(np.zeros((2, 2)), None, [0, 0], ["a", "a"], key=["p", "q"])
    shared = Evidence.from_arrays(np.zeros((2, 2)), None, [0, 0], ["a", "a"], key=["p", "p"])
    index = np.array([[0, 1], [1, 0]])
    assert passes_of(rows.with_probes({"probe": own}), index).tolist() == [4, 4]
    assert passes_of(rows.with_probes({"probe": shared}), index).tolist() == [2.5, 2.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("capcal(rate=adaptive, alpha=0.3)", "rate=adaptive computes alpha for each question; leave alpha out"),
        ("cc(probe=caption, images=noise)", "probe=caption shows the question's own images; leave images out"),
        ("cc(probe=words, images=noise)", "probe=words shows the question's own images; leave images out"),
    ],
)
def test_a_parameter_without_effect_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        make_method(name)
