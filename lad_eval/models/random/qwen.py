"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5: images of any size, one token per 2 x 2 patches, M-RoPE."""

from __future__ import annotations

from typing import Any

from lad_eval.models.random.family import TINY_TEXT, ModelFamily, ModelShape

TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS = {
    "named": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
    "extra": ("<|im_start|>",),
    "bos": None,
    "eos": "<|im_end|>",
    "pad": "<|endoftext|>",
}
TOKEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def _qwen_processor(kind: str) -> Any:
    def make(tokenizer: Any, shape: ModelShape) -> Any:
        import transformers

        images = dict(shape.images)
        videos = transformers.Qwen3VLVideoProcessor if kind == "Qwen3VLProcessor" else transformers.Qwen2VLVideoProcessor
        return getattr(transformers, kind)(
            image_processor=transformers.Qwen2VLImageProcessor(**images),
            tokenizer=tokenizer,
            video_processor=videos(patch_size=images["patch_size"], merge_size=images["merge_size"]),
        )

    return make


def _mrope(section: list[int], theta: float = 1_000_000.0, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": section, "rope_theta": theta, **more}


_TINY_TEXT = {**TINY_TEXT, "rope_parameters": _mrope([2, 3, 3])}
_TINY_IMAGES = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 112 * 112}
_IMAGES = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 12_845_056}
_QWEN3_IMAGES = {"patch_size": 16, "merge_size": 2, "min_pixels": 256 * 256, "max_pixels": 4096 * 4096}


def _qwen2_text(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, *, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": _mrope([16, 24, 24]),
    }


def _qwen2_vision(out: int) -> dict[str, Any]:
    return {"depth": 32, "embed_dim": 1280, "hidden_size": out, "num_heads": 16, "mlp_ratio": 4}


def _qwen2_5_vision(out: int) -> dict[str, Any]:
    return {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": out,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }


def _qwen3_text(hidden: int, inner: int) -> dict[str, Any]:
    return {
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rms_norm_eps": 1e-6,
        "rope_parameters": _mrope([24, 20, 20], theta=5_000_000.0, mrope_interleaved=True),
    }


def _qwen3_vision(depth: int, hidden: int, inner: int, out: int, deepstack: list[int]) -> dict[str, Any]:
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_heads": 16,
        "out_hidden_size": out,
        "deepstack_visual_indexes": deepstack,
    }


_TINY_QWEN3_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
}

QWEN2_VL = ModelFamily(
    model_type="qwen2_vl",
    tokens=TOKENS,
    token_ids=TOKEN_IDS,
    template=TEMPLATE,
    processor=_qwen_processor("Qwen2VLProcessor"),
    shapes={
        "": ModelShape(
            text=_TINY_TEXT,
            vision={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
            images=_TINY_IMAGES,
        ),
        "2b": ModelShape(
            text=_qwen2_text(1536, 8960, 28, 12, 2, vocabulary=151_936),
            vision=_qwen2_vision(1536),
            top={"tie_word_embeddings": True},
            images=_IMAGES,
        ),
        "7b": ModelShape(
            text=_qwen2_text(3584, 18_944, 28, 28, 4, vocabulary=152_064), vision=_qwen2_vision(3584), images=_IMAGES
        ),
    },
)
QWEN2_5_VL = ModelFamily(
    model_type="qwen2_5_vl",
    tokens=TOKENS,
    token_ids=TOKEN_IDS,
    template=TEMPLATE,
    processor=_qwen_processor("Qwen2_5_VLProcessor"),
    shapes={
        "": ModelShape(
            text=_TINY_TEXT,
            vision={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "out_hidden_size": 64,
                "window_size": 56,
                "fullatt_block_indexes": [1],
            },
            images=_TINY_IMAGES,
        ),
        "3b": ModelShape(
            text=_qwen2_text(2048, 11_008, 36, 16, 2, vocabulary=151_936),
            vision=_qwen2_5_vision(2048),
            top={"tie_word_embeddings": True},
            images=_IMAGES,
        ),
        "7b": ModelShape(
            text=_qwen2_text(3584, 18_944, 28, 28, 4, vocabulary=152_064), vision=_qwen2_5_vision(3584), images=_IMAGES
        ),
    },
)
QWEN3_VL = ModelFamily(
    model_type="qwen3_vl",
    tokens=TOKENS,
    token_ids=TOKEN_IDS,
    template=TEMPLATE,
    processor=_qwen_processor("Qwen3VLProcessor"),
    shapes={
        "": ModelShape(
            text={**TINY_TEXT, "head_dim": 16, "rope_parameters": _mrope([4, 2, 2], mrope_interleaved=True)},
            vision={**_TINY_QWEN3_VISION, "deepstack_visual_indexes": [0]},
            images=_TINY_IMAGES,
        ),
        "4b": ModelShape(
            text=_qwen3_text(2560, 9728),
            vision=_qwen3_vision(24, 1024, 4096, 2560, [5, 11, 17]),
            top={"tie_word_embeddings": True},
            images=_QWEN3_IMAGES,
        ),
        "8b": ModelShape(
            text=_qwen3_text(4096, 12_288), vision=_qwen3_vision(27, 1152, 4304, 4096, [8, 16, 24]), images=_QWEN3_IMAGES
        ),
    },
)
QWEN3_5 = ModelFamily(
    model_type="qwen3_5",
    tokens=TOKENS,
    token_ids=TOKEN_IDS,
    template=TEMPLATE,
    processor=_qwen_processor("Qwen3VLProcessor"),
    shapes={
        "": ModelShape(
            text={
                **TINY_TEXT,
                "num_hidden_layers": 4,
                "layer_types": ["linear_attention", "full_attention"] * 2,
                "head_dim": 32,
                "linear_key_head_dim": 16,
                "linear_value_head_dim": 16,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "rope_parameters": _mrope([2, 1, 1], partial_rotary_factor=0.25, mrope_interleaved=True),
            },
            vision=_TINY_QWEN3_VISION,
            images=_TINY_IMAGES,
        ),
    },
)
