"""Soft attention between images: against masks and matrices written out, on real tiny models."""

from __future__ import annotations

import math

import pytest
import torch

from lad_eval.attention.hooks import observe_attention, transform_mask
from lad_eval.attention.interventions import INTERVENTIONS, Sofa, parse_intervention
from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.masks import additive_mask, ahead_between_images
from lad_eval.attention.recorder import record_last_row
from lad_eval.attention.spans import Spans, image_spans
from lad_eval.errors import UnknownNameError, UnsupportedModelError, UserError

FAMILIES = ("qwen2.5-vl", "llava-onevision", "gemma3", "qwen3.5")


def prepared(lab, family, rows, implementation="sdpa"):
    model, processor = lab.load(family, implementation)
    inputs = lab.prepare(processor, rows)
    return model, image_spans(model, processor, inputs, 3), lab.for_model(inputs)


def layout_of(spans):
    """Of prompts whose ids and questions do not matter."""
    rows = spans.owner.shape
    return PromptLayout(
        torch.zeros(rows, dtype=torch.long), spans, torch.ones(rows, dtype=torch.bool), ("?",) * rows[0], str, no_padding
    )


def soften(model, spans, **how):
    return Sofa(**how).applied(model, layout_of(spans))


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def masks_seen(model, spans, inputs, **how):
    seen = {}
    with soften(model, spans, **how), observe_attention(model, lambda call: seen.setdefault(call.layer, call.mask)):
        logits(model, inputs)
    return seen


@pytest.mark.parametrize("pairs", ["between", "all"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_entries_let_in_are_those_of_a_loop(lab, implementation, pairs):
    model, spans, inputs = prepared(lab, "qwen2.5-vl", lab.ROWS, implementation)
    seen = masks_seen(model, spans, inputs, sigma=0.5, every=2, pairs=pairs)
    changed = seen[0]
    image = [[-1] * spans.length for _ in lab.ROWS]
    for b, ranges in enumerate(spans.image.tolist()):
        for k, (start, end) in enumerate(ranges):
            image[b][start:end] = [k] * (end - start)
    real = inputs["attention_mask"].bool()
    expected = torch.full((len(lab.ROWS), spans.length, spans.length), -torch.inf)
    for b in range(len(lab.ROWS)):
        who = torch.tensor(image[b])
        ahead = torch.ones(spans.length, spans.length, dtype=torch.bool).triu(1)
        let_in = ahead & (who[:, None] >= 0) & (who[None, :] >= 0)
        if pairs == "between":
            let_in &= who[:, None] != who[None, :]
        expected[b][let_in] = math.log(0.5)
        expected[b][~ahead & real[b][None, :]] = 0
    for b in range(len(lab.ROWS)):
        rows = real[b].nonzero()[:, 0]  # of padding nothing is asked
        found = changed[b, 0][rows].float()
        found = torch.where(found < -1e30, -torch.inf, found)
        torch.testing.assert_close(found, expected[b][rows])
    assert seen[1] is not changed
    assert seen[1] is None or not torch.equal(seen[1], changed)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_implementations_agree_and_the_model_is_as_before(lab, family):
    how = {"sigma": 0.4, "every": 1, "pairs": "between"}
    results = []
    for implementation in ("sdpa", "eager"):
        model, spans, inputs = prepared(lab, family, lab.ROWS, implementation)
        before = logits(model, inputs)[:, -1]
        with soften(model, spans, **how):
            inside = logits(model, inputs)[:, -1]
        torch.testing.assert_close(logits(model, inputs)[:, -1], before, atol=0, rtol=0)
        assert (inside - before).abs().max() > 1e-3
        results.append(inside)
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=0)


def test_a_vanishing_sigma_is_the_model_as_it_is_and_a_batch_is_its_rows(lab):
    model, spans, inputs = prepared(lab, "qwen2.5-vl", lab.ROWS)
    plain = logits(model, inputs)[:, -1]
    with soften(model, spans, sigma=1e-30, every=1, pairs="all"):
        torch.testing.assert_close(logits(model, inputs)[:, -1], plain, atol=1e-4, rtol=0)
    alone = []
    for row in lab.ROWS:
        model, one, given = prepared(lab, "qwen2.5-vl", [row])
        with soften(model, one, sigma=0.5, every=2, pairs="between"):
            alone.append(logits(model, given)[:, -1])
    with soften(model, spans, sigma=0.5, every=2, pairs="between"):
        torch.testing.assert_close(torch.cat(alone), logits(model, inputs)[:, -1], atol=1e-4, rtol=0)


def test_the_recorder_sees_the_attention_that_the_change_leaves(lab):
    model, spans, inputs = prepared(lab, "qwen2.5-vl", lab.ROWS)
    rows = []
    for sigma in (1e-30, 1.0):
        with soften(model, spans, sigma=sigma, every=1, pairs="between"), record_last_row(model, spans) as recorder:
            logits(model, inputs)
        rows.append(recorder.attention()[0])
    torch.testing.assert_close(
        rows[0][:, 0], rows[1][:, 0], atol=1e-6, rtol=0
    )  # of the lowest layer only the images' rows change
    assert (rows[0][:, 1] - rows[1][:, 1]).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-1.5", "gemma3"])
def test_where_tokens_were_dropped_the_rest_see_each_other_softly(lab, family):
    model, spans, inputs = prepared(lab, family, lab.ROWS)
    numbers = torch.rand(spans.owner.shape, generator=torch.Generator().manual_seed(1))
    keep = inputs["attention_mask"].bool() & ((spans.owner < 0) | (numbers < 0.6))

    def masked(call):
        mask = additive_mask(call)
        closed = ~keep[:, None, None, :] & ~torch.eye(spans.length, dtype=torch.bool)
        return mask.expand(len(keep), *mask.shape[1:]).masked_fill(closed & (call.layer >= 1), torch.finfo(mask.dtype).min)

    how = {"sigma": 0.4, "every": 1, "pairs": "between"}
    with soften(model, spans, **how), transform_mask(model, masked), record_last_row(model, spans) as reference:
        slow = logits(model, inputs)[:, -1]
    with lab.dropped(model, keep, before=1), soften(model, spans, **how), record_last_row(model, spans) as recorder:
        fast = logits(model, inputs)[:, -1]
    with lab.dropped(model, keep, before=1):
        hard = logits(model, inputs)[:, -1]
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=0)
    torch.testing.assert_close(recorder.attention(), reference.attention(), atol=1e-5, rtol=0)
    assert (fast - hard).abs().max() > 1e-3


