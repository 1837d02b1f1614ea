"""Parameters are declared once, by the constructor's annotations, and texts are read by these."""

from typing import Annotated, Literal

import pytest

from lad_eval.attention.interventions.parameters import parse_parameter as parse_as
from lad_eval.attention.interventions.sofa import Pairs
from lad_eval.methods import LAD, METHODS, PermutationAverage, UnlabelledLAD, Vanilla
from lad_eval.methods.parameters import Choice, Count, Flag, ParameterError, Share, parse_value


class Declares(Vanilla):
    """Shows each way of declaring a parameter."""

    def __init__(
        self,
        *,
        centred: bool = True,
        layer: Annotated[int, Count(0, 3)] = 1,
        kind: Literal["near", "far"] = "near",
    ) -> None:
        self.centred = centred
        self.layer = layer
        self.kind = kind


class Narrows(Declares):
    """Keeps what it does not annotate."""

    def __init__(self, *, layer: Annotated[float, Share()] = 0.5, kind="far") -> None:
        super().__init__(kind=kind)
        self.layer = layer


def test_the_constructor_declares_them():
    assert Declares.parameters == {"centred": Flag(), "layer": Count(0, 3), "kind": Choice(("near", "far"))}
    assert Narrows.parameters == {"layer": Share(), "kind": Choice(("near", "far"))}
    assert PermutationAverage.parameters == Vanilla.parameters == {}
    assert UnlabelledLAD.parameters == LAD.parameters
    assert list(LAD.parameters)[:3] == ["top_k", "temperature", "layers"]


def test_no_method_of_the_registry_states_them_twice():
    assert [name for name, entry in METHODS.items() if "parameters" in getattr(entry.method, "__annotations__", {})] == []


def test_an_argument_that_says_nothing_is_refused():
    with pytest.raises(TypeError, match=r"size of .*Silent.__init__ must be annotated with its allowed values"):

        class Silent(Vanilla):
            def __init__(self, *, size: int = 1) -> None:
                self.size = size


@pytest.mark.parametrize(("text", "value"), [("false", False), ("False", False), ("true", True), (" TRUE ", True)])
def test_false_is_false(text, value):
    assert parse_value("declares", "centred", Declares.parameters["centred"], text) is value
    assert parse_as(bool, text.strip()) is value


@pytest.mark.parametrize("text", ["", "0", "no", "falsch"])
def test_other_words_are_no_truth_value(text):
    with pytest.raises(ParameterError, match="centred of declares must be true or false, not"):
        parse_value("declares", "centred", Declares.parameters["centred"], text)
    with pytest.raises(ValueError):
        parse_as(bool, text)


def test_a_flag_takes_no_number():
    with pytest.raises(ParameterError, match="must be true or false, not 1"):
        Declares(centred=1).set_params(centred=1).check()


def test_an_intervention_is_read_by_its_annotations():
    assert (parse_as(int, "4"), parse_as(float, "0.3"), parse_as(Pairs, "all")) == (4, 0.3, "all")
