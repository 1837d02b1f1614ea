import numpy as np
import pytest

from lad_eval.methods import LAD, Majority, PriDe, PurifiedAttention, RawAttention, Vanilla, make_method, method_names
from lad_eval.methods.conformance import LAWS

VARIANTS = {name: (lambda name=name: make_method(name)) for name in method_names()} | {
    "pride-arithmetic": lambda: PriDe(prior_mean="arithmetic"),
    "lad-mixed": lambda: LAD(top_k=3, temperature=2, layers=(1, 4), bias_mean="probability", span="image"),
    "lad-mixed-too": lambda: LAD(top_k=1, layers="all", attention_mean="log", mixture="probability"),
    "raw-image": lambda: RawAttention(layers=(2, 3), span="image"),
    "majority": Majority,
    **{f"cc-{probe}": (lambda probe=probe: make_method("cc", probe=probe)) for probe in ("caption", "images", "words")},
    "batch": lambda: make_method("batch-calibration"),
    "capcal-adaptive": lambda: make_method("capcal", rate="adaptive", images="noise"),
    "icr-calibration": lambda: make_method("icr", probe="calibration", layers=(1, 3)),
    "purified-log": lambda: PurifiedAttention(attention_mean="log", layers="all", top_k=4),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_method_keeps_the_law(name, law):
    law(VARIANTS[name])


class Relative(Vanilla):
    """Looks at the other rows."""

    def _scores(self, evidence):
        return evidence.log_probs - evidence.log_probs.mean(axis=0)


class First(Vanilla):
    """Likes the first position."""

    def _scores(self, evidence):
        return evidence.log_probs + np.eye(evidence.n_candidates)[0]


class Spoiling(Vanilla):
    """Works in place."""

    def _scores(self, evidence):
        evidence.log_probs.sort(axis=1)
        return evidence.log_probs


class Certain(Vanilla):
    """Takes logs of what may be zero."""

    def _scores(self, evidence):
        with np.errstate(divide="ignore"):
            return np.log(np.exp(evidence.log_probs))


class Eager(PriDe):
    """Changes what it was given."""

    def __init__(self, *, prior_mean="geometric"):
        self.prior_mean = str(prior_mean)


class Careless(RawAttention):
    """Takes missing attention for zero."""

    def _check_rows(self, evidence, probes):
        pass

    def _attention(self, evidence):
        return np.zeros((len(evidence), 6, 4)) if evidence.attention is None else evidence.attention


class Forgetful(PriDe):
    """Keeps a part of what it learned where save does not look."""

    def _calibrate(self, evidence):
        super()._calibrate(evidence)
        self.prior = self.log_prior_

    def _scores(self, evidence):
        return evidence.log_probs - getattr(self, "prior", 0.0)


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        (Relative, "rows_are_decided_one_by_one"),
        (First, "positions_are_equal_after_a_symmetric_calibration"),
        (First, "without_bias_the_logits_decide"),
        (Spoiling, "evidence_is_left_untouched"),
        (Certain, "extreme_evidence_gives_no_nan"),
        (Eager, "the_constructor_only_stores"),
        (Careless, "missing_attention_is_refused"),
        (Forgetful, "saved_is_loaded"),
    ],
)
def test_laws_find_methods_that_break_them(method, broken):
    law = next(law for law in LAWS if law.__name__ == broken)
    with pytest.raises(AssertionError):
        law(method)
