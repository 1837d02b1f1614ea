"""Hooks on attention: what does nothing changes no bit; what does something equals attention written out."""

from __future__ import annotations

import threading

import pytest
import torch

from lad_eval.attention.hooks import (
    around_attention,
    attending_layers,
    kept_tokens,
    observe_attention,
    transform_mask,
)
from lad_eval.attention.masks import additive_mask, ahead_between_images
from lad_eval.attention.recorder import record_last_row
from lad_eval.attention.spans import image_spans

FAMILIES = ("qwen2.5-vl", "qwen3.5", "llava-1.5", "llava-onevision", "gemma3", "internvl", "llama4")


def prepared(lab, family, implementation="sdpa"):
    model, processor = lab.load(family, implementation)
    inputs = lab.prepare(processor, lab.ROWS)  # two rows of three images, the shorter padded on the left
    assert not inputs["attention_mask"].bool().all()
    return model, image_spans(model, processor, inputs, 3), lab.for_model(inputs)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[:, -1]


def identity(call, run):
    return run(call.query, call.mask)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_that_do_nothing_change_no_bit(lab, family, implementation):
    model, spans, inputs = prepared(lab, family, implementation)
    plain = logits(model, inputs)
    with (
        around_attention(model, identity),
        transform_mask(model, lambda call: call.mask),
        observe_attention(model, lambda call: None),
        kept_tokens(model),
        record_last_row(model, spans),
        around_attention(model, identity),
    ):
        assert torch.equal(logits(model, inputs), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_of_two_outputs_equals_both_matrices_written_out(lab, family):
    model, spans, inputs = prepared(lab, family)
    eager, _ = lab.load(family, "eager")
    opened = ahead_between_images(spans)[:, None]

    def second_mask(call):
        mask = additive_mask(call)
        return mask.expand(len(opened), *mask.shape[1:]).masked_fill(opened, 0.0)

    def averaged(call, run):
        plain, fused = (run(call.query, mask)[0] for mask in (call.mask, second_mask(call)))
        return (plain + fused) / 2, None

    def by_hand(call, run):
        masks = (additive_mask(call), second_mask(call))
        outputs, weights = zip(*(run(call.query, mask) for mask in masks), strict=True)
        groups = call.query.shape[1] // call.key.shape[1]
        scores = call.query @ call.key.repeat_interleave(groups, dim=1).transpose(-1, -2) * call.options["scaling"]
        slow = sum((scores + mask).softmax(dim=-1) for mask in masks) / 2
        torch.testing.assert_close(sum(weights) / 2, slow, atol=1e-5, rtol=0)
        checked.add(call.layer)
        return sum(outputs) / 2, None

    plain = logits(model, inputs)
    with around_attention(model, averaged):
        fused = logits(model, inputs)
    checked = set()
    with around_attention(eager, by_hand):
        slow = logits(eager, inputs)
    assert checked == set(attending_layers(model))
    torch.testing.assert_close(fused, slow, atol=1e-4, rtol=0)
    assert (fused - plain).abs().max() > 1e-3, "an average that changes nothing would prove little"
    assert torch.equal(logits(model, inputs), plain)


def test_changes_nest_in_the_order_in_which_they_were_opened(lab):
    model, _, inputs = prepared(lab, "llava-1.5")
    order = []

    def note(name):
        def around(call, run):
            order.append(f"{name} in")
            output = run(call.query, call.mask)
            order.append(f"{name} out")
            return output

        return around

    def transform(call):
        order.append("mask")
        return call.mask

    with (
        observe_attention(model, lambda call: order.append("seen")),
        around_attention(model, note("a")),
        transform_mask(model, transform),
        around_attention(model, note("b")),
    ):
        logits(model, inputs)
    once = ["a in", "mask", "b in", "seen", "b out", "a out"]
    assert order == once * 3  # three layers


def test_an_inner_change_is_given_what_the_outer_one_passes_on_and_observers_see_the_first_run(lab):
    model, _, inputs = prepared(lab, "llava-1.5")
    given, seen, heard = [], [], []

    def outer(call, run):
        closed = additive_mask(call)
        first = run(call.query, closed)
        run(call.query * 2, closed.clone())
        given.append(closed)
        return first

    def inner(call):
        mask = call.mask.clone()
        mask[..., 0] = torch.finfo(mask.dtype).min  # nobody sees the first token
        heard.append((call.mask, mask))
        return mask

    plain_queries = []
    with observe_attention(model, lambda call: plain_queries.append(call.query)), torch.no_grad():
        model(**inputs, use_cache=False)
    with around_attention(model, outer), transform_mask(model, inner), observe_attention(model, seen.append):
        logits(model, inputs)
    assert len(given) == len(seen) == 3, "an observer is called once a layer, however often the layer is run"
    assert len(heard) == 6
    for layer in range(3):
        assert heard[2 * layer][0] is given[layer]
        assert seen[layer].mask is heard[2 * layer][1]
    assert torch.equal(seen[0].query, plain_queries[0]), "of the first run, not of the doubled query"


def test_rows_of_the_query_may_be_run_by_themselves(lab):
    model, spans, inputs = prepared(lab, "qwen2.5-vl")

    def in_two_parts(call, run):
        mask = additive_mask(call)
        middle = spans.length // 2
        parts = [run(call.query[:, :, rows], mask[:, :, rows])[0] for rows in (slice(0, middle), slice(middle, None))]
        return torch.cat(parts, dim=1), None

    plain = logits(model, inputs)
    with around_attention(model, in_two_parts):
        torch.testing.assert_close(logits(model, inputs), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "layers"),
    [("qwen2.5-vl", [(0, 1, 2), (0, 2), (0,)]), ("qwen3.5", [(1, 3), (1,), (1,)]), ("lfm2-vl", [(0, 2), (0,), (0,)])],
)
def test_every_so_many_th_layer_counts_those_that_attend(lab, family, layers):
    model, _ = lab.load(family)
    assert [attending_layers(model, every) for every in (1, 2, 3)] == layers


def test_positions_of_kept_tokens_reach_hooks_and_must_fit(lab):
    model, spans, inputs = prepared(lab, "llava-1.5")
    positions, found = torch.arange(spans.length).repeat(2, 1), {}
    with kept_tokens(model) as kept, observe_attention(model, lambda call: found.update({call.layer: call.positions})):
        kept[1] = positions
        logits(model, inputs)
        assert found == {0: None, 1: positions, 2: None}
        kept[2] = positions[:, 1:]
        with pytest.raises(ValueError, match=rf"layer 2 attends to {spans.length} keys, and positions of {spans.length - 1}"):
            logits(model, inputs)
    logits(model, inputs)


def test_hooks_of_one_thread_are_not_those_of_another(lab):
    model, _, inputs = prepared(lab, "llava-1.5")
    heard = []
    with observe_attention(model, lambda call: heard.append(call.layer)):
        thread = threading.Thread(target=logits, args=(model, inputs))
        thread.start()
        thread.join()
        assert heard == []
        logits(model, inputs)
    assert heard == [0, 1, 2]
