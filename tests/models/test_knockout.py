"""Attention knockout: what text no longer sees, it does not depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import attention_layers, decoder_layers, observe_attention
from lad_eval.attention.interventions import join_interventions, parse_intervention
from lad_eval.attention.interventions.knockout import Knockout, hidden_tokens
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.base import RunsPrompts
from lad_eval.models.random import FAMILIES
from tests.models.requests import Noise, make_requests


def with_other_pictures(requests):
    return [
        replace(request, images=tuple(Noise(5000 + i, image.size) for i, image in enumerate(request.images)))
        for request in requests
    ]


def all_attend(model):
    return len(attention_layers(model)) == len(decoder_layers(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_sees_no_image_does_not_depend_on_it(vlm, family):
    model = vlm(family, batch_size=3)
    requests = make_requests(12, 3, size=(28, 28))  # "1" begins "10", so that prefixes are continued
    others = with_other_pictures(requests)
    plain = model.evidence(requests)
    with model.under(Knockout()):
        one, other = model.evidence(requests), model.evidence(others)
        replies = [model.generate(wanted, max_new_tokens=6) for wanted in (requests, others)]
    assert one.forward_passes.tolist() == [2] * 3
    assert np.abs(one.log_probs - plain.log_probs).max() > 1e-3 or family == "molmo2"
    if all_attend(model.model):
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
        assert replies[0] == replies[1]
    if family in ("qwen2.5-vl", "llava-1.5"):  # others have tile marks inside an image's span, which text goes on to see
        assert one.attention.max() < 1e-6
        assert plain.attention.max() > 1e-3


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "llava-1.5"])
@pytest.mark.parametrize("first", ["knockout", "pruner"])
def test_what_text_does_not_see_may_as_well_be_pruned(vlm, family, first):
    model = vlm(family, batch_size=3)
    requests = make_requests(12, 3, size=(28, 28))
    parts = [Knockout(), RandomTokens(keep=0.3, layer=1)]
    joined = join_interventions(parts if first == "knockout" else parts[::-1])
    with model.under(Knockout()):
        alone = model.evidence(requests), model.generate(requests, max_new_tokens=6)
    with model.under(joined):
        both = model.evidence(requests), model.generate(requests, max_new_tokens=6)
    np.testing.assert_allclose(both[0].log_probs, alone[0].log_probs, atol=1e-5)
    assert both[1] == alone[1]


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "llava-onevision"])
def test_a_knockout_does_not_depend_on_the_batch(vlm, family):
    requests = make_requests(12, 3, size=(28, 28))
    results = []
    for size in (1, 3):
        model = vlm(family, batch_size=size)
        with model.under(Knockout(tokens="all-but-last", layers="1-2")):
            results.append((model.evidence(requests).log_probs, model.generate(requests, max_new_tokens=6)))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=5e-5)
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("tokens", ["image", "all-but-last"])
def test_the_blocked_entries_are_those_of_a_loop(vlm, tokens):
    model = vlm("qwen2.5-vl")
    assert isinstance(model, RunsPrompts)
    knockout = Knockout(tokens=tokens, layers="1")

    def read(layout, run):
        seen = []
        for intervention in (None, knockout):
            masks = {}
            with observe_attention(model.model, lambda call, masks=masks: masks.setdefault(call.layer, additive_mask(call))):
                if intervention is None:
                    run()
                else:
                    with intervention.applied(model.model, layout):
                        run()
            seen.append(masks)
        return layout, seen

    ((layout, (before, after)),) = list(model.read_prompts(make_requests(3, 2, size=(28, 28)), read))
    owner = layout.spans.owner
    lowest = torch.finfo(torch.float32).min / 2
    for layer in before:
        for b in range(2):
            for query in range(layout.length):
                for key in range(query + 1):
                    if not (layout.attended[b, query] and layout.attended[b, key]):
                        continue
                    last = owner[b, key] != (owner[b, key + 1] if key + 1 < layout.length else -1)
                    blocked = owner[b, key] >= 0 and owner[b, query] < 0 and not (tokens == "all-but-last" and last)
                    shown = [masks[layer].expand(2, *masks[layer].shape[1:])[b, 0, query, key] for masks in (before, after)]
                    assert shown[0] > lowest
                    assert (shown[1] < lowest) == (bool(blocked) and layer == 1)
    assert hidden_tokens(layout, "image").sum() - hidden_tokens(layout, "all-but-last").sum() == 2 * 3


def test_layers_are_written_one_way():
    assert Knockout(layers="08-16").label == "knockout(layers=8-16)"
    assert Knockout(layers="3-3") == Knockout(layers="3")
    assert parse_intervention("knockout(tokens=image, layers=8-16)").facts == {
        "name": "knockout", "tokens": "image", "layers": "8-16",
    }  # fmt: skip
    assert parse_intervention("knockout(layers=2)").layers == "2"
    assert parse_intervention("knockout").label == "knockout"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("knockout(layers=first)", "layers of knockout must be all, a layer or a range of layers such as 8-16, not 'first'"),
        ("knockout(layers=5-2)", "layers of knockout must be a range from its lower end to its upper one, not '5-2'"),
        ("knockout(tokens=text)", "tokens of knockout must be 'image' or 'all-but-last', not 'text'"),
        ("knockout(layer=2)", "knockout has no parameter 'layer'. Its parameters are tokens, layers."),
    ],
)
def test_wrong_parameters(text, message):
    with pytest.raises(UserError) as error:
        parse_intervention(text)
    assert message in str(error.value)


def test_layers_that_do_not_exist_are_refused(vlm):
    requests = make_requests(3, 1, size=(28, 28))
    for family, layers, message in [
        ("llava-1.5", "1-3", r"knockout\(layers=1-3\) names decoder layer 3, and Llava\w+ has layers 0 to 2; choose among"),
        ("qwen3.5", "2", r"knockout\(layers=2\) names no layer of Qwen3_5\w+ that attends; those are 1, 3\."),
    ]:
        model = vlm(family)
        with pytest.raises(UserError, match=message), model.under(Knockout(layers=layers)):
            model.evidence(requests)
    model = vlm("qwen3.5")
    assert Knockout(layers="0-2").chosen(model.model) == {1}


def test_nothing_to_hide_is_an_error(vlm):
    model = vlm("llava-1.5")

    def read(layout, run):
        none = replace(layout, spans=replace(layout.spans, owner=torch.full_like(layout.spans.owner, -1)))
        with (
            pytest.raises(UnsupportedModelError, match="knockout changed no attention call"),
            Knockout().applied(model.model, none),
        ):
            run()

    assert list(model.read_prompts(make_requests(3, 1, size=(28, 28)), read)) == [None]
