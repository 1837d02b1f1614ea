"""The table of families in docs/add-a-model.md says what is so."""

import inspect
import re
from pathlib import Path

import pytest
from packaging.version import Version

from lad_eval.attention.hooks import attention_layers, decoder_layers
from lad_eval.attention.interventions import Sofa
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.random import FAMILIES, load_random
from lad_eval.models.random.build import _FAMILIES
from lad_eval.models.releases import repair
from tests.models.requests import make_requests

ROOT = Path(__file__).resolve().parents[2]


def documented():
    text = (ROOT / "docs" / "add-a-model.md").read_text(encoding="utf-8")
    table = re.search(r"^\| family \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M).group(1)
    rows = [[cell.strip().strip("`") for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def oldest_supported():
    return re.search(r'"transformers>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")).group(1)


def test_every_family_has_a_row_with_its_architecture_and_release():
    rows = documented()
    assert tuple(rows) == FAMILIES
    for name, (architecture, since, *_) in rows.items():
        assert architecture == _FAMILIES[name].model_type
        assert since == (_FAMILIES[name].since or oldest_supported())


@pytest.mark.parametrize("family", FAMILIES)
def test_what_its_row_says_holds(vlm, family):
    _, _, attending, soft, kept = documented()[family]
    model = vlm(family, batch_size=2)
    requests = make_requests(3, 2)
    plain = model.evidence(requests)
    layers = attention_layers(model.model)
    assert attending == ("all" if len(layers) == len(decoder_layers(model.model)) else "some")
    assert plain.n_layers == len(layers)
    if "mm_encoder_outputs" in inspect.signature(type(model.model).forward).parameters:
        assert kept == ("yes" if model._features._held else "no")
    with model.under(Sofa()):
        if soft == "yes":
            changed = model.evidence(requests)
            assert abs(changed.log_probs - plain.log_probs).max() > 1e-6
            told = changed.fingerprint["intervention"]
            assert told.get("attending_layers") == (sorted(layers) if attending == "some" else None)
        else:
            with pytest.raises(UnsupportedModelError, match="sofa changed no attention call"):
                model.evidence(requests)


@pytest.mark.parametrize("family", [name for name in FAMILIES if _FAMILIES[name].since])
def test_a_release_without_the_family_is_told_in_one_line(family, monkeypatch):
    monkeypatch.setattr("lad_eval.models.releases.version", lambda package: "5.17.0")
    since = _FAMILIES[family].since
    assert Version(oldest_supported()) < Version(since)
    with pytest.raises(
        UnsupportedModelError, match=rf"^random:{re.escape(family)} needs transformers {since} or later.*5\.17\.0"
    ):
        load_random(family)


def test_a_checkpoint_that_its_release_gets_wrong_is_refused(tiny, monkeypatch):
    model, _ = tiny("minicpm-v-4.6")
    monkeypatch.setattr("lad_eval.models.releases.version", lambda package: "5.18.0")
    with pytest.raises(
        UnsupportedModelError, match=r"minicpmv4_6 needs transformers 5\.19 or later, as earlier ones mix up images"
    ):
        repair(model)


def test_a_model_is_repaired_once(tiny):
    model, _ = tiny("llama4")
    hooks = dict(model.language_model._forward_hooks)
    repair(model)
    assert model.language_model._forward_hooks == hooks
    assert len(hooks) == 1
    other, _ = tiny("llava-1.5")
    repair(other)
    assert not other.model.language_model._forward_hooks


def test_layers_below_a_decoder_that_is_a_causal_language_model(tiny):
    model, _ = tiny("llama4")
    assert decoder_layers(model) is model.language_model.model.layers
    assert sorted(attention_layers(model)) == [0, 1, 2]
