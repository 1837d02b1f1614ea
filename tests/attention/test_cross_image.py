"""Attention between images, opened and closed: against masks made by loops and matrices written out, on real tiny models."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.delimiter_scaling import DelimiterScaling
from lad_eval.attention.cross_image.masks import key_tokens
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.hooks import around_attention, attending_layers, attention_layers, decoder_layers
from lad_eval.attention.interventions import INTERVENTIONS, join_interventions, parse_intervention
from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.attention.recorder import record_last_row
from lad_eval.attention.spans import image_spans
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.inference.continuation import with_positions
from lad_eval.models.random import FAMILIES

# Their images see each other in the unchanged model.
OPEN = ("paligemma", "molmo2")
CLOSED = tuple(family for family in FAMILIES if family not in OPEN)
WITHOUT_DELIMITERS = ("llava-1.5", "llava-next", "llava-onevision", "paligemma", "cohere2-vision")


def prepared(lab, family, rows=None, implementation="sdpa", images=3):
    """A model, its inputs for prompts of images of unequal sizes, the shorter padded on the left, and their layout."""
    model, processor = lab.load(family, implementation)
    rows = lab.ROWS if rows is None else rows
    inputs = lab.prepare(processor, rows)
    layout = PromptLayout(
        inputs["input_ids"],
        image_spans(model, processor, inputs, images),
        inputs["attention_mask"].bool(),
        tuple(text for _, text in rows),
        processor.tokenizer.decode,
        no_padding,
        keys=tuple(text for _, text in rows),
    )
    return model, layout, with_positions(model, lab.for_model(inputs))


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[:, -1]


def under(intervention, model, layout, inputs):
    with intervention.applied(model, layout):
        return logits(model, inputs)


def entering(model, inputs):
    """Hidden states that enter the decoder's first layer."""
    taken = []
    handle = decoder_layers(model)[0].register_forward_pre_hook(lambda module, args: taken.append(args[0]))
    logits(model, inputs)
    handle.remove()
    return taken[0]


@contextmanager
def eager_decoder(model):
    """The same model with eager attention in its decoder; what its vision tower makes stays the same bit for bit."""
    configs = {id(module.config): module.config for module in attention_layers(model).values()}.values()
    for config in configs:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"


def chosen_by_hand(features, layout, rho):
    """The image of each key token, -1 elsewhere, by sorting one image's tokens after the other."""
    owner = layout.spans.owner
    result = torch.full_like(owner, -1)
    for b, row in enumerate(owner.tolist()):
        for image in range(max(row) + 1):
            places = [place for place, own in enumerate(row) if own == image]
            norms = {place: float(features[b, place].norm()) for place in places}
            for place in sorted(places, key=lambda place: (-norms[place], place))[: max(1, math.floor(rho * len(places)))]:
                result[b, place] = image
    return result


def between(image):
    """Bool[batch, T, T]: what leads from a token of one image to a token of another."""
    query, key = image[:, :, None], image[:, None, :]
    return (query >= 0) & (key >= 0) & (query != key)


def image_by_hand(layout):
    image = torch.full_like(layout.spans.owner, -1)
    for b, ranges in enumerate(layout.spans.image.tolist()):
        for k, (start, end) in enumerate(ranges):
            image[b, start:end] = k
    return image


def reachable(call, layout):
    """Bool[batch, 1, T, T]: what lies in one window or chunk in a layer, chunks beginning at a row's first real token."""
    places = torch.arange(layout.length)
    near = torch.ones(len(layout.ids), 1, layout.length, layout.length, dtype=torch.bool)
    if (window := call.options.get("sliding_window")) is not None:
        near &= (places[:, None] - places[None, :]).abs() < window
    if (getattr(call.module.config, "layer_types", None) or [""] * 9)[call.layer] == "chunked_attention":
        chunk = (places - (~layout.attended).sum(dim=1)[:, None]) // call.module.config.attention_chunk_size
        near &= (chunk[:, :, None] == chunk[:, None, :])[:, None]
    return near


