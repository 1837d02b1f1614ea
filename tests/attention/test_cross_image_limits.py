"""Attention between images: key tokens and delimiters by hand, and what is refused or left as it is."""

from __future__ import annotations

import pytest
import torch

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.delimiter_scaling import DelimiterScaling
from lad_eval.attention.cross_image.masks import key_tokens
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.hooks import around_attention
from lad_eval.attention.interventions import INTERVENTIONS, join_interventions, parse_intervention
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.attention.recorder import record_last_row
from lad_eval.errors import UnsupportedModelError, UserError
from tests.attention.cross_image_prompts import (
    OPEN,
    logits,
    prepared,
    under,
)


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
    with pytest.raises(UnsupportedModelError, match="capl changed no attention call, as its images attend to each other already"):
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
    with pytest.raises(UserError, match=r"must be written after what drops tokens, such as fastv\+delimiter-scaling"):
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
