import numpy as np
import pytest

from lad_eval.attention.interventions import Sofa
from lad_eval.errors import EvidenceError, UnknownNameError, UserError
from lad_eval.evidence.replies import Decoding
from lad_eval.methods import (
    LAD,
    PLAIN,
    Condition,
    Generate,
    Majority,
    ParameterError,
    PermutationAverage,
    PriDe,
    RandomAverage,
    SelfConsistency,
    Vanilla,
    canonical_name,
    describe_method,
    is_method,
    make_method,
    method_names,
    parse_setting,
    part_names,
    stored_name,
)
from lad_eval.methods.conformance import random_calibration, random_evidence


@pytest.mark.parametrize(
    ("name", "kind", "condition"),
    [
        ("lad", LAD, PLAIN),
        ("instruction", Vanilla, Condition(("instruction",))),
        ("instruction+lad", LAD, Condition(("instruction",))),
        ("sofa+pride", PriDe, Condition((), Sofa())),
        ("sofa(sigma=0.25, every=1)", Vanilla, Condition((), Sofa(sigma=0.25, every=1))),
        ("lad + sofa + instruction", LAD, Condition(("instruction",), Sofa())),
        ("generate", Generate, PLAIN),
        ("self_consistency", SelfConsistency, Condition(("cot",))),
        ("instruction+cot", Generate, Condition(("instruction", "cot"))),
        ("majority", Majority, PLAIN),
        ("average_random", RandomAverage, PLAIN),
        ("average_cyclic", PermutationAverage, PLAIN),
        ("sofa+permutation-average", PermutationAverage, Condition((), Sofa())),
    ],
)
def test_names_simply_work(name, kind, condition):
    method = make_method(name)
    assert isinstance(method, kind)
    assert method.condition == condition
    assert is_method(name)
    assert describe_method(canonical_name(name))


def test_a_name_has_one_spelling():
    assert canonical_name("lad+sofa+instruction") == canonical_name("instruction + lad+sofa") == "instruction+sofa+lad"
    assert canonical_name("lad+average_cyclic") == "average-cyclic+lad"
    assert canonical_name("sofa(every=2, sigma=0.5)") == "sofa"
    assert canonical_name("sofa ( sigma = 0.25 ) + vanilla") == "sofa(sigma=0.25)"
    assert canonical_name("vanilla+average_cyclic") == "average-cyclic"
    assert canonical_name("vanilla") == "vanilla"
    assert [canonical_name(name) for name in (*method_names(), *part_names())] == [*method_names(), *part_names()]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lad+pride", "joins lad and pride, and a method has one decision at most"),
        ("sofa+sofa(sigma=0.1)", "has 'sofa' twice"),
        ("fastv(layer=1)+instruction+random-tokens", "fastv and random-tokens are pruners, and a method has one pruner at most"),
        ("majority+average_cyclic", "one set of orders at most"),
        ("instruction+instruction", "has 'instruction' twice"),
        ("labelled+labelled-names+lad", "joins labelled and labelled-names, and images have one label at most"),
        ("labelled(view=names)", "labelled has no parameter 'view'. It has no parameters."),
        ("average_cyclic+generate", "generate gives no probabilities to average; use majority"),
        ("+lad", "'\\+lad' has an empty part; join names of `lad-eval ls methods` by \\+"),
        ("", "has an empty part"),
        ("sofa(sigma=2)", "sigma of sofa must be a number above 0 and at most 1"),
        ("majority+permutation-average", "majority cannot be joined with permutation-average"),
    ],
)
def test_what_does_not_go_together_is_told(name, says):
    with pytest.raises(UserError, match=says):
        make_method(name)


def test_unknown_parts_are_named():
    with pytest.raises(UnknownNameError, match=r"Unknown method 'instructon'. Did you mean 'instruction'"):
        make_method("instructon+lad")
    assert not is_method("lad++pride")
    assert not is_method("")


def test_parameters_go_to_the_part_that_has_them():
    method = make_method("average_random+lad", k=4, top_k=1)
    assert (method.k, method.decision.top_k) == (4, 1)
    assert method.get_params()["k"] == 4
    assert method.get_params()["top_k"] == 1
    assert parse_setting("sofa(sigma=0.3)+lad(top_k=4)") == ("sofa(sigma=0.3)+lad", {"top_k": 4})
    assert parse_setting("lad(layers=3-5)+instruction") == ("instruction+lad", {"layers": (3, 5)})
    assert parse_setting("self_consistency(samples=5)") == ("self-consistency", {"samples": 5})
    with pytest.raises(ParameterError, match=r"instruction\+lad has no parameter 'k'. Its parameters are top_k"):
        make_method("instruction+lad", k=3)
    with pytest.raises(ParameterError, match="k of average-random must be a whole number from 1 to 16, not 17"):
        make_method("average_random", k=17)


