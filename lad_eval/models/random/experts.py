"""Llama 4 and the mixture-of-experts Qwen3-VL: every token goes through a few of many experts."""

from __future__ import annotations

from typing import Any

from lad_eval.models.random.family import TINY_TEXT, Family, Shape
from lad_eval.models.random.qwen import QWEN3_VL

_LLAMA4_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|header_start|>{{ message['role'] }}<|header_end|>\n\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
)


def _llama4_processor(tokenizer: Any, shape: Shape) -> Any:
    import transformers

    side = shape.vision["image_size"]
    return transformers.Llama4Processor(
        image_processor=transformers.Llama4ImageProcessor(size={"height": side, "width": side}, **shape.images),
        tokenizer=tokenizer,
        patch_size=shape.vision["patch_size"],
        pixel_shuffle_ratio=shape.vision["pixel_shuffle_ratio"],
    )


LLAMA4 = Family(
    model_type="llama4",
    tokens={
        "named": {"image_token": "<|image|>", "patch_token": "<|patch|>"},
        "extra": (
            "<|image_start|>",
            "<|image_end|>",
            "<|tile_x_separator|>",
            "<|tile_y_separator|>",
            "<|header_start|>",
            "<|header_end|>",
        ),
        "bos": "<|begin_of_text|>",
        "eos": "<|eot|>",
        "pad": "<|finetune_right_pad|>",
        "adds_bos": True,
    },
    token_ids={
        "image_token_index": "<|patch|>",
        "boi_token_index": "<|image_start|>",
        "eoi_token_index": "<|image_end|>",
    },
    template=_LLAMA4_TEMPLATE,
    processor=_llama4_processor,
    shapes={
        "": Shape(
            text={
                **TINY_TEXT,
                "head_dim": 16,
                "intermediate_size_mlp": 96,
                "num_local_experts": 4,
                "moe_layers": [1],
                "no_rope_layers": [1, 0, 1],
                "attention_chunk_size": 64,
            },
            vision={
                "hidden_size": 32,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 7,
                "pixel_shuffle_ratio": 0.5,
                "projector_input_dim": 48,
                "projector_output_dim": 48,
                "vision_output_dim": 48,
            },
            images={"max_patches": 4},
        ),
    },
)
_TINY_QWEN3 = QWEN3_VL.shapes[""]
QWEN3_VL_MOE = Family(
    model_type="qwen3_vl_moe",
    tokens=QWEN3_VL.tokens,
    token_ids=QWEN3_VL.token_ids,
    template=QWEN3_VL.template,
    processor=QWEN3_VL.processor,
    shapes={
        "": Shape(
            text={
                **_TINY_QWEN3.text,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 48,
                "mlp_only_layers": [0],
            },
            vision=_TINY_QWEN3.vision,
            images=_TINY_QWEN3.images,
        ),
    },
)
