"""Attention between images, fused, truncated or scaled: equal to both matrices written out, in batches and in generation."""

from __future__ import annotations

import pytest
import torch

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.delimiter_scaling import DelimiterScaling
from lad_eval.attention.cross_image.masks import key_tokens
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.hooks import around_attention, attending_layers
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.spans import image_spans
from lad_eval.models.random import FAMILIES
from tests.attention.cross_image_prompts import (
    CLOSED,
    WITHOUT_DELIMITERS,
    between,
    chosen_by_hand,
    eager_decoder,
    entering,
    image_by_hand,
    logits,
    prepared,
    reachable,
    under,
    written_out,
)


@pytest.mark.parametrize("how", [Capl(), Capl(rho=0.5, weight=0.8, every=1)], ids=["default", "other"])
@pytest.mark.parametrize("family", CLOSED)
def test_fused_attention_equals_both_matrices_written_out(lab, family, how):
    model, layout, inputs = prepared(lab, family)
    plain, fused = logits(model, inputs), under(how, model, layout, inputs)
    opened = between(chosen_by_hand(entering(model, inputs), layout, how.rho))[:, None]

    def mask_of(call, first):
        return first.masked_fill(opened & (first < -1e30) & reachable(call, layout), 0.0)

    with eager_decoder(model):
        slow = written_out(model, layout, inputs, mask_of, how.weight, how.every)
        torch.testing.assert_close(under(how, model, layout, inputs), slow, atol=1e-5, rtol=0)
        noise = (logits(model, inputs) - plain).abs().max()  # of the two implementations in the unchanged model
    assert (fused - slow).abs().max() <= 1e-5 + noise
    assert (fused - plain).abs().max() > 1e-3
    assert torch.equal(logits(model, inputs), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_attention_equals_the_matrix_written_out(lab, family):
    model, layout, inputs = prepared(lab, family)
    plain, truncated = logits(model, inputs), under(Truncated(), model, layout, inputs)
    closed = between(image_by_hand(layout))[:, None]

    def mask_of(call, first):
        return first.masked_fill(closed, torch.finfo(first.dtype).min)

    with eager_decoder(model):
        slow = written_out(model, layout, inputs, mask_of, 1.0, 1)
        torch.testing.assert_close(under(Truncated(), model, layout, inputs), slow, atol=1e-5, rtol=0)
        noise = (logits(model, inputs) - plain).abs().max()  # of the two implementations in the unchanged model
    assert (truncated - slow).abs().max() <= 1e-5 + noise
    assert (truncated - plain).abs().max() > 1e-3


@pytest.mark.parametrize("how", [Capl(), Truncated(), DelimiterScaling(layers=2)], ids=lambda how: how.name)
@pytest.mark.parametrize("family", CLOSED)
def test_a_left_padded_batch_equals_its_rows(lab, family, how):
    if how.name == "delimiter-scaling" and family in WITHOUT_DELIMITERS:
        pytest.skip("its images have no delimiters")
    model, layout, inputs = prepared(lab, family)
    assert not layout.attended.all()
    rows = [prepared(lab, family, [row])[1:] for row in lab.ROWS]
    noise = (logits(model, inputs) - torch.cat([logits(model, given) for _, given in rows])).abs().max()
    alone = torch.cat([under(how, model, single, given) for single, given in rows])
    assert (under(how, model, layout, inputs) - alone).abs().max() <= 1e-5 + noise


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "qwen3.5", "internvl"])
def test_weight_zero_is_the_unchanged_model_bit_for_bit(lab, family, implementation):
    model, layout, inputs = prepared(lab, family, implementation=implementation)
    plain = logits(model, inputs)
    assert torch.equal(under(Capl(weight=0.0, every=1), model, layout, inputs), plain)
    assert not torch.equal(under(Capl(weight=0.01, every=1), model, layout, inputs), plain)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "qwen3.5", "internvl"])
