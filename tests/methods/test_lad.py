import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.evidence.table import Evidence
from lad_eval.methods import LAD, NoVisualSignalWarning, PriDe, PurifiedAttention, UnlabelledLAD, make_method
from lad_eval.methods.conformance import random_calibration, random_evidence, with_values

CODE = {"attention_mean": "arithmetic", "bias_mean": "log", "mixture": "log"}
PAPER = {"attention_mean": "log", "bias_mean": "probability", "mixture": "probability"}


def by_hand(probabilities, attention, gold, samples):
    return Evidence.from_arrays(np.log(probabilities), np.asarray(attention)[:, None], gold, samples)


# One layer, two positions. P_obs(.|0) = (.8, .2), P_obs(.|1) = (.6, .4): g = max(.8/.2, .4/.6) = 4, so that
# P_bias(.|0) = (.2, .2) and P_bias(.|1) = (.6, .1). The attention prior is (.2, .1).
CALIBRATION = by_hand([[0.8, 0.2], [0.6, 0.4]], [[0.3, 0.1], [0.1, 0.1]], [0, 1], ["c", "c"])
ROW = by_hand([[0.7, 0.3]], [[0.2, 0.2]], [1], ["t"])  # pt is proportional to (1, 2)


@pytest.mark.parametrize(
    ("mixture", "temperature", "expected"),
    [
        # pi = (1/3, 2/3): bias (1/3 .2 + 2/3 .6, 1/3 .2 + 2/3 .1) = (7/15, 2/15); .7 / (7/15) : .3 / (2/15) = 1.5 : 2.25
        ("probability", 1, [0.4, 0.6]),
        # pi = (1/5, 4/5): bias (.52, .12); .7/.52 : .3/.12 = 35/26 : 5/2 = 7 : 13
        ("probability", 2, [0.35, 0.65]),
        # pi = (1/3, 2/3): odds .7/.3 (.1/.6)^(2/3)
        ("log", 1, [0.41405, 0.58595]),
    ],
)
def test_numbers_worked_by_hand(mixture, temperature, expected):
    lad = LAD(top_k=1, temperature=temperature, layers="all", mixture=mixture).calibrate(CALIBRATION)
    assert lad.log_gain_ == pytest.approx(np.log(4))
    assert np.exp(lad.log_bias_) == pytest.approx(np.array([[0.2, 0.2], [0.6, 0.1]]))
    assert np.exp(lad.log_attention_prior_) == pytest.approx(np.array([[0.2, 0.1]]))
    assert np.exp(lad.predict_log_proba(ROW)[0]) == pytest.approx(expected, abs=1e-5)
    assert lad.predict(ROW).tolist() == [1], "vanilla would answer 0"


def test_without_a_prior_the_attention_is_taken_as_it_is():
    # pi = (1/2, 1/2): bias (.4, .15); .7/.4 : .3/.15 = 1.75 : 2
    lad = LAD(top_k=1, temperature=1, layers="all", mixture="probability", attention_prior="none").calibrate(CALIBRATION)
    assert np.exp(lad.predict_log_proba(ROW)[0]) == pytest.approx([1.75 / 3.75, 2 / 3.75])


def test_bias_is_a_mean_of_logs_or_of_probabilities():
    two = by_hand([[0.8, 0.2], [0.3, 0.7], [0.2, 0.8], [0.3, 0.7]], np.full((4, 2), 0.1), [0, 1, 0, 1], ["a", "a", "b", "b"])
    logs = LAD(top_k=1, layers="all").calibrate(two)
    probabilities = LAD(top_k=1, layers="all", bias_mean="probability").calibrate(two)
    assert np.exp(probabilities.log_bias_[0, 1]) == pytest.approx(0.5)  # (.2 + .8) / 2
    assert np.exp(logs.log_bias_[0, 1]) == pytest.approx(0.4)  # sqrt(.2 .8)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(2, 6),
    depth=st.sampled_from([3, 5, 12, 24, 28, 40]),
    layers=st.sampled_from(["upper", "all", (0, 2), (1, 2)]),
    top_k=st.integers(1, 2),
    temperature=st.sampled_from([0.5, 1.0, 5.0]),
    choices=st.tuples(st.sampled_from(["arithmetic", "log"]), *2 * [st.sampled_from(["log", "probability"])]),
)
@pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
def test_equals_the_slow_implementation(slow, seed, n, depth, layers, top_k, temperature, choices):
    calibration = random_evidence(samples=3, n_candidates=n, depth=depth, prefix="c", seed=seed)
    evidence = random_evidence(samples=4, n_candidates=n, depth=depth, seed=seed + 1)
    params = dict(zip(("attention_mean", "bias_mean", "mixture"), choices, strict=True))
    params |= {"top_k": top_k, "temperature": temperature, "layers": layers}
    fast = LAD(**params, span="image").calibrate(calibration).predict_log_proba(evidence)
    np.testing.assert_allclose(fast, slow.lad(calibration, evidence, **params), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "form", "layers"), [("lad", CODE, "upper"), ("lad-paper", PAPER, "all")])
