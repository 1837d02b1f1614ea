import subprocess
import sys

import pytest

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.methods import LAD, ParameterError, PriDe, canonical_name, describe_method, make_method, method_names, parse_setting
from lad_eval.registry import RegistryError


def test_names_and_descriptions():
    assert method_names() == (
        "vanilla", "pride", "lad", "lad-paper", "lad-unlabelled", "raw-attention", "purified-attention", "permutation-average",
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
        ("lad(top_k)", "must give each parameter once: lad(parameter=value"),
        ("lad(top_k=)", "must give each parameter once"),
        ("ladd(top_k=4)", "Unknown method 'ladd'. Did you mean"),
        ("lad(k=4)", "lad has no parameter 'k'. Its parameters are top_k"),
        ("lad(top_k=four)", "top_k of lad must be a whole number of at least 1, not 'four'."),
        ("lad(top_k=0)", "top_k of lad must be a whole number of at least 1, not '0'."),
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
        ({"top_k": 2.0}, "top_k of lad must be a whole number of at least 1, not 2.0."),
        ({"top_k": True}, "must be a whole number"),
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
