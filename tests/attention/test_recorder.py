"""The recorded rows against eager attention's weights, on tiny random models of every family."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lad_eval.attention.hooks import AttentionCall, observe_attention, transform_mask
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.recorder import record_last_row
from lad_eval.attention.spans import Spans, image_spans
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.random import FAMILIES


def record(model, spans, inputs, **options):
    with torch.no_grad(), record_last_row(model, spans) as recorder:
        output = model(**inputs, use_cache=True, logits_to_keep=1, **options)
    return recorder, output


def pooled(attentions, ranges):
    """The obvious way: sum the last row of every layer's full matrix over each range."""
    rows = torch.stack([weights.float().mean(dim=1)[:, -1] for weights in attentions], dim=1)
    return torch.stack(
        [torch.stack([rows[b, :, start:end].sum(dim=-1) for start, end in row], dim=-1) for b, row in enumerate(ranges.tolist())]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_eager_attention_and_do_not_depend_on_the_batch(lab, family):
    model, processor = lab.load(family)
    eager, _ = lab.load(family, "eager")
    alone = []
    for rows in ([lab.ROWS[0]], [lab.ROWS[1]], lab.ROWS):
        inputs = lab.prepare(processor, rows)
        spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
        recorder, output = record(model, spans, inputs)
        plain, delimited = recorder.attention()
        eager_recorder, reference = record(eager, spans, inputs, output_attentions=True)
        weights = [layer for layer in reference.attentions if layer is not None]

        assert plain.dtype == torch.float32
        assert plain.shape == (len(rows), len(recorder.layers), 3)
        assert len(weights) == len(recorder.layers)
        torch.testing.assert_close(plain, pooled(weights, spans.image), atol=2e-5, rtol=0)
        torch.testing.assert_close(delimited, pooled(weights, spans.delimited), atol=2e-5, rtol=0)
        torch.testing.assert_close(eager_recorder.attention()[0], plain, atol=2e-5, rtol=0)
        torch.testing.assert_close(output.logits[:, -1], reference.logits[:, -1], atol=1e-4, rtol=0)
        assert (delimited >= plain - 1e-6).all()
        assert plain.std() > 1e-3, "a model that attends evenly would prove little"
        alone.append(plain)
    torch.testing.assert_close(torch.cat(alone[:2]), alone[2], atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_maps_equal_eager_attention(lab, family):
    model, processor = lab.load(family)
    eager, _ = lab.load(family, "eager")
    inputs = lab.prepare(processor, lab.ROWS)
    spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
    queries = torch.zeros(spans.owner.shape, dtype=torch.bool)
    queries[0, -5:-2] = queries[1, -7:-3] = True
    with torch.no_grad(), record_last_row(model, spans, queries) as recorder:
        if family == "gemma4":  # its upper layers attend from the last token only
            with pytest.raises(UnsupportedModelError, match="no token map"):
                model(**inputs, use_cache=True, logits_to_keep=1)
            return
        model(**inputs, use_cache=True, logits_to_keep=1)
    _, reference = record(eager, spans, inputs, output_attentions=True)
    weights = [layer.float().mean(dim=1) for layer in reference.attentions if layer is not None]
    for row, tokens in enumerate(recorder.token_maps()):
        mean = sum(layer[row, queries[row]].mean(dim=0) for layer in weights)
        torch.testing.assert_close(tokens, mean[spans.owner[row] >= 0], atol=2e-5 * len(weights), rtol=0)


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl", "llava-1.5", "llava-onevision", "gemma3", "internvl"])
def test_where_tokens_were_dropped_the_rest_count_for_their_images(lab, family):
    model, processor = lab.load(family)
    inputs = lab.prepare(processor, lab.ROWS)
    spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
    numbers = torch.rand(spans.owner.shape, generator=torch.Generator().manual_seed(0))
    keep = inputs["attention_mask"].bool() & ((spans.owner < 0) | (numbers < 0.5))
    keep[0] &= ~((spans.owner[0] == 1) & (numbers[0] < 0.9))  # of one image hardly anything is left
    gone = {b: (~row).sum().item() for b, row in enumerate(keep)}
    assert gone[0] != gone[1], "rows of different lengths"

    def masked(call):
        if call.layer < 1:
            return call.mask
        mask = additive_mask(call)
        closed = ~keep[:, None, None, :] & ~torch.eye(spans.length, dtype=torch.bool)
        return mask.expand(len(keep), *mask.shape[1:]).masked_fill(closed, torch.finfo(mask.dtype).min)

    with transform_mask(model, masked), record_last_row(model, spans) as reference, torch.no_grad():
        slow = model(**inputs, use_cache=False).logits[:, -1]
    with lab.dropped(model, keep, before=1), record_last_row(model, spans) as recorder, torch.no_grad():
        fast = model(**inputs, use_cache=False).logits[:, -1]
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=0)
    torch.testing.assert_close(recorder.attention(), reference.attention(), atol=1e-5, rtol=0)
    plain, _ = record(model, spans, inputs)
    assert (plain.attention()[0][:, 0] - recorder.attention()[0][:, 0]).abs().max() < 1e-5, "nothing was dropped before layer 0"
    assert (plain.attention()[0][:, 1:] - recorder.attention()[0][:, 1:]).abs().max() > 1e-3


def test_rows_of_kept_keys_by_hand(lab):
    model, _ = lab.load("llava-1.5")
    owner = torch.tensor([[-1, 0, 0, -1, 1, 2, 2, -1], [-1, -1, 0, 1, 1, 1, 2, -1]])
    image = torch.tensor([[[1, 3], [4, 5], [5, 7]], [[2, 3], [3, 6], [6, 7]]])
    spans = Spans(image, image + torch.tensor([-1, 0]), owner)  # the token before each image belongs to it when delimited
    positions = torch.tensor([[0, 2, 3, 5, 7], [-1, 2, 4, 5, 7]])
    module = torch.nn.Module()
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    mask[1, ..., 0] = False  # its padding
    query = torch.zeros(2, 1, 5, 4)
    with record_last_row(model, spans) as recorder:
        for layer in recorder.layers:
            recorder.observe(AttentionCall(layer, module, query, query, mask, {}, positions))
    plain, delimited = recorder.attention()
    # Every key that is seen takes the same: a fifth in the first row, a quarter in the second.
    assert plain[0, 0].tolist() == pytest.approx([1 / 5, 0, 1 / 5])
    assert plain[1, 0].tolist() == pytest.approx([1 / 4, 2 / 4, 0])
    assert delimited[0, 0].tolist() == pytest.approx([2 / 5, 1 / 5, 1 / 5])
    assert delimited[1, 0].tolist() == pytest.approx([1 / 4, 3 / 4, 1 / 4])


def test_a_hybrid_says_which_layers_attend(lab):
    model, processor = lab.load("qwen3.5")
    inputs = lab.prepare(processor, lab.ROWS)
    recorder, _ = record(model, image_spans(model, processor, inputs, 3), lab.for_model(inputs))
    assert recorder.layers == (1, 3)


def test_recording_changes_nothing_and_leaves_nothing_behind(lab):
    model, processor = lab.load("llava-1.5")
    inputs = lab.prepare(processor, lab.ROWS)
    spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with torch.no_grad():
        plain = model(**inputs, logits_to_keep=1).logits
    _, output = record(model, spans, inputs)
    assert torch.equal(plain, output.logits)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    with pytest.raises(ZeroDivisionError), record_last_row(model, spans):
        raise ZeroDivisionError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_nested_hooks_wrap_once_and_every_observer_hears(lab):
    model, _ = lab.load("llava-1.5")
    before, heard = ALL_ATTENTION_FUNCTIONS["sdpa"], {"outer": 0, "inner": 0}

    def listen(name):
        return lambda call: heard.update({name: heard[name] + 1})

    ids = torch.ones(1, 4, dtype=torch.long)
    with torch.no_grad(), observe_attention(model, listen("outer")):
        once = ALL_ATTENTION_FUNCTIONS["sdpa"]
        with observe_attention(model, listen("inner")):
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is once
            assert once.__wrapped__ is before
            model(input_ids=ids)
        model(input_ids=ids)
    assert heard == {"outer": 6, "inner": 3}
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_another_model_is_not_recorded(lab):
    model, processor = lab.load("llava-1.5")
    other, _ = lab.load("llava-onevision")
    spans = image_spans(model, processor, lab.prepare(processor, lab.ROWS), 3)
    ids = torch.ones(2, spans.length, dtype=torch.long)
    with torch.no_grad(), record_last_row(model, spans) as recorder:
        other(input_ids=ids)
    with pytest.raises(UnsupportedModelError, match=r"decoder layers 0, 1, 2 gave no attention row"):
        recorder.attention()


def test_decoding_steps_are_not_recorded(lab):
    model, processor = lab.load("qwen2.5-vl")
    inputs = lab.prepare(processor, lab.ROWS)
    spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
    once, _ = record(model, spans, inputs)
    with torch.no_grad(), record_last_row(model, spans) as recorder:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    torch.testing.assert_close(recorder.attention(), once.attention())


def test_the_empty_tail_of_a_static_cache_is_left_out(lab):
    from transformers import StaticCache

    model, processor = lab.load("llava-onevision")
    for rows in (lab.ROWS[:1], lab.ROWS):
        inputs = lab.prepare(processor, rows)
        spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
        dynamic, _ = record(model, spans, inputs)
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=spans.length + 20)
        static, _ = record(model, spans, inputs, past_key_values=cache)
        torch.testing.assert_close(static.attention(), dynamic.attention(), atol=2e-6, rtol=0)


