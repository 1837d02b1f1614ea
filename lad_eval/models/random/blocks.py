"""Gemma 3, PaliGemma, Mistral 3 and Llama 4: masks that open an image to itself, sliding windows, chunks, row breaks."""

from __future__ import annotations

from typing import Any

from lad_eval.models.random.family import TINY_TEXT, ModelFamily, ModelShape
from lad_eval.models.random.llava import PIXTRAL_TEMPLATE, PIXTRAL_TOKENS, TINY_PIXTRAL, TINY_SIGLIP, pixtral_processor
from lad_eval.models.random.qwen import QWEN3_VL

_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# PaliGemma is not a chat model: the images, then the text; its processor puts the begin-of-sequence token between them.
_PALIGEMMA_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def _gemma3_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side = shape.vision["image_size"]
    return transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": side, "width": side}),
        tokenizer=tokenizer,
        image_seq_length=shape.top["mm_tokens_per_image"],
    )


def _paligemma_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side = shape.vision["image_size"]
    images = transformers.SiglipImageProcessor(size={"height": side, "width": side})
    images.image_seq_length = (side // shape.vision["patch_size"]) ** 2
    return transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)


GEMMA3 = ModelFamily(
    model_type="gemma3",
    vision_type="siglip_vision_model",
    tokens={
        "named": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        "extra": ("<start_of_turn>",),
        "bos": "<bos>",
        "eos": "<end_of_turn>",
        "pad": "<pad>",
        "adds_bos": True,
    },
    token_ids={
        "image_token_index": "<image_soft_token>",
        "boi_token_index": "<start_of_image>",
        "eoi_token_index": "<end_of_image>",
    },
    template=_GEMMA_TEMPLATE,
    processor=_gemma3_processor,
    shapes={
        "": ModelShape(
            text={
                **TINY_TEXT,
                "head_dim": 16,
                "query_pre_attn_scalar": 16,
                "sliding_window": 40,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            vision=TINY_SIGLIP,
            top={"mm_tokens_per_image": 4},
        ),
        "4b": ModelShape(
            text={
                "vocab_size": 262_208,
                "hidden_size": 2560,
                "intermediate_size": 10_240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "query_pre_attn_scalar": 256,
                "sliding_window": 1024,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                },
            },
            vision={
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 896,
                "patch_size": 14,
                "vision_use_head": False,
            },
            top={"mm_tokens_per_image": 256},
        ),
    },
)
MISTRAL3 = ModelFamily(
    model_type="mistral3",
    text_type="mistral",
    vision_type="pixtral",
    tokens=PIXTRAL_TOKENS,
    token_ids={"image_token_index": "[IMG]"},
    template=PIXTRAL_TEMPLATE,
    processor=pixtral_processor,
    shapes={
        "": ModelShape(
            text={**TINY_TEXT, "head_dim": 16},
            vision=TINY_PIXTRAL,
            top={"spatial_merge_size": 2, "vision_feature_layer": -1, "tie_word_embeddings": False},
        ),
    },
)
PALIGEMMA = ModelFamily(
    model_type="paligemma",
    text_type="gemma",
    vision_type="siglip_vision_model",
    tokens={"named": {"image_token": "<image>"}, "bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
    token_ids={"image_token_index": "<image>"},
    template=_PALIGEMMA_TEMPLATE,
    processor=_paligemma_processor,
    shapes={
        "": ModelShape(
            text={**TINY_TEXT, "head_dim": 16},
            vision={**TINY_SIGLIP, "projection_dim": 64},
            top={"projection_dim": 64, "hidden_size": 64},
        ),
    },
)


_LLAMA4_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|header_start|>{{ message['role'] }}<|header_end|>\n\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
)


def _llama4_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side = shape.vision["image_size"]
    return transformers.Llama4Processor(
        image_processor=transformers.Llama4ImageProcessor(size={"height": side, "width": side}, **shape.images),
        tokenizer=tokenizer,
        patch_size=shape.vision["patch_size"],
        pixel_shuffle_ratio=shape.vision["pixel_shuffle_ratio"],
    )


LLAMA4 = ModelFamily(
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
        "": ModelShape(
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
QWEN3_VL_MOE = ModelFamily(
    model_type="qwen3_vl_moe",
    tokens=QWEN3_VL.tokens,
    token_ids=QWEN3_VL.token_ids,
    template=QWEN3_VL.template,
    processor=QWEN3_VL.processor,
    shapes={
        "": ModelShape(
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
