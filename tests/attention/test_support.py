"""What an unsupported model is told, before any data is read."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from lad_eval.attention.support import check_supported
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.random import FAMILIES, load_random


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_family_is_supported(lab, family, attention):
    check_supported(*lab.load(family, attention))


def test_a_model_without_weights_is_checked_as_far_as_possible():
    check_supported(*load_random("qwen2.5-vl-3b", device="meta"))


def test_attention_of_its_own(lab):
    model, processor = load_random("llava-1.5")

    class HomeMadeAttention(torch.nn.Module):
        def forward(self, hidden_states, **_):
            return hidden_states, None

    for index in (0, 2):
        model.get_decoder().layers[index].self_attn = HomeMadeAttention()
    with pytest.raises(UnsupportedModelError) as fault:
        check_supported(model, processor)
    assert str(fault.value) == (
        "LlavaForConditionalGeneration is not supported: HomeMadeAttention (decoder layers 0, 2) does not go through "
        "transformers' attention functions, so its attention cannot be read."
    )


def test_a_model_that_cannot_read_text(lab):
    model, processor = load_random("llava-1.5")
    model.get_decoder().layers[0].mlp = torch.nn.Linear(3, 3)
    with pytest.raises(
        UnsupportedModelError, match=r"fails on a prompt of a few words \(RuntimeError: .*shapes cannot be multiplied"
    ):
        check_supported(model, processor)


def test_no_chat_template(lab):
    model, processor = load_random("llava-1.5")
    processor.chat_template = None
    with pytest.raises(UnsupportedModelError, match="no chat template; use a checkpoint tuned to follow instructions"):
        check_supported(model, processor)


def test_a_tokenizer_is_no_processor(lab):
    model, processor = lab.load("llava-1.5")
    with pytest.raises(UnsupportedModelError, match="lacks a tokenizer or an image processor"):
        check_supported(model, processor.tokenizer)


def test_no_image_token(lab):
    model, processor = load_random("llava-1.5")
    model.config = LlamaConfig()
    with pytest.raises(UnsupportedModelError, match="llama is not supported: its configuration names no image token"):
        check_supported(model, processor)


def test_no_decoder_layers(lab):
    model, processor = load_random("llava-1.5")
    del model.get_decoder().layers
    with pytest.raises(UnsupportedModelError, match=r"no list of decoder layers \(get_decoder\(\).layers\)"):
        check_supported(model, processor)


def test_layers_without_attention(lab):
    model, processor = load_random("llava-1.5")
    for layer in model.get_decoder().layers:
        del layer.self_attn
    with pytest.raises(UnsupportedModelError, match=r"no decoder layer has an attention module \(self_attn\)"):
        check_supported(model, processor)


def test_cross_attention(lab):
    model, processor = load_random("llava-1.5")
    model.get_decoder().layers[1].cross_attn = torch.nn.Identity()
    with pytest.raises(UnsupportedModelError, match="images enter it by cross-attention"):
        check_supported(model, processor)