def written_out(model, layout, inputs, mask_of, weight, every):
    """Logits of a model whose layers average the eager outputs of two masks, both whole; the weights are checked by hand."""
    layers = attending_layers(model, every)

    def around(call, run):
        if call.layer not in layers:
            return run(call.query, call.mask)
        first = additive_mask(call).expand(len(layout.ids), -1, -1, -1)
        (plain, weights), (other, _) = run(call.query, first), run(call.query, mask_of(call, first))
        if call.options.get("softcap") is None and call.options.get("s_aux") is None:
            groups = call.query.shape[1] // call.key.shape[1]
            scores = call.query @ call.key.repeat_interleave(groups, dim=1).transpose(-1, -2) * call.options["scaling"]
            torch.testing.assert_close(weights, (scores + first).softmax(dim=-1), atol=1e-5, rtol=0)
        return (1 - weight) * plain + weight * other, None

    with around_attention(model, around):
        return logits(model, inputs)


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


def test_key_tokens_by_hand():
    owner = torch.tensor([[-1, 0, 0, 0, 0, -1, 1, 1, 1, -1], [-1, -1, 0, 0, 0, -1, 1, 1, 1, 1]])
    norms = torch.tensor([[9.0, 1, 4, 4, 2, 9, 3, 5, 7, 9], [9.0, 9, 1, 1, 1, 9, 1, 2, 3, 4]])
    features = torch.stack([norms, torch.zeros_like(norms)], dim=-1)
    half = [[-1, -1, 0, 0, -1, -1, -1, -1, 1, -1], [-1, -1, 0, -1, -1, -1, -1, -1, 1, 1]]
    assert key_tokens(features, owner, 0.5).tolist() == half
    one = [[-1, -1, 0, -1, -1, -1, -1, -1, 1, -1], [-1, -1, 0, -1, -1, -1, -1, -1, -1, 1]]
    assert key_tokens(features, owner, 0.01).tolist() == one, "one token at least, of equals the first"
    assert torch.equal(key_tokens(features, owner, 1.0), owner)


@pytest.mark.parametrize("family", OPEN)
def test_where_images_see_each_other_already_fused_attention_is_an_error(lab, family):
    model, layout, inputs = prepared(lab, family)
    with pytest.raises(UnsupportedModelError, match="capl changed no attention call, as its images see each other already"):
        under(Capl(), model, layout, inputs)


@pytest.mark.parametrize("how", [Capl(), Truncated(), DelimiterScaling(layers=2)], ids=lambda how: how.name)
def test_a_forward_pass_that_is_not_the_prompts_is_an_error(lab, how):
    model, layout, _ = prepared(lab, "qwen2.5-vl")
    with pytest.raises(UnsupportedModelError, match=f"{how.name}.* changed no attention call"):
        under(how, model, layout, {"input_ids": torch.ones(1, 4, dtype=torch.long)})


@pytest.mark.parametrize("how", [Capl(), Truncated()], ids=lambda how: how.name)
def test_flash_attention_is_refused_before_the_model_runs(lab, how):
    model, layout, _ = prepared(lab, "qwen2.5-vl")
    config = model.get_decoder().layers[0].self_attn.config
    config._attn_implementation = "flash_attention_2"
    try:
        with (
            pytest.raises(UnsupportedModelError, match=r"'flash_attention_2' takes no mask of single entries.* --attn sdpa"),
            how.applied(model, layout),
        ):
            pytest.fail("the context was opened")
    finally:
        config._attn_implementation = "sdpa"


@pytest.mark.parametrize("how", [Capl(every=1), Truncated()], ids=lambda how: how.name)
@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3"])
def test_where_tokens_left_the_rest_is_changed(lab, family, how):
    pruners = [RandomTokens(keep=0.5, layer=1, how=form) for form in ("drop", "mask")]
    model, layout, inputs = prepared(lab, family)
    alone = under(pruners[0], model, layout, inputs)
    outside = [under(join_interventions([how, pruner]), model, layout, inputs) for pruner in pruners]
    inside = [under(join_interventions([pruner, how]), model, layout, inputs) for pruner in pruners]
    for result in (*outside, *inside):
        torch.testing.assert_close(result, outside[0], atol=1e-4, rtol=0)
    assert (outside[0] - alone).abs().max() > 1e-4