def test_named_variants_are_the_two_forms(slow, name, form, layers):
    calibration, evidence = random_evidence(samples=5, prefix="c", depth=36), random_evidence(depth=36, seed=1)
    span = calibration.attention_delimited, evidence.attention_delimited
    if name == "lad":  # the released code counts delimiters: give the slow one their attention
        slow_inputs = with_values(calibration, attention=span[0]), with_values(evidence, attention=span[1])
    else:
        slow_inputs = calibration, evidence
    expected = slow.lad(*slow_inputs, top_k=2, temperature=5.0, layers=layers, **form)
    found = make_method(name).calibrate(calibration).predict_log_proba(evidence)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_two_forms_disagree():
    calibration, evidence = random_evidence(samples=5, prefix="c", depth=36), random_evidence(samples=100, depth=36, seed=1)
    code, paper = (make_method(name).calibrate(calibration).predict(evidence) for name in ("lad", "lad-paper"))
    assert 0.01 < (code != paper).mean() < 0.5


def test_without_visual_signal_the_bias_is_used_as_observed():
    blind = by_hand([[0.4, 0.6], [0.6, 0.4]], [[0.1, 0.1], [0.1, 0.1]], [0, 1], ["c", "c"])
    with pytest.warns(NoVisualSignalWarning, match=r"no visual signal \(gain 0.667, not above 1\)"):
        lad = LAD(top_k=1, layers="all").calibrate(blind)
    assert lad.log_gain_ == 0
    assert np.exp(lad.log_bias_) == pytest.approx(np.array([[0.4, 0.6], [0.6, 0.4]]))


def test_flat_attention_makes_lad_a_static_correction():
    """With the posterior at its flattest LAD subtracts the mean bias over answers' positions: PriDe, but for the gain, which the
    diagonal spreads evenly."""
    calibration, evidence = random_evidence(samples=5, prefix="c"), random_evidence(seed=1)
    flat = [with_values(rows, attention=np.full((len(rows), 6, 4), 0.1)) for rows in (calibration, evidence)]
    lad = LAD(bias_mean="log", mixture="log").calibrate(flat[0]).predict_log_proba(flat[1])
    pride = PriDe(prior_mean="geometric").calibrate(flat[0]).predict_log_proba(flat[1])
    np.testing.assert_allclose(lad, pride, atol=1e-12)


def test_purified_attention_is_lads_posterior():
    calibration, evidence = random_evidence(samples=5, prefix="c"), random_evidence(seed=1)
    bias = [[0.0, 1.0, -1.0, 0.5], [0.3, -2.0, 0.2, 0.0], [1.0, 1.0, 0.0, -1.0], [0.1, 0.0, 0.7, 0.2]]
    lad = LAD().calibrate(calibration)
    lad.log_bias_ = np.asarray(bias)
    pi = np.exp(PurifiedAttention().calibrate(calibration).predict_log_proba(evidence))
    corrected = evidence.log_probs - pi @ np.asarray(bias)
    np.testing.assert_array_equal(lad.predict(evidence), corrected.argmax(axis=1))


def test_without_labels_a_sure_posterior_is_the_label():
    """Attention that points at the right image alone makes the weights 1 and 0: then there is no difference to LAD."""
    calibration, evidence = random_calibration(), random_evidence()

    def pointing(rows):
        return with_values(rows, attention=np.repeat(np.where(np.eye(4)[rows.gold_position], 0.5, 1e-9)[:, None], 6, axis=1))

    for mean in ("log", "probability"):
        free = UnlabelledLAD(bias_mean=mean).calibrate(pointing(calibration))
        lad = LAD(bias_mean=mean).calibrate(pointing(calibration))
        np.testing.assert_allclose(free.log_bias_, lad.log_bias_, atol=1e-9)
        np.testing.assert_allclose(free.predict_log_proba(evidence), lad.predict_log_proba(evidence), atol=1e-9)


def test_without_labels_equals_a_loop_over_passes_and_reads_no_label():
    rows = random_calibration()
    learned = UnlabelledLAD().calibrate(rows)
    posterior = PurifiedAttention().calibrate(rows)
    pi = np.exp(posterior.predict_log_proba(with_ids(rows, "x")))
    logs = rows.log_probs - np.log(np.exp(rows.log_probs).sum(axis=1, keepdims=True))
    observed = np.array([[sum(pi[x, i] * logs[x, j] for x in range(20)) / pi[:, i].sum() for j in range(4)] for i in range(4)])
    gain = max(observed[i, i] - observed[i, j] for i in range(4) for j in range(4) if i != j)
    np.testing.assert_allclose(learned.log_bias_, observed - gain * np.eye(4), atol=1e-9)
    other = Evidence.from_arrays(  # every sample's right image is said to be the next one
        rows.log_probs,
        rows.attention,
        np.argmax(rows.perm == (rows.perm[np.arange(20), rows.gold_position] + 1)[:, None] % 4, axis=1),
        rows.sample_id,
        attention_delimited=rows.attention_delimited,
        perm=rows.perm,
        split="calibration",
    )
    np.testing.assert_array_equal(UnlabelledLAD().calibrate(other).log_bias_, learned.log_bias_)
    assert np.abs(LAD().calibrate(other).log_bias_ - LAD().calibrate(rows).log_bias_).max() > 0.1


def with_ids(rows, prefix):
    return Evidence.from_arrays(
        rows.log_probs,
        rows.attention,
        rows.gold_position,
        [f"{prefix}{s}" for s in rows.sample_id],
        attention_delimited=rows.attention_delimited,
        perm=rows.perm,
    )
