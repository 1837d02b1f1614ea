import subprocess
import sys
from typing import get_args

import pytest

from lad_eval.attention.interventions import Sofa
from lad_eval.errors import UnknownNameError, UserError
from lad_eval.methods import (
    GROUPS,
    LAD,
    METHOD_SETS,
    METHODS,
    ChainOfThought,
    Condition,
    ParameterError,
    PriDe,
    Vanilla,
    canonical_name,
    describe_method,
    group_of,
    make_method,
    method_names,
    names_of,
    needs_of,
    parse_setting,
    part_names,
    resolve_methods,
    with_stored,
)
from lad_eval.methods.registry import Kind
from lad_eval.registry import RegistryError


def test_names_and_descriptions():
    assert method_names() == (
        "vanilla", "pride", "lad", "lad-paper", "lad-unlabelled", "raw-attention", "attention-sorting",
        "purified-attention", "cc", "capcal", "icr", "icr-masked", "permutation-average",
    )  # fmt: skip
    lines = [describe_method(name) for name in method_names()]
    assert all(line and "\n" not in line for line in lines)
    assert len(set(lines)) == len(lines)


def test_presets_and_overrides():
    paper = make_method("lad-paper", top_k=4)
    assert isinstance(paper, LAD)
    assert paper.get_params() == {
        "top_k": 4, "temperature": 5.0, "layers": "all", "attention_mean": "log",
        "bias_mean": "probability", "mixture": "probability", "span": "image", "attention_prior": "calibration",
    }  # fmt: skip
    assert make_method("lad").get_params() == LAD().get_params() == {
        "top_k": 2, "temperature": 5.0, "layers": "upper", "attention_mean": "arithmetic",
        "bias_mean": "log", "mixture": "log", "span": "delimited", "attention_prior": "calibration",
    }  # fmt: skip


def test_unknown_names():
    with pytest.raises(UnknownNameError, match=r"Unknown method 'prid'\. Did you mean 'pride'"):
        make_method("prid")
    with pytest.raises(ParameterError, match=r"lad has no parameter 'topk'\. Its parameters are top_k, temperature, layers, "):
        make_method("lad", topk=3)
    with pytest.raises(ParameterError, match=r"vanilla has no parameter 'top_k'\. It has no parameters\."):
        make_method("vanilla", top_k=3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lad(top_k=4)", 4),
        ("lad(temperature=2.5)", 2.5),
        ("lad(temperature=3)", 3.0),
        ("lad(layers=all)", "all"),
        ("lad(layers=3-5)", (3, 5)),
        ("lad-paper(mixture=log)", "log"),
        ("pride(prior_mean=arithmetic)", "arithmetic"),
        ("raw-attention(span=image)", "image"),
        ("raw-attention(top_k=all)", "all"),
    ],
)
def test_settings(text, expected):
    name, changes = parse_setting(text)
    [(parameter, value)] = changes.items()
    assert f"{name}({parameter}" == text.split("=")[0]
    assert value == expected
    assert type(value) is type(expected)
    assert make_method(name, **{parameter: value}).get_params()[parameter] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lad.top_k=4", "'lad.top_k=4' is not the form of parameters: write 'lad(top_k=4)'."),
        ("sofa:sigma=0.3+lad", "write 'sofa(sigma=0.3)+lad'."),
        ("sofa:sigma=0.3:every=4", "write 'sofa(sigma=0.3, every=4)'."),
        ("sofa:sigma=0.3+lad.top_k=1", "write 'sofa(sigma=0.3)+lad(top_k=1)'."),
        ("lad", "'lad' sets no parameter: write method(parameter=value), such as lad(top_k=4)."),
        ("sofa(sigma=0.3)+lad", "sets no parameter"),
        ("lad(top_k)", "'lad(top_k)' gives 'top_k' no value: write lad(top_k=value)."),
        ("lad(top_k=)", "gives 'top_k' no value"),
        ("ladd(top_k=4)", "Unknown method 'ladd'. Did you mean"),
        ("lad(k=4)", "lad has no parameter 'k'. Its parameters are top_k"),
        ("lad(top_k=four)", "top_k of lad must be 'all' or a whole number of at least 1, not 'four'."),
        ("lad(top_k=0)", "top_k of lad must be 'all' or a whole number of at least 1, not '0'."),
        ("lad(temperature=-1)", "temperature of lad must be a number above 0, not '-1'."),
        ("lad(temperature=nan)", "must be a number above 0"),
        (
            "lad(layers=5-3)",
            "layers of lad must be 'upper', 'all' or first-last, counted from 0 and inclusive, such as 3-5, not '5-3'.",
        ),
        ("lad(layers=1-2-3)", "layers of lad must be"),
        ("lad(layers=lower)", "layers of lad must be"),
        ("pride(prior_mean=median)", "prior_mean of pride must be 'geometric' or 'arithmetic', not 'median'."),
    ],
)
def test_bad_settings(text, message):
    with pytest.raises(UserError) as caught:
        parse_setting(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"top_k": 2.0}, "top_k of lad must be 'all' or a whole number of at least 1, not 2.0."),
        ({"top_k": True}, "must be 'all' or a whole number"),
        ({"temperature": "5"}, "temperature of lad must be a number above 0, not '5'."),
        ({"layers": (0, 1, 2)}, "layers of lad must be"),
        ({"layers": 3}, "layers of lad must be"),
        ({"mixture": None}, "mixture of lad must be 'log' or 'probability', not None."),
    ],
)
def test_ill_typed_parameters(params, message):
    with pytest.raises(ParameterError) as caught:
        make_method("lad", **params)
    assert message in str(caught.value)