def test_a_second_pass_of_the_rows_that_gain_equals_one_of_all_rows(lab, family, implementation):
    model, layout, inputs = prepared(lab, family, implementation=implementation)
    owner = key_tokens(entering(model, inputs), layout.spans.owner, 0.95)
    opened = between(owner)[:, None]

    def around(call, run):
        output, weights = run(call.query, call.mask)
        mask = additive_mask(call).expand(len(opened), -1, -1, -1)
        gains = (opened & (mask < 0)).any(dim=-1)[:, 0, :, None, None]
        whole = run(call.query, mask.masked_fill(opened, 0.0))[0]
        return torch.where(gains, 0.5 * output + 0.5 * whole, output), weights

    with around_attention(model, around):
        whole = logits(model, inputs)
    assert torch.equal(under(Capl(every=1), model, layout, inputs), whole)


@pytest.mark.parametrize("how", [Capl(), Truncated(), DelimiterScaling(layers=2)], ids=lambda how: how.name)
def test_prompts_of_one_image_are_read_as_they_are(lab, how):
    rows = [(lab.UNEQUAL[:1], lab.ROWS[0][1]), (lab.OTHER[:1], lab.ROWS[1][1])]
    model, layout, inputs = prepared(lab, "qwen2.5-vl", rows, images=1)
    assert torch.equal(under(how, model, layout, inputs), logits(model, inputs))


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3.5", "gemma3"])
@pytest.mark.parametrize("how", [Capl(), Truncated(), DelimiterScaling(layers=2)], ids=lambda how: how.name)
def test_generation_reads_the_prompt_under_the_change_and_writes_without(lab, family, how):
    model, layout, inputs = prepared(lab, family)

    def generated():
        """What the model writes, and layer, queries and mask of every attention call that reaches the implementation."""
        calls = []

        def counted(call, run):
            calls.append((call.layer, call.query.shape[2], call.mask))
            return run(call.query, call.mask)

        with around_attention(model, counted):
            options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
            return model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, **options).logits, calls

    plain, unchanged = generated()
    with how.applied(model, layout):
        changed, calls = generated()
    torch.testing.assert_close(changed[0], under(how, model, layout, inputs), atol=1e-5, rtol=0)
    assert (changed[0] - plain[0]).abs().max() > 1e-4
    steps, expected = ([call for call in made if call[1] == 1] for made in (calls, unchanged))
    assert len(steps) == 2 * len(attending_layers(model))
    for (layer, _, mask), (also, _, same) in zip(steps, expected, strict=True):
        assert layer == also
        assert mask is same is None or torch.equal(mask, same)
    whole = [layer for layer, queries, _ in calls if queries > 1]
    twice = [layer for layer in attending_layers(model) if whole.count(layer) == 2]
    assert twice == (list(attending_layers(model, 2)) if how.name == "capl" else [])


def test_the_mask_of_images_in_another_order_is_the_mask_in_that_order(lab):
    """Of images of one size: rows and columns of an image's tokens move with it."""
    model, processor = lab.load("qwen2.5-vl")
    rows = [(lab.EQUAL, "?")]
    inputs = lab.prepare(processor, rows)
    spans = image_spans(model, processor, inputs, 3)
    features = torch.rand(1, spans.length, 8, generator=torch.Generator().manual_seed(0))
    moved = features.clone()
    order = [2, 0, 1]
    index = torch.arange(spans.length)
    for place, image in enumerate(order):
        to, origin = spans.image[0, place], spans.image[0, image]
        moved[0, to[0] : to[1]] = features[0, origin[0] : origin[1]]
        index[to[0] : to[1]] = torch.arange(origin[0], origin[1])
    seen = [between(key_tokens(given, spans.owner, 0.5))[0] for given in (features, moved)]
    assert torch.equal(seen[1], seen[0][index][:, index])
    assert 0 < seen[0].sum() < between(spans.owner)[0].sum()