def test_parameters_may_stand_in_brackets():
    method = make_method("lad(layers=3-5) + sofa(sigma=0.25) + average_random(k=4)")
    assert (method.k, method.decision.layers, method.condition) == (4, (3, 5), Condition((), Sofa(sigma=0.25)))
    assert canonical_name("cot ( max_new_tokens = 64 ) + instruction") == "instruction+cot(max_new_tokens=64)"
    assert canonical_name("lad(layers=3-5,temperature=2)") == "lad(layers=3-5, temperature=2.0)"
    assert canonical_name("lad(top_k=1)+sofa(sigma=0.3)") == "sofa(sigma=0.3)+lad(top_k=1)"
    assert make_method("lad(top_k=3)", top_k=4).top_k == 4
    assert describe_method("cot(max_new_tokens=64)") == describe_method("cot")
    for name, says in [
        ("cot()", r"'cot\(\)' has brackets without a parameter: write cot, or cot\(parameter=value"),
        ("cot(64)", r"'cot\(64\)' does not say what is 64: write cot\(parameter=64\)"),
        ("cot(=64)", r"does not say what is 64: write cot\(parameter=64\)"),
        ("cot(max_new_tokens=6,)", "has an empty parameter"),
        ("cot(max_new_tokens=6, max_new_tokens=7)", "must give each parameter once"),
        ("cot(tokens=64)", "cot has no parameter 'tokens'. Its parameters are max_new_tokens"),
        ("lad(top_k=0)", "top_k of lad must be 'all' or a whole number of at least 1"),
        ("lad(top_k=1", "parameters stand in brackets behind the name they belong to"),
        ("lad(top_k=1)x", "parameters stand in brackets behind the name they belong to"),
        ("average-random+lad(k=4)", r"lad has no parameter 'k', which average-random has: write average-random\(k=4\)\."),
        ("instruction(x=1)", "instruction has no parameter 'x'. It has no parameters."),
    ]:
        with pytest.raises(UserError, match=says):
            make_method(name)
        assert not is_method(name)


def test_a_replying_method_says_how_the_replies_are_written():
    assert make_method("generate").decoding == Decoding()
    assert make_method("cot").decoding == Decoding(max_new_tokens=512)
    assert make_method("self-consistency", samples=3).decoding == Decoding(3, 0.7, 512, 42)
    with pytest.raises(EvidenceError, match="generate decides from replies"):
        make_method("generate").decide(random_evidence(), np.zeros((1, 1), dtype=np.int64))


def test_views_over_a_calibrated_decision():
    lad = LAD().calibrate(random_calibration())
    evidence = random_evidence()
    combined = make_method("average_cyclic+lad")
    assert combined.calibrates
    assert combined.needs == lad.needs
    found = np.exp(combined.calibrate(random_calibration()).predict_log_proba(evidence))
    single = lad.predict_log_proba(evidence)
    for row in range(0, len(evidence), 4):  # a sample's shifts stand together
        by_image = np.zeros((4, 4))
        for view in range(4):
            by_image[view, evidence.perm[row + view]] = single[row + view]
        mean = by_image.mean(axis=0)[evidence.perm[row]]
        np.testing.assert_allclose(found[row], np.exp(mean) / np.exp(mean).sum(), atol=1e-12)
    with pytest.raises(UserError, match="has no state of its own"):
        combined.save("nowhere")


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("lad", "lad"),
        ("sofa:sigma=0.25", "sofa(sigma=0.25)"),
        ("sofa:sigma=0.25:every=1+pride", "sofa(sigma=0.25, every=1)+pride"),
        (
            "instruction+sofa:sigma=0.25+average-random+lad(k=4, layers=3-5)",
            "instruction+sofa(sigma=0.25)+average-random(k=4)+lad(layers=3-5)",
        ),
        ("average-random+lad(k=4)", "average-random(k=4)+lad"),
        ("instruction+cot(max_new_tokens=64)", "instruction+cot(max_new_tokens=64)"),
        ("majority+cot(max_new_tokens=64)", "majority+cot(max_new_tokens=64)"),
        ("of-a-package-that-is-gone(x=1)", "of-a-package-that-is-gone(x=1)"),
    ],
)
def test_names_of_stored_runs_are_read_in_the_old_spelling_too(stored, name):
    assert stored_name(stored) == name
    assert stored_name(name) == name
