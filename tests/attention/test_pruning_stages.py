"""Tokens that leave at several layers, whatever chooses them: dropped or masked, read and continued."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lad_eval.attention.hooks import attending_layers, attention_layers, decoder_layers, observe_attention
from lad_eval.attention.pruning.stages import PruningDecision, pruned
from lad_eval.attention.recorder import last_row
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inference.continuation import continue_prefixes, with_positions
from lad_eval.models.random import FAMILIES

PREFIXES = [(5,), (6, 7), (8, 9, 10)]


def layers_of(model):
    """Two layers, one after the other, from which on all layers attend; or one, where there are no two."""
    attending, total = attention_layers(model), len(decoder_layers(model))
    usable = [n for n in range(min(attending) + 1, total) if all(later in attending for later in range(n, total))]
    return usable[:2]


def by_chance(layout, share, seed):
    """Keeps about a share of the visual tokens, of each row another number."""
    numbers = torch.Generator().manual_seed(seed)
    keep = torch.rand(layout.ids.shape, generator=numbers) < share
    return lambda stage_input: PruningDecision(~layout.visual | keep)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_pruned_twice_go_on_as_if_masked(lab, family):
    model, inputs, layout = lab.prompts(family)
    layers = layers_of(model)
    ids, masks = inputs["input_ids"], inputs["attention_mask"]
    results = []
    for how in ("drop", "mask"):
        stages = {layer: by_chance(layout, 0.5, layer) for layer in layers}
        with torch.no_grad(), pruned(model, layout, stages, how):
            output = model(**inputs, use_cache=True)
            after = continue_prefixes(model, output.past_key_values, masks, PREFIXES, [range(20)] * 3)
            written = model.generate(**inputs, max_new_tokens=45, min_new_tokens=45, do_sample=False)
        results.append((output.logits[:, -1], torch.stack(after), written[:, ids.shape[1] :]))
    (first, after, written), (masked, masked_after, masked_written) = results
    torch.testing.assert_close(first, masked, atol=1e-5, rtol=0)
    torch.testing.assert_close(after, masked_after, atol=1e-5, rtol=0)
    assert torch.equal(written, masked_written)  # 45 tokens are more than the windows of the tiny models


@pytest.mark.parametrize("family", ["llava-1.5", "qwen3-vl", "gemma3", "qwen3.5"])
def test_hidden_states_that_a_stage_gives_go_on(lab, family):
    model, inputs, layout = lab.prompts(family)
    layer = layers_of(model)[-1]
    results = []

    def choose(stage_input):
        assert stage_input.layer == layer
        assert stage_input.hidden.shape == stage_input.embeddings.shape == (*layout.ids.shape, stage_input.hidden.shape[2])
        assert torch.equal(stage_input.remaining, layout.attended)
        assert stage_input.attention.layer == max(index for index in attending_layers(model) if index < layer)
        merged = stage_input.hidden.clone()
        merged[layout.visual] = merged[layout.visual].flip(-1)
        return PruningDecision(by_chance(layout, 0.5, 0)(stage_input).remaining, merged)

    plain = pruned(model, layout, {layer: by_chance(layout, 0.5, 0)})
    for context in (plain, pruned(model, layout, {layer: choose}), pruned(model, layout, {layer: choose}, "mask")):
        with torch.no_grad(), context:
            results.append(model(**inputs).logits[:, -1])
    torch.testing.assert_close(results[1], results[2], atol=1e-5, rtol=0)
    if family != "gemma3":  # whose last layer's window holds no image
        assert (results[1] - results[0]).abs().max() > 1e-3


def test_prompts_may_be_read_again_and_others_are_refused(lab):
    model, inputs, layout = lab.prompts("llava-1.5")
    with torch.no_grad(), pruned(model, layout, {1: by_chance(layout, 0.5, 0)}):
        first = model(**inputs).logits[:, -1]
        assert torch.equal(model(**inputs).logits[:, -1], first)
        with pytest.raises(ValueError, match="reads prompts of 3 tokens, and their layout is of"):
            model(input_ids=torch.tensor([[5, 6, 7]] * 3))


def test_a_coming_layer_without_attention_is_refused(lab):
    model, inputs, layout = lab.prompts("qwen3.5")
    message = "Decoder layer 2 of Qwen3_5ForConditionalGeneration has no attention to rank tokens by; choose another layer."
    stages = {2: lambda stage_input: PruningDecision(stage_input.coming().mask)}
    with torch.no_grad(), pruned(model, layout, stages), pytest.raises(UnsupportedModelError) as fault:
        model(**inputs)
    assert str(fault.value) == message


def test_other_threads_pass_through_untouched(lab):
    model, inputs, layout = lab.prompts("llava-1.5")
    words = {"input_ids": torch.tensor([[5, 6, 7]])}
    with torch.no_grad():
        plain = model(**words).logits
        with pruned(model, layout, {1: by_chance(layout, 0.5, 0)}), ThreadPoolExecutor(1) as other:
            elsewhere = other.submit(torch.no_grad()(lambda: model(**words).logits)).result()
            assert (model(**inputs).logits - model(**inputs).logits).abs().max() == 0
    assert torch.equal(elsewhere, plain)


def padded_attention(module, query, key, value, attention_mask, scaling=None, **options):
    """What flash attention computes: causal from the last key on, keys hidden by a mask of them."""
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    queries, keys = query.shape[2], key.shape[2]
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    if attention_mask is not None:
        assert attention_mask.shape == (len(query), keys)
        seen = seen & attention_mask.bool()[:, None, None]
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, torch.finfo(query.dtype).min)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2), None


@pytest.mark.parametrize("family", ["llava-1.5", "qwen2.5-vl", "qwen3.5"])
def test_masks_of_keys_as_flash_attention_takes_them(lab, family, monkeypatch):
    masks = []

    def attention(module, query, key, value, attention_mask, **options):
        masks.append(attention_mask)
        return padded_attention(module, query, key, value, attention_mask, **options)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", attention)
    model, inputs, layout = lab.prompts(family)
    layers, results = layers_of(model), []
    for implementation in ("sdpa", "flash_attention_2"):
        monkeypatch.setattr(model.config.get_text_config(), "_attn_implementation_internal", implementation)
        stages = {layer: by_chance(layout, 0.5, layer) for layer in layers}
        with torch.no_grad(), pruned(model, layout, stages):
            output = model(**inputs, use_cache=True)
            columns = [range(20)] * 3
            after = continue_prefixes(model, output.past_key_values, inputs["attention_mask"], PREFIXES, columns)
            written = model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        results.append((output.logits[:, -1], torch.stack(after), written))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=0)
    assert torch.equal(results[0][2], results[1][2])
    assert {mask.dim() for mask in masks if mask is not None} == {2}


def test_a_stage_has_all_tokens_in_layers_that_would_be_run_for_the_last_alone(lab):
    """Gemma 4's upper layers, which have no keys of their own."""
    model, inputs, layout = lab.prompts("gemma4")
    seen = []

    def decide(stage_input):
        seen.append((stage_input.hidden, stage_input.coming().query.shape[2]))
        return PruningDecision(stage_input.remaining)

    results = []
    for count in (0, 1):
        with torch.no_grad(), pruned(model, layout, {2: decide}):
            results.append(model(**inputs, logits_to_keep=count).logits)
    assert results[1].shape[1] == 1
    torch.testing.assert_close(results[0][:, -1:], results[1], atol=1e-5, rtol=0)
    assert torch.equal(seen[0][0], seen[1][0])
    assert [queries for _, queries in seen] == [layout.length] * 2
    short = replace(lab.stage_input_before(model, inputs, layout, 2), entering=seen[0][0][:, -1:])
    with pytest.raises(UnsupportedModelError, match="Decoder layer 2 is run for the last tokens only, and hidden states of all"):
        _ = short.hidden


