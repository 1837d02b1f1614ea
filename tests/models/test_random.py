"""Models with random weights: offline, repeatable, of the published sizes."""

from __future__ import annotations

import pytest
import torch

from lad_eval.errors import UnknownNameError, UnsupportedModelError
from lad_eval.models.random import FAMILIES, SIZES, load_random

# Parameters of the published checkpoints, in billions. The embedding of a checkpoint may be padded, hence two digits.
PUBLISHED = {
    "qwen2-vl-2b": 2.21,
    "qwen2-vl-7b": 8.29,
    "qwen2.5-vl-3b": 3.75,
    "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-4b": 4.44,
    "qwen3-vl-8b": 8.77,
    "llava-1.5-7b": 7.06,
    "llava-next-7b": 7.57,
    "llava-onevision-7b": 8.03,
    "internvl3-8b": 7.94,
    "gemma3-4b": 4.30,
}


def load(family, **options):
    try:
        return load_random(family, **options)
    except UnsupportedModelError as fault:
        pytest.skip(str(fault))


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_are_tiny_and_complete(family):
    model, processor = load(family)
    assert not model.training
    assert model.dtype == torch.float32
    assert model.num_parameters() < 500_000
    text = model.config.get_text_config()
    assert 2 <= text.num_hidden_layers <= 4
    assert text.hidden_size == 64
    assert text.vocab_size == len(processor.tokenizer)
    assert processor.tokenizer.padding_side == "left"
    assert processor.chat_template
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert len(processor.tokenizer.encode("12", add_special_tokens=False)) == 2, "numbers are read digit by digit"
    assert processor.tokenizer.decode(processor.tokenizer.encode("naïve 图", add_special_tokens=False)) == "naïve 图"


@pytest.mark.parametrize("name", SIZES)
def test_real_sizes_have_the_published_number_of_parameters(name):
    model, processor = load_random(name, device="meta")
    assert model.num_parameters() / 1e9 == pytest.approx(PUBLISHED[name], abs=0.006)
    assert model.dtype == torch.bfloat16
    assert next(model.parameters()).is_meta
    assert processor.chat_template


def test_every_listed_size_is_checked():
    assert set(SIZES) == set(PUBLISHED)


def test_weights_follow_the_seed():
    def weights(seed):
        return torch.cat([p.flatten() for p in load_random("llava-1.5", seed=seed)[0].parameters()])

    state = torch.random.get_rng_state()
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers are left alone"


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3"])
def test_saved_and_loaded_again(family, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = load_random(family)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, same = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert type(same) is type(processor)
    assert same.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert same.chat_template == processor.chat_template


def test_dtype_and_attention_are_as_asked():
    model, _ = load_random("qwen2.5-vl", dtype="bfloat16", attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.get_decoder().config._attn_implementation == "eager"


def test_unknown_names_are_met_with_near_ones():
    with pytest.raises(UnknownNameError, match=r"Unknown model 'random:qwen2.5vl'. Did you mean 'random:qwen2.5-vl'"):
        load_random("qwen2.5vl")
    with pytest.raises(UnknownNameError, match="Did you mean 'random:internvl3-8b'"):
        load_random("internvl3-9b")
