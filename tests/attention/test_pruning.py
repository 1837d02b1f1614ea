"""Visual tokens that leave the decoder, against models that mask them by hand, on tiny random models of every family."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lad_eval.attention.hooks import (
    around_attention,
    attending_layers,
    attention_layers,
    decoder_layers,
    observe_attention,
)
from lad_eval.attention.interventions import Sofa, join_interventions
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.pruner import Pruner
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.attention.recorder import last_row, record_last_row
from lad_eval.models.random import FAMILIES


@dataclass(frozen=True)
class TwoStages(Pruner):
    """Half of the tokens leave before a layer and half of the others before the next, by what those layers are about to see."""

    name: ClassVar[str] = "two-stages"
    seen: ClassVar[list[torch.Tensor]] = []

    def _layers(self, depth):
        return (self.layer, self.layer + 1)

    def _shares(self, mean):
        return [mean, mean**2]

    def _scores(self, stage_input, stage):
        call = stage_input.coming()
        row = last_row(call).mean(dim=1)
        self.seen.append(row)
        if call.positions is None:
            return row
        full = torch.zeros(stage_input.remaining.shape)
        for b, positions in enumerate(call.positions):
            full[b, positions[positions >= 0]] = row[b, positions >= 0]
        return full


def layers_of(model):
    """Layers to prune before: the first that can be, and the last."""
    return sorted({min(attention_layers(model)) + 1, len(decoder_layers(model)) - 1})


def slow_choice(weights, layout, share):
    """The visual tokens that stay by a loop over them, from eager attention's weights Float[batch, H, T, T]."""
    keep = layout.attended.clone()
    for b, owner in enumerate(layout.spans.owner.tolist()):
        visual = [t for t, image in enumerate(owner) if image >= 0]
        scores = {t: sum(float(head[-1, t]) for head in weights[b]) / len(weights[b]) for t in visual}
        ranked = sorted(visual, key=lambda t: (-scores[t], t))
        for t in ranked[int(share * len(visual)) :]:
            keep[b, t] = False
    return keep


@contextmanager
def masked_by_hand(model, keep, before):
    """Eager attention that sees the keys of `keep`, Bool[batch, T], alone in the layers from `before` on."""

    def around(call, run):
        if call.layer < before:
            return run(call.query, call.mask)
        mask = call.mask
        if mask is None:
            mask = torch.zeros(1, 1, call.query.shape[2], call.key.shape[2])
        mask = mask.expand(len(keep), *mask.shape[1:]).clone()
        mask[(~keep)[:, None, None].expand(-1, mask.shape[1], mask.shape[2], -1)] = torch.finfo(mask.dtype).min
        return run(call.query, mask)

    with around_attention(model, around):
        yield


def positions_seen(lab, model, inputs, layout, pruner):
    """By layer, what every attention call is told of the places of its keys."""
    seen = {}
    with pruner.applied(model, layout), observe_attention(model, lambda call: seen.update({call.layer: call.positions})):
        lab.logits(model, inputs)
    return seen