@pytest.mark.parametrize("family", ["llava-1.5", "qwen2.5-vl", "gemma3"])
def test_prompts_with_appended_tokens_lose_the_same_tokens(lab, family):
    model, inputs, layout = lab.prompts(family)
    calls, masks = [], []

    def choose(stage_input):
        assert (
            stage_input.layout.length
            == stage_input.remaining.shape[1]
            == stage_input.hidden.shape[1]
            == stage_input.embeddings.shape[1]
        )
        row = last_row(stage_input.attention).mean(dim=1)
        calls.append((stage_input.hidden, row, last_row(stage_input.coming()).mean(dim=1)))
        return PruningDecision(~layout.visual | (row > row[layout.visual].median()), stage_input.hidden.clone())

    def note(call):
        if call.positions is not None:
            masks.append([sorted(set(row.tolist()) - {-1}) for row in call.positions])

    longer = {**inputs, "input_ids": torch.nn.functional.pad(inputs["input_ids"], (0, 2), value=7)}
    longer["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 2), value=1)
    longer = with_positions(model, {name: value for name, value in longer.items() if name != "position_ids"})
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in longer:
            longer[name] = torch.nn.functional.pad(longer[name], (0, 2))
    for prompt, asked in ((inputs, layout), (longer, layout.extended([7, 7]))):
        with torch.no_grad(), pruned(model, asked, {1: choose}), observe_attention(model, note):
            model(**prompt)
    for first, second in zip(*calls, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    half = len(masks) // 2
    length = layout.length
    assert masks[half:] == [[[*row, length, length + 1] for row in layer] for layer in masks[:half]]
    assert layout.extended([7, 7]).without_appended().spans.owner.equal(layout.spans.owner)


def test_of_two_that_prune_each_is_told_of_the_others_tokens(lab):
    model, inputs, layout = lab.prompts("llava-1.5")
    seen = {}
    with (
        torch.no_grad(),
        pruned(model, layout, {1: by_chance(layout, 0.5, 1), 2: by_chance(layout, 0.5, 2)}),
        observe_attention(model, lambda call: seen.update({call.layer: call.positions})),
    ):
        model(**inputs)
    assert seen[0] is None
    for b in range(3):
        later, earlier = (set(seen[layer][b].tolist()) - {-1} for layer in (2, 1))
        assert later < earlier
