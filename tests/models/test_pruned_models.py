"""Evidence and replies of pruned models: prefixes of long identifiers and generated tokens go on from shorter caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lad_eval.attention.hooks import attention_layers, decoder_layers
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.random import FAMILIES
from tests.models.requests import make_requests


def masked_layers(model):
    """The first and the last layer before which tokens can be masked as well as dropped."""
    attending, total = attention_layers(model), len(decoder_layers(model))
    usable = [layer for layer in range(min(attending) + 1, total) if all(later in attending for later in range(layer, total))]
    return sorted({usable[0], usable[-1]})


@pytest.mark.parametrize("family", FAMILIES)
def test_what_continues_a_pruned_prompt_is_the_same_whether_dropped_or_masked(vlm, family):
    requests = make_requests(12, 3, size=(28, 28))  # "1" begins "10", so that prefixes are continued
    model = vlm(family, batch_size=3)
    plain = model.evidence(requests)
    for layer in masked_layers(model.model):
        evidence, replies = [], []
        for how in ("drop", "mask"):
            with model.under(FastV(keep=0.3, layer=layer, how=how)):
                evidence.append(model.evidence(requests))
                replies.append(model.generate(requests, max_new_tokens=8))
        assert evidence[0].forward_passes.tolist() == [2] * 3
        np.testing.assert_allclose(evidence[0].log_probs, evidence[1].log_probs, atol=1e-5)
        np.testing.assert_allclose(evidence[0].attention, evidence[1].attention, atol=1e-5)
        assert replies[0] == replies[1]
        with model.under(FastV(keep=1.0, layer=layer)):
            # Gemma 4 runs its upper layers for the last token alone, and under a pruner for all: other sums.
            atol = 1e-5 if family == "gemma4" else 0
            np.testing.assert_allclose(model.evidence(requests).log_probs, plain.log_probs, rtol=0, atol=atol)
        if layer == masked_layers(model.model)[0] and family != "molmo2":
            assert np.abs(evidence[0].log_probs - plain.log_probs).max() > 1e-2


@pytest.mark.parametrize("family", ["llava-1.5", "gemma3", "llama4", "qwen3.5", "lfm2-vl"])
@pytest.mark.parametrize("pruner", [FastV(keep=0.3), RandomTokens(keep=0.3)])
def test_a_pruned_prompt_does_not_depend_on_its_batch(vlm, family, pruner):
    requests = make_requests(12, 3, size=(28, 28))
    results = []
    for size in (1, 3):
        model = vlm(family, batch_size=size)
        with model.under(pruner):
            results.append((model.evidence(requests).log_probs, model.generate(requests, max_new_tokens=8)))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=5e-5)
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3"])
def test_many_prefixes_go_on_from_the_same_pruned_prompt(vlm, family, monkeypatch):
    requests = make_requests(25, 2, "I..", size=(28, 28))
    model = vlm(family, batch_size=2)
    with model.under(FastV(keep=0.3, layer=1)):
        whole = model.evidence(requests)
        monkeypatch.setattr("lad_eval.models.inference.continuation._ROWS", 5)
        parts = model.evidence(requests)
    np.testing.assert_allclose(parts.log_probs, whole.log_probs, atol=1e-5)


def test_evidence_of_two_numbers_that_are_equal_does_not_mix(vlm):
    model = vlm("llava-1.5")
    requests = make_requests(3, 1)
    results, facts = [], []
    for keep in (1, 1.0):
        with model.under(FastV(keep=keep)):
            results.append(model.evidence(requests).log_probs)
            facts.append(model.fingerprint["intervention"])
    assert facts[0] != facts[1]
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_what_cannot_be_pruned_is_said_in_one_line(vlm):
    model = vlm("qwen3.5", batch_size=2)
    requests = make_requests(3, 2)
    kind = "Qwen3_5ForConditionalGeneration"
    for pruner, error, text in (
        (
            FastV(layer=4),
            UserError,
            f"fastv cannot prune before layer 4, as {kind} has decoder layers 0 to 3; choose a layer of 2 to 3.",
        ),
        (
            FastV(layer=1),
            UserError,
            f"fastv cannot prune before layer 1, as {kind} has no attention below layer 1; choose a layer of 2 to 3.",
        ),
        (
            FastV(how="mask"),
            UnsupportedModelError,
            f"fastv: no mask hides tokens from decoder layer 2 of {kind}, which has no attention; use how=drop.",
        ),
    ):
        with model.under(pruner), pytest.raises(error) as fault:
            model.evidence(requests)
        assert str(fault.value) == text
    model = vlm("llava-1.5", batch_size=2)
    visual = int(model._prepare(requests).layout.visual.sum(dim=1)[0])
    for per, whole, count in (("prompt", "a prompt", visual), ("image", "an image", visual // 3)):
        with model.under(FastV(keep=count + 1, keep_per=per)), pytest.raises(UserError) as fault:
            model.evidence(requests)
        assert str(fault.value).startswith(f"fastv(keep={count + 1}")
        assert str(fault.value).endswith(
            f"cannot keep {count + 1} visual tokens, as {whole} has {count}; give a smaller keep, or a share such as keep=0.25."
        )


def test_an_order_of_the_same_images_is_a_request_of_its_own(vlm):
    model = vlm("llava-1.5")
    request = make_requests(3, 1)[0]
    other = replace(request, images=request.images[::-1])
    keys = model._prepare([request, other]).layout.keys
    assert keys == (request.key, other.key)
    assert keys[0] != keys[1]
