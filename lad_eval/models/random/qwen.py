"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5: images of any size, one token per 2 x 2 patches, M-RoPE."""

from __future__ import annotations

from typing import Any

from lad_eval.models.random.family import TINY_TEXT, Family, Shape

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


def _qwen2_vl_processor(kind: str) -> Any:
    def make(tokenizer: Any, shape: Shape) -> Any:
        import transformers

        images = dict(shape.images)
        return getattr(transformers, kind)(
            image_processor=transformers.Qwen2VLImageProcessor(**images),
            tokenizer=tokenizer,
            video_processor=transformers.Qwen2VLVideoProcessor(**images),
        )

    return make


def _mrope(section: list[int], theta: float = 1_000_000.0) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": section, "rope_theta": theta}


_TINY_TEXT = {**TINY_TEXT, "rope_parameters": _mrope([2, 3, 3])}
_TINY_IMAGES = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 112 * 112}
_IMAGES = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 12_845_056}


def _qwen2_5_vl(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, tied: bool) -> Shape:
    return Shape(
        text={
            "vocab_size": 151_936 if tied else 152_064,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": _mrope([16, 24, 24]),
        },
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": hidden,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        top={"tie_word_embeddings": tied},
        images=_IMAGES,
    )


QWEN2_5_VL = Family(
    model_type="qwen2_5_vl",
    tokens=TOKENS,
    token_ids=TOKEN_IDS,
    template=TEMPLATE,
    processor=_qwen2_vl_processor("Qwen2_5_VLProcessor"),
    shapes={
        "": Shape(
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
        "3b": _qwen2_5_vl(2048, 11_008, 36, 16, 2, tied=True),
        "7b": _qwen2_5_vl(3584, 18_944, 28, 28, 4, tied=False),
    },
)
