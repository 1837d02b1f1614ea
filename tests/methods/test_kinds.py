"""What every method is, and what only some are: those that score rows of evidence, combine orders, or read replies."""

import numpy as np
import pytest

from lad_eval.errors import EvidenceError, UserError
from lad_eval.methods import (
    LAD,
    METHODS,
    EvidenceMethod,
    Generate,
    Majority,
    Method,
    OrdersMethod,
    OverOrders,
    PermutationAverage,
    PriDe,
    PriDeOriginal,
    RandomAverage,
    RawAttention,
    ReplyMethod,
    make_evidence_method,
    make_method,
    named,
)
from lad_eval.methods.conformance import random_calibration, random_evidence
from lad_eval.methods.registry import names_of
from lad_eval.registry import RegistryError


def test_a_method_is_of_one_kind_and_only_evidence_is_predicted_from():
    classes = {
        "evidence": (EvidenceMethod, OrdersMethod),
        "protocol": (EvidenceMethod, OrdersMethod),
        "orders": OverOrders,
        "replies": ReplyMethod,
    }
    for kind, expected in classes.items():
        for name in names_of(kind):
            assert issubclass(METHODS[name].method, expected), name
    assert not hasattr(Generate(), "predict")
    assert not issubclass(PriDeOriginal, OverOrders)
    assert Method.__abstractmethods__ == {"needs", "decide"}


@pytest.mark.parametrize("name", ["generate", "cot", "majority", "average-random+lad", "pride-original", "permutation-average"])
def test_only_a_method_of_single_rows_is_made_as_one(name):
    with pytest.raises(
        UserError, match=r"does not answer from one pass of the model; use lad, lad-unlabelled, pride or the like\."
    ):
        make_evidence_method(name)
    assert isinstance(make_evidence_method("sofa+lad", top_k=1), LAD)


def test_a_class_that_calibrates_must_say_how():
    with pytest.raises(TypeError, match="Hasty calibrates, and so must write _calibrate"):

        class Hasty(EvidenceMethod):
            name = "hasty"
            calibrates = True

            def _scores(self, evidence):
                return evidence.log_probs


class Alone(Method):
    """Neither scores rows nor combines orders."""

    name = "alone"
    needs = frozenset({"log_probs"})

    def decide(self, results, index):
        raise AssertionError("is refused before")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Alone, r"the method 'other' must be a subclass of lad_eval\.methods\.EvidenceMethod"),
        (named(LAD, kind="replies"), r"the method 'other' must be a subclass of lad_eval\.methods\.ReplyMethod"),
        (named(Generate, kind="evidence"), r"the method 'other' must be a subclass of lad_eval\.methods\.EvidenceMethod"),
        (named(PriDeOriginal, kind="orders"), r"the orders 'other' must be a subclass of lad_eval\.methods\.OverOrders"),
    ],
)
def test_the_registry_takes_a_class_of_the_kind_only(monkeypatch, entry, says):
    for table in ("_entries", "_origins", "_values"):
        monkeypatch.setattr(METHODS, table, dict(getattr(METHODS, table)))
    with pytest.raises(RegistryError, match=says):
        METHODS.add("other", entry, "tests")


def test_orders_need_and_learn_what_their_decision_does():
    plain, attended, learned, written = (
        PermutationAverage(), RandomAverage().over(RawAttention()), PermutationAverage().over(LAD()), Majority().over(Generate()),
    )  # fmt: skip
    assert [m.needs for m in (plain, attended, learned, written)] == [
        {"log_probs"}, {"attention"}, {"log_probs", "attention"}, {"replies"},
    ]  # fmt: skip
    assert [m.calibrates for m in (plain, attended, learned, written)] == [False, False, True, False]
    assert written.decoding == Generate().decoding
    assert plain.needs == {"log_probs"}, "another one's decision changes nothing here"
    assert not any(name in vars(PermutationAverage) or name in vars(learned) for name in ("needs", "calibrates"))
    assert not learned.is_calibrated
    assert learned.calibrate(random_calibration()).is_calibrated
    assert learned.with_learner(PriDe()).needs == {"log_probs"}


def test_parameters_of_orders_and_decision_are_set_through_the_whole():
    method = RandomAverage(k=4).over(LAD()).calibrate(random_calibration())
    assert method.set_params(k=3, top_k=1) is method
    assert (method.k, method.decision.top_k, method.most_orders) == (3, 1, 3)
    assert not method.is_calibrated
    with pytest.raises(UserError, match="average-random has no parameter 'seed'"):
        method.set_params(seed=1)


def test_probabilities_of_replies_cannot_be_averaged():
    class Silent(EvidenceMethod):
        name = "silent"

        def _scores(self, evidence):
            return evidence.log_probs

        def decide(self, results, index):
            return super().decide(results, index).__class__(None, index[:, 0], index[:, 0])

    with pytest.raises(EvidenceError, match="permutation-average combines probabilities, and silent gives none"):
        PermutationAverage().over(Silent()).predict(random_evidence())


def test_no_rows_are_refused_by_the_protocol_too():
    with pytest.raises(EvidenceError, match="pride-original got no rows"):
        make_method("pride-original").predict(random_evidence().select(np.arange(0)))
