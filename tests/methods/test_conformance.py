import pytest

from lad_eval.methods import LAD, METHODS, PriDe, PurifiedAttention, RawAttention, make_method
from lad_eval.methods.conformance import LAWS

VARIANTS = {name: (lambda name=name: make_method(name)) for name in METHODS} | {
    "pride-arithmetic": lambda: PriDe(prior_mean="arithmetic"),
    "lad-mixed": lambda: LAD(top_k=3, temperature=2, layers=(1, 4), bias_mean="probability", span="image"),
    "lad-mixed-too": lambda: LAD(top_k=1, layers="all", attention_mean="log", mixture="probability"),
    "raw-image": lambda: RawAttention(layers=(2, 3), span="image"),
    "purified-log": lambda: PurifiedAttention(attention_mean="log", layers="all", top_k=4),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_method_keeps_the_law(name, law):
    law(VARIANTS[name])