def test_changes_follow_each_other_and_end_with_their_blocks(lab):
    model, _, inputs = prepared(lab, "qwen2.5-vl", lab.ROWS[:1])
    order = []

    def note(name):
        def change(call):
            order.append(name)
            return call.mask

        return change

    with transform_mask(model, note("first")), transform_mask(model, note("second")):
        logits(model, inputs)
    assert order[:2] == ["first", "second"]
    count = len(order)
    logits(model, inputs)
    assert len(order) == count


CHANGED = {
    "qwen2.5-vl": {1: [0, 1, 2], 2: [0, 2], 3: [0]},  # all layers attend
    "qwen3.5": {1: [1, 3], 2: [1], 3: [1]},  # layers 1 and 3 attend
    "lfm2-vl": {1: [0, 2], 2: [0], 3: [0]},  # layers 0 and 2 attend
    "minicpm-v-4.6": {1: [1, 3], 2: [1], 3: [1]},
    "llama4": {1: [0, 1, 2], 2: [0, 2], 3: [0]},
}


@pytest.mark.parametrize("family", CHANGED)
def test_layers_that_attend_are_counted(lab, family):
    model, spans, inputs = prepared(lab, family, lab.ROWS)
    as_it_is = {}
    with observe_attention(model, lambda call: as_it_is.setdefault(call.layer, call.mask)):
        plain = logits(model, inputs)[:, -1]
    for every, layers in CHANGED[family].items():
        seen = {}
        with soften(model, spans, sigma=0.5, every=every, pairs="between"):
            with observe_attention(model, lambda call, seen=seen: seen.setdefault(call.layer, call.mask)):
                soft = logits(model, inputs)[:, -1]
            changed = [
                layer
                for layer, mask in seen.items()
                if mask is not None and mask.is_floating_point() and bool((mask == mask.new_tensor(math.log(0.5))).any())
            ]
        assert changed == layers
        assert (soft - plain).abs().max() > 1e-4
    assert not any(
        mask is not None and mask.is_floating_point() and bool((mask == math.log(0.5)).any()) for mask in as_it_is.values()
    )