def test_the_recorder_reads_the_last_row_of_the_unchanged_mask(lab):
    model, layout, inputs = prepared(lab, "qwen2.5-vl")
    with record_last_row(model, layout.spans) as recorder:
        logits(model, inputs)
    with Capl().applied(model, layout), record_last_row(model, layout.spans) as fused:
        logits(model, inputs)
    torch.testing.assert_close(fused.attention()[0][:, 0], recorder.attention()[0][:, 0], atol=0, rtol=0)
    assert (fused.attention()[0][:, 1] - recorder.attention()[0][:, 1]).abs().max() > 1e-4


def test_layers_that_attend_are_counted(lab):
    model, layout, inputs = prepared(lab, "qwen3.5")  # layers 1 and 3 attend
    for every, layers in ((1, [1, 3]), (2, [1]), (3, [1])):
        calls = []
        with Capl(every=every).applied(model, layout):

            def counted(call, run, calls=calls):
                calls.append(call.layer)
                return run(call.query, call.mask)

            with around_attention(model, counted):
                logits(model, inputs)
        assert [layer for layer in (1, 3) if calls.count(layer) == 2] == layers


def test_delimiters_are_scaled_in_the_prefill_and_nothing_else(lab):
    model, layout, inputs = prepared(lab, "qwen2.5-vl")
    token = [model.config.vision_start_token_id, model.config.vision_end_token_id]
    delimiters = torch.isin(layout.ids, torch.tensor(token))
    assert delimiters.sum() == 12
    outputs = []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: outputs.append(args[0])) for layer in model.get_decoder().layers
    ]
    plain = logits(model, inputs)
    before = outputs[1].clone()
    outputs.clear()
    scaled = under(DelimiterScaling(scale=4.0, layers=1), model, layout, inputs)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(outputs[1][delimiters], 4 * before[delimiters], atol=0, rtol=0)
    torch.testing.assert_close(outputs[1][~delimiters], before[~delimiters], atol=0, rtol=0)
    assert (scaled - plain).abs().max() > 1e-4
    assert torch.equal(under(DelimiterScaling(scale=1.0, layers=2), model, layout, inputs), plain)


def test_delimiter_scaling_says_what_it_cannot_do(lab):
    model, layout, inputs = prepared(lab, "qwen2.5-vl")
    with pytest.raises(UserError, match=r"scales after the first 4 decoder layers, and Qwen.* has 3; write .*layers=3\)"):
        under(DelimiterScaling(), model, layout, inputs)
    pruner, scaling = FastV(keep=0.5, layer=1), DelimiterScaling(layers=2)
    with pytest.raises(UserError, match=r"must stand behind what drops tokens, such as fastv\+delimiter-scaling"):
        under(join_interventions([scaling, pruner]), model, layout, inputs)
    assert under(join_interventions([pruner, scaling]), model, layout, inputs).isfinite().all()
    plain, without, given = prepared(lab, "llava-1.5")
    with pytest.raises(UnsupportedModelError, match="puts no special tokens around its images"):
        under(DelimiterScaling(layers=2), plain, without, given)


def test_names_and_parameters():
    assert INTERVENTIONS["capl"] is Capl
    assert INTERVENTIONS["truncated"] is Truncated
    made = parse_intervention("capl(rho=0.9, weight=0.25, every=1)")
    assert made == Capl(rho=0.9, weight=0.25, every=1)
    assert made.label == "capl(rho=0.9, weight=0.25, every=1)"
    assert Capl().facts == {"name": "capl", "rho": 0.95, "weight": 0.5, "every": 2}
    assert parse_intervention("delimiter-scaling(scale=4, layers=2)") == DelimiterScaling(scale=4, layers=2)
    for text, says in [
        ("capl(rho=0)", "rho of capl must be a number above 0 and at most 1, not"),
        ("capl(weight=2)", "weight of capl must be a number of 0 to 1, not"),
        ("capl(every=0)", "every of capl must be a whole number of at least 1"),
        ("truncated(rho=1)", "truncated has no parameter 'rho'"),
        ("delimiter-scaling(scale=0)", "scale of delimiter-scaling must be a number above 0"),
        ("capl+truncated", "capl and truncated are cross-image masks, and a method has one cross-image mask at most"),
    ]:
        with pytest.raises(UserError, match=says):
            parse_intervention(text)