def places(positions, shape):
    """Bool[batch, T] of the positions that are not -1."""
    keep = torch.zeros(shape, dtype=torch.bool)
    for b, row in enumerate(positions):
        keep[b, row[row >= 0]] = True
    return keep


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_keeps_all_tokens_is_the_plain_one(lab, family, count):
    model, inputs, layout = lab.prompts(family, count)
    plain = lab.logits(model, inputs)
    for layer in layers_of(model):
        for how in ("drop", "mask") if lab.all_attend_from(model, layer) else ("drop",):
            assert torch.equal(lab.under(FastV(keep=1.0, layer=layer, how=how), model, inputs, layout), plain)
    if count == 1:
        every = int(layout.visual.sum())
        assert torch.equal(lab.under(FastV(keep=every, layer=layers_of(model)[0]), model, inputs, layout), plain)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_is_masking_by_hand_the_tokens_of_a_loop(lab, family, count):
    model, inputs, layout = lab.prompts(family, count)
    eager, _, _ = lab.prompts(family, count, "eager")
    weights, plain = lab.weights_of(eager, inputs)
    for layer in layers_of(model):
        below = max(index for index in attention_layers(model) if index < layer)
        keep = slow_choice(weights[below], layout, 0.4)
        assert layout.visual.any()
        seen = positions_seen(lab, model, inputs, layout, FastV(keep=0.4, layer=layer))
        for index in attending_layers(model):
            if index < layer:
                assert seen[index] is None
            else:
                assert torch.equal(places(seen[index], keep.shape), keep)
        ours = lab.under(FastV(keep=0.4, layer=layer), model, inputs, layout)
        theirs = lab.under(FastV(keep=0.4, layer=layer), eager, inputs, layout)
        # Eager attention and SDPA differ by more than that in the plain model.
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        if lab.all_attend_from(model, layer):
            with masked_by_hand(eager, keep, layer):
                reference = lab.logits(eager, inputs)
            torch.testing.assert_close(theirs, reference, atol=1e-5, rtol=0)
            torch.testing.assert_close(
                lab.under(FastV(keep=0.4, layer=layer, how="mask"), model, inputs, layout), ours, atol=1e-5, rtol=0
            )
            if layer == layers_of(model)[0]:
                assert (reference - plain).abs().max() > 1e-4, "a choice that changes nothing would prove little"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_dropped_does_not_depend_on_the_batch(lab, family):
    model, inputs, layout = lab.prompts(family)
    layer = layers_of(model)[0]
    together = lab.under(FastV(keep=0.4, layer=layer), model, inputs, layout)
    alone, inputs, layout = lab.prompts(family, 1)
    torch.testing.assert_close(lab.under(FastV(keep=0.4, layer=layer), alone, inputs, layout), together[:1], atol=5e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_stages_by_the_coming_layers_attention(lab, family):
    model, inputs, layout = lab.prompts(family)
    candidates = [i for i in attending_layers(model) if i > min(attending_layers(model)) and i + 1 in attention_layers(model)]
    if not candidates:
        pytest.skip("no two attending layers stand together above the first")
    layer = candidates[0]
    weights, _ = lab.weights_of(lab.prompts(family, 3, "eager")[0], inputs)
    results = {}
    for how in ("drop", "mask"):
        TwoStages.seen.clear()
        results[how] = lab.under(TwoStages(keep=0.5, layer=layer, how=how), model, inputs, layout)
        first, _ = TwoStages.seen
        torch.testing.assert_close(first[:, : layout.length], weights[layer].mean(dim=1)[:, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(results["drop"], results["mask"], atol=1e-5, rtol=0)
    seen = positions_seen(lab, model, inputs, layout, TwoStages(keep=0.5, layer=layer))
    counts = [[int((row >= 0).sum()) for row in seen[index]] for index in (layer, layer + 1)]
    visual, text = layout.visual.sum(dim=1), (layout.attended & ~layout.visual).sum(dim=1)
    assert counts == [(text + visual // 2).tolist(), (text + visual // 4).tolist()]


def test_a_coming_layers_call_is_seen_by_no_other_observer_and_leaves_no_keys(lab):
    model, inputs, layout = lab.prompts("llava-1.5")
    pruned, recording = TwoStages(keep=0.5, layer=1).applied(model, layout), record_last_row(model, layout.spans)
    with pruned, recording as recorder, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    recorder.attention()
    text = layout.attended.sum(dim=1) - layout.visual.sum(dim=1)
    halves = [int((text + layout.visual.sum(dim=1) // n).max()) for n in (2, 4)]
    assert [layer.keys.shape[2] for layer in cache.layers] == [layout.length, *halves]


@pytest.mark.parametrize("family", ["llava-1.5", "qwen3-vl", "gemma3", "qwen3.5", "lfm2-vl"])
def test_the_caches_of_later_layers_are_shorter(lab, family):
    model, inputs, layout = lab.prompts(family)
    layer = layers_of(model)[-1]
    with FastV(keep=0.25, layer=layer).applied(model, layout), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    text, visual = (layout.attended & ~layout.visual).sum(dim=1), layout.visual.sum(dim=1)
    widest = int((text + visual // 4).max())
    for index in attending_layers(model):
        window = getattr(cache.layers[index], "sliding_window", None) or layout.length + 1
        assert cache.layers[index].keys.shape[2] == min(widest if index >= layer else layout.length, window - 1)


@pytest.mark.parametrize("family", ["pixtral", "idefics3", "llava-next", "internvl", "qwen2.5-vl"])
def test_only_tokens_that_carry_features_leave(lab, family):
    model, inputs, layout = lab.prompts(family)
    for keep in (0, 0.0, 5):
        positions = positions_seen(lab, model, inputs, layout, FastV(keep=keep, layer=1))[1]
        keeps = places(positions, layout.ids.shape)
        assert torch.equal(keeps & ~layout.visual, layout.attended & ~layout.visual)
        assert (keeps & layout.visual).sum(dim=1).tolist() == [int(keep)] * 3


def test_a_number_or_a_share_of_each_image(lab):
    model, inputs, layout = lab.prompts("qwen2.5-vl")
    owner = layout.spans.owner
    for keep, expected in ((3, lambda n: 3), (0.3, lambda n: int(0.3 * n))):
        positions = positions_seen(lab, model, inputs, layout, FastV(keep=keep, layer=1, keep_per="image"))[1]
        keeps = places(positions, owner.shape)
        for b in range(3):
            for image in range(3):
                assert int((keeps & (owner == image))[b].sum()) == expected(int((owner[b] == image).sum()))


@pytest.mark.parametrize("family", ["llava-1.5", "qwen2.5-vl", "gemma3", "gemma4"])
def test_the_recorder_finds_the_images_in_what_remains(lab, family):
    model, inputs, layout = lab.prompts(family)
    attention = []
    for how in ("drop", "mask"):
        with FastV(keep=0.4, layer=1, how=how).applied(model, layout), record_last_row(model, layout.spans) as recorder:
            lab.logits(model, inputs, logits_to_keep=1)
        attention.append(torch.stack(recorder.attention()))
    with record_last_row(model, layout.spans) as recorder:
        lab.logits(model, inputs)
    plain = torch.stack(recorder.attention())
    torch.testing.assert_close(*attention, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention[0][:, :, 0], plain[:, :, 0], atol=1e-6, rtol=0)
    assert (attention[0][:, :, 1:] - plain[:, :, 1:]).abs().max() > 1e-3


@pytest.mark.parametrize("first", ["sofa", "fastv"])
@pytest.mark.parametrize("family", ["llava-1.5", "qwen2.5-vl"])
def test_beside_another_intervention_dropping_is_still_masking(lab, family, first):
    model, inputs, layout = lab.prompts(family)
    results = []
    for how in ("drop", "mask"):
        parts = [Sofa(sigma=1.0, every=1), FastV(keep=0.4, layer=1, how=how)]
        results.append(lab.under(join_interventions(parts if first == "sofa" else parts[::-1]), model, inputs, layout))
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
    assert (results[0] - lab.under(FastV(keep=0.4, layer=1), model, inputs, layout)).abs().max() > 1e-4


def test_random_tokens_depend_on_request_and_seed_alone(lab):
    model, inputs, layout = lab.prompts("llava-onevision")
    together = places(positions_seen(lab, model, inputs, layout, RandomTokens(keep=0.3, layer=1))[1], layout.ids.shape)
    other = places(positions_seen(lab, model, inputs, layout, RandomTokens(keep=0.3, layer=1, seed=1))[1], layout.ids.shape)
    assert (together & layout.visual).sum(dim=1).tolist() == (other & layout.visual).sum(dim=1).tolist()
    assert not torch.equal(together, other)
    _, inputs, single = lab.prompts("llava-onevision", 1)
    alone = places(positions_seen(lab, model, inputs, single, RandomTokens(keep=0.3, layer=1))[1], single.ids.shape)
    assert torch.equal(alone[0, single.attended[0]], together[0, layout.attended[0]])
    torch.testing.assert_close(
        lab.under(RandomTokens(keep=0.3, layer=1), model, inputs, single),
        lab.under(RandomTokens(keep=0.3, layer=1, how="mask"), model, inputs, single),
        atol=1e-5,
        rtol=0,
    )


def test_nothing_stays_on_the_model(lab):
    model, inputs, layout = lab.prompts("qwen3-vl")
    plain = lab.logits(model, inputs)
    with ExitStack() as stack:
        stack.enter_context(FastV(keep=0.3, layer=1).applied(model, layout))
        lab.logits(model, inputs)
    assert torch.equal(lab.logits(model, inputs), plain)
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in decoder_layers(model))