@pytest.mark.parametrize("family", ["paligemma", "molmo2"])
def test_where_images_see_each_other_already_the_intervention_is_an_error(lab, family):
    model, spans, inputs = prepared(lab, family, lab.ROWS)
    with (
        pytest.raises(
            UnsupportedModelError, match=r"Generation: sofa changed no attention call.* leave out the methods with sofa"
        ),
        soften(model, spans, sigma=0.5, every=2, pairs="between"),
    ):
        logits(model, inputs)


def test_a_forward_pass_that_is_not_the_prompts_is_an_error(lab):
    model, spans, _ = prepared(lab, "qwen2.5-vl", lab.ROWS)
    with (
        pytest.raises(UnsupportedModelError, match="sofa changed no attention call"),
        soften(model, spans, sigma=0.5, every=2, pairs="between"),
    ):
        logits(model, {"input_ids": torch.ones(1, 4, dtype=torch.long)})


def test_implementations_without_such_masks_are_refused(lab):
    model, spans, inputs = prepared(lab, "qwen2.5-vl", lab.ROWS[:1])
    config = next(iter(model.get_decoder().layers)).self_attn.config

    def pretend(call):
        call.module.config._attn_implementation = "flash_attention_2"
        return call.mask

    try:
        with (
            transform_mask(model, pretend),
            pytest.raises(
                UnsupportedModelError, match=r"'flash_attention_2' takes no mask of single entries.* --attn sdpa or eager"
            ),
            soften(model, spans, sigma=0.5, every=1, pairs="between"),
        ):
            logits(model, inputs)
    finally:
        config._attn_implementation = "sdpa"


def test_names_and_parameters():
    assert INTERVENTIONS["sofa"] is Sofa
    assert parse_intervention("sofa") == Sofa()
    made = parse_intervention("sofa(sigma=0.25, every=4, pairs=all)")
    assert made == Sofa(sigma=0.25, every=4, pairs="all")
    assert made.label == "sofa(sigma=0.25, every=4, pairs=all)"
    assert Sofa(every=2).label == "sofa"
    assert made.facts == {"name": "sofa", "sigma": 0.25, "every": 4, "pairs": "all"}
    for text, says in [
        ("sofa(sigma=0)", "sigma of sofa must be a number above 0 and at most 1, not '0'"),
        ("sofa(sigma=x)", "sigma of sofa must be a number above 0 and at most 1, not 'x'"),
        ("sofa(every=2.5)", "every of sofa must be a whole number of at least 1, not '2.5'"),
        ("sofa(every=0)", "every of sofa must be a whole number of at least 1"),
        ("sofa(pairs=none)", "must be 'between' or 'all'"),
        ("sofa:sigma", r"write 'sofa\(sigma=value\)'"),
        ("sofa(sigma=0.3, sigma=0.4)", "must give each parameter once"),
        ("sofa(depth=3)", "sofa has no parameter 'depth'. Its parameters are sigma, every, pairs."),
    ]:
        with pytest.raises(UserError, match=says):
            parse_intervention(text)
    with pytest.raises(UnknownNameError, match=r"Unknown intervention 'sofaa'. Did you mean 'sofa'"):
        parse_intervention("sofaa")


def test_an_image_token_never_opens_what_is_not_an_image():
    owner = torch.tensor([[-1, 0, 0, -1, 1, 1, -1, 2, -1]])
    ranges = torch.tensor([[[1, 3], [4, 6], [7, 8]]])
    entries = ahead_between_images(Spans(ranges, ranges, owner))[0]
    between = [[q, k] for q in (1, 2) for k in (4, 5, 7)] + [[4, 7], [5, 7]]
    assert entries.nonzero().tolist() == between
    within = ahead_between_images(Spans(ranges, ranges, owner), within=True)[0]
    assert sorted(within.nonzero().tolist()) == sorted([*between, [1, 2], [4, 5]])
