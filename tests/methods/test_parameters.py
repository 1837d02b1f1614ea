"""Parameters are declared once, by the constructor's annotations, and texts are read by these."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Optional

import pytest

from lad_eval.attention.interventions import INTERVENTIONS, Intervention
from lad_eval.attention.interventions.sofa import Pairs, Sofa
from lad_eval.cli.main import invoke
from lad_eval.methods import LAD, METHODS, PermutationAverage, UnlabelledLAD, Vanilla
from lad_eval.parameters import Choice, Count, Flag, ParameterError, Share, fields_of, parameter_of, parse_value
from lad_eval.registry import RegistryError


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
            def __init__(self, *, size=1) -> None:
                self.size = size

    with pytest.raises(TypeError, match=r"sizes of .* such as Annotated\[int, Count\(\)\], not with list\[int\]$"):

        class Several(Vanilla):
            def __init__(self, *, sizes: list[int] = ()) -> None:
                self.sizes = sizes


@pytest.mark.parametrize(("text", "value"), [("false", False), ("False", False), ("true", True), (" TRUE ", True)])
def test_false_is_false(text, value):
    assert parse_value("declares", "centred", Declares.parameters["centred"], text) is value


@pytest.mark.parametrize("text", ["", "0", "no", "falsch"])
def test_other_words_are_no_truth_value(text):
    with pytest.raises(ParameterError, match="centred of declares must be true or false, not"):
        parse_value("declares", "centred", Declares.parameters["centred"], text)


def test_a_flag_takes_no_number():
    with pytest.raises(ParameterError, match="must be true or false, not 1"):
        Declares(centred=1).set_params(centred=1).check()


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (bool, "false", False),
        (bool, "True", True),
        (int, "4", 4),
        (int, "-4", -4),
        (float, "0.25", 0.25),
        (float, "4", 4.0),
        (int | float, "128", 128),
        (float | int, "1", 1),
        (int | float, "1.0", 1.0),
        (str, "128", "128"),
        (int | None, "none", None),
        (Optional[float], "0.5", 0.5),  # noqa: UP045 - the older spelling counts, too
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2] | str, "2", 2),
        (Annotated[int, Count(2)] | None, "2", 2),
        (Annotated[int, "a note of others"], "2", 2),
        (Pairs, "all", "all"),
    ],
)
def test_texts_are_read_by_the_annotation(annotation, text, value):
    found = parse_value("x", "y", parameter_of(annotation), text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "says"),
    [
        (bool, "0", "true or false"),
        (int, "0.25", "a whole number"),
        (float, "nan", "a finite number"),
        (float, "inf", "a finite number"),
        (int | float, "many", "a whole number or a finite number"),
        (int | float, "-inf", "a whole number or a finite number"),
        (Literal["a", "b"], "c", "'a' or 'b'"),
        (int | None, "x", "none or a whole number"),
        (Annotated[int, Count(2)] | None, "1", "none or a whole number of at least 2"),
    ],
)
def test_texts_that_write_no_value_are_one_line(annotation, text, says):
    with pytest.raises(ParameterError) as caught:
        parse_value("x", "y", parameter_of(annotation), text)
    assert str(caught.value) == f"y of x must be {says}, not {text!r}."


@pytest.mark.parametrize("annotation", [list[int], dict, tuple[int, int], int | list[int], "int", None])
def test_an_annotation_that_is_not_known_says_nothing(annotation):
    assert parameter_of(annotation) is None


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
@pytest.mark.usefixtures("example")
def test_a_number_that_is_not_finite_is_one_line(capsys, text):
    words = ["run", "--model", "random:llava-1.5", "--tasks", "scenes_random_n2", "--limit", "1", "--methods"]
    for name in ("evened", "median-prior"):
        assert invoke([*words, f"{name}(strength={text})"]) == 2
        error = capsys.readouterr().err
        assert f"strength of {name} must be a " in error
        assert error.count("\n") == 1


def test_parameters_of_interventions_are_stated_by_their_fields():
    assert fields_of(Sofa) == {"sigma": Share(), "every": Count(), "pairs": Choice(("between", "all"))}
    assert [name for name in INTERVENTIONS.built_in if not fields_of(INTERVENTIONS[name])] == ["truncated", "tied", "pine"]


def test_a_class_of_others_with_an_annotation_that_is_not_known_is_one_line():
    @dataclass(frozen=True)
    class Listed(Intervention):
        """Takes a list."""

        name: ClassVar[str] = "listed"
        sizes: list[int] = ()

        def _attached(self, model, layout, acted):
            raise AssertionError

    with pytest.raises(RegistryError) as caught:
        INTERVENTIONS.add("listed", Listed, "their.py:Listed")
    says = "sizes of .*Listed must be annotated with its allowed values, such as Annotated\\[int, Count\\(\\)\\], not with list"
    assert re.match(f"their.py:Listed: {says}", str(caught.value))
    assert "\n" not in str(caught.value)
