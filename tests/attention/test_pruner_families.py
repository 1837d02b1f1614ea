"""Every pruner on tiny random models of every family: against the plain model, against masking, and against eager attention.

Prompts alone and in padded batches, read, continued by prefixes of answers, and generated from.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import attention_layers, decoder_layers
from lad_eval.attention.interventions import INTERVENTIONS
from lad_eval.attention.pruning.scores import information
from lad_eval.models.inference.continuation import continue_prefixes
from lad_eval.models.random import FAMILIES

NAMES = ("fastv", "pyramiddrop", "sparsevlm", "sparsevlm-plus", "himap", "tokencarve", "random-tokens")
PREFIXES = [(5,), (6, 7), (8, 9, 10)]
NEW_TOKENS = 4
COUNTS = [pytest.param(1, marks=pytest.mark.slow), 3]


def first_layer(lab, model):
    """The first layer to prune before from which on all layers attend: elsewhere no mask does what dropping does."""
    below = min(attention_layers(model))
    return next(n for n in range(below + 1, len(decoder_layers(model))) if lab.all_attend_from(model, n))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_pruners_that_keep_all_tokens_are_the_plain_model(lab, family, count):
    model, inputs, layout = lab.prompts(family, count)
    plain = lab.logits(model, inputs)
    for name in NAMES[1:]:  # FastV's turn is in test_pruning.py
        pruner = INTERVENTIONS[name](keep=1.0, layer=first_layer(lab, model))
        assert torch.equal(lab.under(pruner, model, inputs, layout), plain), name


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_prompts_go_on_as_masked_ones(lab, family, name, count, monkeypatch):
    model, inputs, layout = lab.prompts(family, count)
    kind, scores = INTERVENTIONS[name], []
    ranked = kind._scores

    def noted(self, stage_input, stage):
        scores[-1].append(ranked(self, stage_input, stage)[layout.visual & stage_input.remaining])
        return ranked(self, stage_input, stage)

    monkeypatch.setattr(kind, "_scores", noted)
    results = []
    for how in ("drop", "mask"):
        scores.append([])
        pruner = kind(keep=0.4, layer=first_layer(lab, model), how=how)
        with torch.no_grad(), pruner.applied(model, layout):
            output = model(**inputs, use_cache=True)
            masks = inputs["attention_mask"]
            after = continue_prefixes(model, output.past_key_values, masks, PREFIXES[:count], [range(20)] * count)
            written = model.generate(**inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
        results.append((output.logits[:, -1], torch.stack(after), written))
    (first, after, written), (masked, masked_after, masked_written) = results
    torch.testing.assert_close(first, masked, atol=1e-5, rtol=0)
    torch.testing.assert_close(after, masked_after, atol=1e-5, rtol=0)
    assert torch.equal(written, masked_written)
    for dropped, hidden in zip(*scores, strict=True):
        torch.testing.assert_close(dropped, hidden, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_loop_over_eager_attention(lab, family, count):
    model, inputs, layout = lab.prompts(family, count)
    eager, _, _ = lab.prompts(family, count, "eager")
    weights, _ = lab.weights_of(eager, inputs)
    layer = first_layer(lab, model)
    stage_input = lab.stage_input_before(model, inputs, layout, layer)
    below = weights[max(index for index in attention_layers(model) if index < layer)]
    computed = {
        "fastv": INTERVENTIONS["fastv"]()._attention(stage_input, 0),
        "pyramiddrop": INTERVENTIONS["pyramiddrop"]()._attention(stage_input, 0),
        "sparsevlm": INTERVENTIONS["sparsevlm"]()._attention(stage_input, 0),
        "sparsevlm-plus": INTERVENTIONS["sparsevlm-plus"]()._attention(stage_input, 0),
        "himap": INTERVENTIONS["himap"]()._attention(stage_input, 0),
        "himap, second stage": INTERVENTIONS["himap"]()._attention(stage_input, 1),
    }
    groups = torch.where(layout.visual, 0, -1)
    contributions = information(stage_input.hidden, groups)
    ranks = INTERVENTIONS["tokencarve"]()._scores(stage_input, 0)
    for b in range(count):
        visual = layout.visual[b].nonzero()[:, 0].tolist()
        text = [t for t in range(visual[-1] + 1, layout.length) if layout.attended[b, t]]
        raters = slow_raters(stage_input.embeddings[b], visual, text)
        expected = {
            "fastv": slow_sum(below[b], [layout.length - 1]),
            "pyramiddrop": slow_sum(weights[layer][b], [int(layout.instruction_end[b])]),
            "sparsevlm": slow_sum(below[b], raters) / len(raters),
            "sparsevlm-plus": slow_sparsevlm_plus(stage_input, below[b], raters, visual, b),
            "himap": slow_sum(below[b], text),
            "himap, second stage": slow_sum(below[b], visual),
        }
        for name, scores in expected.items():
            np.testing.assert_allclose(computed[name][b, visual], scores[visual], atol=1e-5, err_msg=name)
        left, singular, _ = np.linalg.svd(stage_input.hidden[b, visual].double().numpy(), full_matrices=False)
        np.testing.assert_allclose(contributions[b, visual], np.abs(left * singular).sum(axis=1), rtol=1e-4)
        places = [slow_ranks(scores[b, visual].tolist()) for scores in (computed["fastv"], contributions)]
        assert ranks[b, visual].tolist() == [(first + second) / 2 for first, second in zip(*places, strict=True)]


def slow_sum(weights, rows):
    """Float[T]: the mean over the heads and the sum over the rows of Float[H, T, T]."""
    total = np.zeros(weights.shape[2])
    for head in weights.double().numpy():
        for row in rows:
            total += head[row] / len(weights)
    return total


def slow_sparsevlm_plus(stage_input, weights, raters, visual, b):
    """Float[T]: attention over the product of turned ones, the mean of the raters and of the half of the heads that has most."""
    width = stage_input.attention.query.shape[3]
    ones = turned_ones(stage_input.rotary, width, b)
    sums = np.zeros((len(weights), ones.shape[0]))
    for row in raters:
        corrected = np.maximum(ones @ ones[row] / width**0.5, 0.01 * width**0.5)
        sums += weights[:, row].double().numpy() / corrected / len(raters)
    order = sorted(range(len(sums)), key=lambda head: -sums[head, visual].sum())
    return sums[order[: len(sums) // 2]].mean(axis=0)


def turned_ones(rotary, width, b):
    """Float[T, width]: a vector of ones at every position, turned."""
    if isinstance(rotary, torch.Tensor):  # pairs as complex numbers
        pairs = (torch.complex(*[torch.ones(rotary.shape[2])] * 2) * rotary[min(b, len(rotary) - 1)]).numpy()
        return np.concatenate([pairs.real, pairs.imag], axis=1)
    cos, sin = (part[min(b, len(part) - 1)].double().numpy() for part in rotary)
    half = cos.shape[1] // 2
    interleaved = np.array_equal(cos[:, ::2], cos[:, 1::2])  # pairs of entries next to each other, or half a table away
    turned = cos + sin * (np.tile([-1.0, 1.0], half) if interleaved else np.repeat([-1.0, 1.0], half))
    return np.concatenate([turned, np.ones((len(turned), width - 2 * half))], axis=1)


def slow_raters(embeddings, visual, text):
    """The text tokens j of r_j > mean(r), r_j being the mean over the visual tokens v of softmax_j(v . t_j)."""
    embeddings, nearness = embeddings.double().numpy(), np.zeros(len(text))
    for v in visual:
        products = np.asarray([embeddings[v] @ embeddings[t] for t in text])
        exponentials = np.exp(products - products.max())
        nearness += exponentials / exponentials.sum() / len(visual)
    return [t for t, value in zip(text, nearness, strict=True) if value > nearness.mean()]


def slow_ranks(scores):
    """n for the highest of n scores, 1 for the lowest; of equals more for the first."""
    order = sorted(range(len(scores)), key=lambda t: (-scores[t], t))
    return [len(scores) - order.index(t) for t in range(len(scores))]
