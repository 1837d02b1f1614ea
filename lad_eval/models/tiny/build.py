"""Tokenizer, processor and configuration of the embedded model: small, but of the standard classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.models.tiny.vocabulary import PUNCTUATION, SPECIAL, TAGS, vocabulary

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor

LAYERS = 8
WIDTH = 128
HEADS = 4
SIDE = 64
PATCH = 8
IMAGE_TOKENS = (SIDE // PATCH // 2) ** 2

# The format of Qwen's chat: a system turn is added where none is given; images stand between vision delimiters.
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def build_processor() -> Qwen2_5_VLProcessor:
    """Word-level tokenizer with a spelling fallback, images of 64 x 64 pixels in 16 tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    core = Tokenizer(models.WordPiece(vocab=vocabulary(), unk_token="<unk>", max_input_chars_per_word=64))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]"), behavior="removed", invert=True)
    core.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIAL[1:-1]),
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(TAGS))
    pixels: dict[str, Any] = {
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def build_config() -> Qwen2_5_VLConfig:
    """Qwen2.5-VL with 8 decoder layers of width 128 and a vision tower of 3 layers of width 96."""
    from transformers import Qwen2_5_VLConfig

    ids = vocabulary()
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(ids) // 8) * 8,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": SIDE,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0, 1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def write_generation_config(folder: Path) -> None:
    """Greedy by default; the end of a turn and of a text both end an answer."""
    ids = vocabulary()
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    content = {"do_sample": False, "eos_token_id": ends, "pad_token_id": ids["<|endoftext|>"], "max_new_tokens": 8}
    (folder / "generation_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


__all__ = ["CHAT_TEMPLATE", "IMAGE_TOKENS", "PUNCTUATION", "build_config", "build_processor", "write_generation_config"]