def test_a_half_precision_model_gives_float32_rows(lab):
    from lad_eval.models.random import load_random

    model, processor = load_random("llava-onevision", dtype="bfloat16")
    inputs = lab.prepare(processor, lab.ROWS)
    spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
    recorder, _ = record(model, spans, {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()})
    plain, _ = recorder.attention()
    assert plain.dtype == torch.float32
    assert (plain.sum(dim=-1) < 1 + 1e-5).all()


def test_a_layer_that_attends_by_itself_is_an_error(lab):
    from lad_eval.models.random import load_random

    model, processor = load_random("llava-1.5")
    attention = model.get_decoder().layers[1].self_attn
    attention.forward = lambda hidden_states, **_: (hidden_states, None)
    inputs = lab.prepare(processor, lab.ROWS)
    recorder, _ = record(model, image_spans(model, processor, inputs, 3), lab.for_model(inputs))
    with pytest.raises(UnsupportedModelError, match="Generation is not supported: decoder layer 1 gave no attention row"):
        recorder.attention()


def test_two_passes_in_one_recording_are_an_error(lab):
    model, processor = lab.load("llava-1.5")
    inputs = lab.prepare(processor, lab.ROWS)
    spans, inputs = image_spans(model, processor, inputs, 3), lab.for_model(inputs)
    with torch.no_grad(), record_last_row(model, spans):
        model(**inputs)
        with pytest.raises(UnsupportedModelError, match="layer 0 attends more than once in a pass"):
            model(**inputs)


def test_rows_that_are_not_finite_are_an_error(lab):
    from lad_eval.models.random import load_random

    model, processor = load_random("llava-1.5")
    with torch.no_grad():
        model.get_decoder().layers[2].self_attn.q_proj.weight.fill_(torch.nan)
    inputs = lab.prepare(processor, lab.ROWS)
    recorder, _ = record(model, image_spans(model, processor, inputs, 3), lab.for_model(inputs))
    with pytest.raises(UnsupportedModelError, match="attention of decoder layer 2 is not finite; try dtype bfloat16 or float32"):
        recorder.attention()