def test_repr_is_the_call():
    assert repr(PriDe()) == "PriDe(prior_mean='geometric')"


def test_listing_needs_neither_torch_nor_scipy():
    heavy = {"torch", "scipy", "pandas", "safetensors"}
    code = f"import sys, lad_eval.methods, lad_eval.metrics; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_broken_package_is_no_matter_of_other_methods(tmp_path, monkeypatch):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lad_eval.methods]\nbad = nowhere_at_all:X\nends = broken_ends:X\n")
    (tmp_path / "broken_ends.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make_method("sofa+lad").condition.label == "sofa"
    assert canonical_name("lad(top_k=1)") == "lad(top_k=1)"
    for name in ("bad", "ends"):
        with pytest.raises(RegistryError, match=f"The method '{name}' of package broken .* cannot be loaded"):
            make_method(name)


def test_every_part_of_a_method_stands_in_one_registry_with_its_kind():
    kinds = {kind: tuple(names_of(kind)) for kind in get_args(Kind)}
    assert kinds == {
        "evidence": method_names(),
        "protocol": ("pride-original", "batch-calibration"),
        "orders": ("average-cyclic", "average-random", "majority"),
        "replies": ("generate", "cot", "self-consistency"),
    }
    assert sorted(name for names in kinds.values() for name in names) == sorted(METHODS)
    for name in METHODS:
        assert canonical_name(name) == name
        assert describe_method(name) == METHODS[name].summary


def test_orders_and_presets_of_another_package_join_like_ours(tmp_path, monkeypatch):
    info = tmp_path / "ordering-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ordering\nVersion: 1.0\n")
    names = ["four = ordering:FOUR", "odd = ordering:ODD", "kindless = ordering:KINDLESS"]
    (info / "entry_points.txt").write_text("\n".join(["[lad_eval.methods]", *names]))
    (tmp_path / "ordering.py").write_text(
        "from lad_eval.methods import LAD, RandomAverage, named\n"
        'FOUR = named(RandomAverage, "Over four orders.", kind="orders", k=4)\n'
        'ODD = named(LAD, kind="orders")\n'
        'KINDLESS = named(LAD, kind="none")\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    method = make_method("lad(top_k=1)+four")
    assert (method.k, method.decision.top_k) == (4, 1)
    assert canonical_name("lad+four(k=5)") == "four(k=5)+lad"
    assert "four" in part_names()
    assert "four" not in method_names()
    with pytest.raises(ParameterError, match="joins four and majority, and a method has one set of orders at most"):
        make_method("four+majority")
    with pytest.raises(ParameterError, match="generate gives no probabilities to average; use majority"):
        make_method("four+generate")
    with pytest.raises(RegistryError, match=r"the orders 'odd' must be a subclass of lad_eval\.methods\.OverOrders"):
        make_method("odd")
    with pytest.raises(RegistryError, match=r"the kind of the method 'kindless' must be 'evidence' or .*, not 'none'"):
        make_method("kindless")


def test_a_class_states_the_condition_it_is_made_for(monkeypatch):
    class Careful(Vanilla):
        """Under a condition of its own."""

        condition = Condition(("instruction",), Sofa())

    for table in ("_entries", "_origins", "_values"):
        monkeypatch.setattr(METHODS, table, dict(getattr(METHODS, table)))
    METHODS.add("careful", Careful, "tests")
    assert make_method("careful").condition == Condition(("instruction",), Sofa())
    assert make_method("careful+instruction+majority").condition == Condition(("instruction",), Sofa())
    pruned = make_method("fastv+careful").condition
    assert pruned.label == "instruction+fastv+sofa"
    assert ChainOfThought().condition == make_method("cot").condition == make_method("majority+cot").condition


def test_rows_of_stored_methods_stand_in_the_order_of_the_tables():
    stored = ["majority", "generate", "sofa+lad", "lad", "gone-package", "pride", "average-cyclic"]
    methods = with_stored(resolve_methods(["permutation-average", "lad(top_k=1)"]), stored)
    assert list(methods) == [
        "pride", "lad", "permutation-average", "average-cyclic", "generate", "lad(top_k=1)", "majority", "sofa+lad",
    ]  # fmt: skip


def test_suggestions_are_near_names_only():
    for written, meant in [
        ("ladd", "lad"),
        ("prid", "pride"),
        ("raw-atention", "raw-attention"),
        ("self-consitency", "self-consistency"),
    ]:
        with pytest.raises(UnknownNameError, match=f"Did you mean .*'{meant}'"):
            make_method(written)
    with pytest.raises(UnknownNameError) as caught:
        make_method("majestic")
    assert "generate" not in str(caught.value)


def test_a_named_set_stands_for_its_members_group_by_group():
    methods = resolve_methods(["field", "raw-attention", "vanilla"])
    assert list(methods)[:3] == ["vanilla", "instruction", "pride"]
    assert list(methods) == [*METHOD_SETS["field"], "raw-attention"]
    groups = [group_of(methods[name]) for name in METHOD_SETS["field"]]
    assert groups == sorted(groups, key=GROUPS.index)
    assert set(groups) == {"logits", "attention", "several passes"}
    assert {name: needs_of(methods[name]) for name in METHOD_SETS["field"] if needs_of(methods[name])} == {
        "pride": ("calibration",),
        "cc": ("probes",),
        "capcal": ("probes",),
        "icr": ("probes",),
        "purified-attention": ("calibration",),
        "lad": ("labels",),
        "permutation-average": ("N passes",),
    }
    assert needs_of(make_method("average-random+lad", k=4)) == ("labels", "4 passes")
    assert needs_of(make_method("lad-unlabelled")) == ("calibration",)
    for written in ("field+sofa", "field(top_k=1)"):
        with pytest.raises(UserError, match=r"^field stands for several methods; it takes no parameters"):
            resolve_methods([written])
    with pytest.raises(UnknownNameError, match="Did you mean 'field'"):
        resolve_methods(["feild"])


@pytest.mark.parametrize("name", ["tied", "tied+lad", "tied+pride", "tied+generate", "average-cyclic+tied", "sofa+tied+cc"])
def test_no_place_is_read_from_a_pass_that_answers_the_same_one_in_every_order(name):
    for other in ("tied", "pine"):
        with pytest.raises(ParameterError, match=f"under {other} the same place is answered in every order; join what reads att"):
            make_method(name.replace("tied", other))


@pytest.mark.parametrize("name", ["tied+attention-sorting", "tied+icr", "sofa+tied+purified-attention", "pine+attention-sorting"])
def test_attention_may_be_read_from_it(name):
    assert make_method(name).needs == {"attention"}


@pytest.mark.parametrize("view", ["labelled", "labelled-places", "labelled-names"])
def test_an_image_with_a_label_may_be_named_under_it(view):
    assert make_method(f"tied+{view}").condition.label == f"{view}+tied"
    assert make_method(f"{view}+tied+lad").needs == {"attention", "log_probs"}
    assert make_method(f"{view}+tied+generate").needs == {"replies"}
    with pytest.raises(ParameterError, match=r"or label the images: labelled-places\+tied\.$"):
        make_method("instruction+tied+lad")
