"""LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision and Pixtral in LLaVA's form: a vision tower, a projector, any decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lad_eval.models.random.family import TINY_TEXT, ModelFamily, ModelShape

_VICUNA_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }} "
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %} [/INST]"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
# Adjacent images: no token separates one from the next.
_ONEVISION_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIXTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST]{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}[IMG]{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}[/INST]"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
_LLAMA_TOKENS = {"named": {"image_token": "<image>"}, "bos": "<s>", "eos": "</s>", "pad": "<pad>", "adds_bos": True}
PIXTRAL_TOKENS = {
    "named": {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"},
    "extra": ("[INST]", "[/INST]"),
    "bos": "<s>",
    "eos": "</s>",
    "pad": "<pad>",
    "adds_bos": True,
}

_TINY_CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
}
TINY_SIGLIP = {k: v for k, v in _TINY_CLIP.items() if k != "projection_dim"} | {"vision_use_head": False}
TINY_PIXTRAL = {**TINY_SIGLIP, "image_size": 64}
del TINY_PIXTRAL["vision_use_head"]

_CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32_000,
}
_TINY_PINPOINTS = [[32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]
_NEXT_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_ONEVISION_PINPOINTS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]


def _clip_processor(kind: str, images: str) -> Callable[[Any, ModelShape], Any]:
    def make(tokenizer: Any, shape: ModelShape) -> Any:
        import transformers

        side = shape.vision["image_size"]
        options: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        if "image_grid_pinpoints" in shape.top:
            options["image_grid_pinpoints"] = shape.top["image_grid_pinpoints"]
        return getattr(transformers, kind)(
            image_processor=getattr(transformers, images)(**options),
            tokenizer=tokenizer,
            patch_size=shape.vision["patch_size"],
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,  # CLIP's class token, which the feature selection strategy drops again
        )

    return make


def _onevision_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side = shape.vision["image_size"]
    size = {"height": side, "width": side}
    return transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=shape.top["image_grid_pinpoints"]
        ),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(side // shape.vision["patch_size"]) ** 2,
        vision_feature_select_strategy="full",
    )


def pixtral_processor(tokenizer: Any, shape: ModelShape) -> Any:
    """Mistral3 and Pixtral differ in how many patches become one token."""
    import transformers

    patch, merge = shape.vision["patch_size"], shape.top.get("spatial_merge_size", 1)
    return transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(
            size={"longest_edge": shape.vision["image_size"]}, patch_size={"height": patch, "width": patch}
        ),
        tokenizer=tokenizer,
        patch_size=patch,
        spatial_merge_size=merge,
    )


LLAVA_1_5 = ModelFamily(
    model_type="llava",
    text_type="llama",
    vision_type="clip_vision_model",
    tokens=_LLAMA_TOKENS,
    token_ids={"image_token_index": "<image>"},
    template=_VICUNA_TEMPLATE,
    processor=_clip_processor("LlavaProcessor", "CLIPImageProcessor"),
    shapes={
        "": ModelShape(text=TINY_TEXT, vision=_TINY_CLIP),
        "7b": ModelShape(
            text={
                "vocab_size": 32_064,
                "hidden_size": 4096,
                "intermediate_size": 11_008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-5,
            },
            vision=_CLIP_L_336,
        ),
    },
)
LLAVA_NEXT = ModelFamily(
    model_type="llava_next",
    text_type="mistral",
    vision_type="clip_vision_model",
    tokens=_LLAMA_TOKENS,
    token_ids={"image_token_index": "<image>"},
    template=_MISTRAL_TEMPLATE,
    processor=_clip_processor("LlavaNextProcessor", "LlavaNextImageProcessor"),
    shapes={
        "": ModelShape(text=TINY_TEXT, vision=_TINY_CLIP, top={"image_grid_pinpoints": _TINY_PINPOINTS}),
        "7b": ModelShape(
            text={
                "vocab_size": 32_064,
                "hidden_size": 4096,
                "intermediate_size": 14_336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 32_768,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
                "sliding_window": None,
            },
            vision=_CLIP_L_336,
            top={"image_grid_pinpoints": _NEXT_PINPOINTS},
        ),
    },
)
LLAVA_ONEVISION = ModelFamily(
    model_type="llava_onevision",
    text_type="qwen2",
    vision_type="siglip_vision_model",
    tokens={
        "named": {"image_token": "<image>", "video_token": "<video>"},
        "extra": ("<|im_start|>",),
        "bos": None,
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
    },
    token_ids={"image_token_index": "<image>", "video_token_index": "<video>"},
    template=_ONEVISION_TEMPLATE,
    processor=_onevision_processor,
    shapes={
        "": ModelShape(text=TINY_TEXT, vision=TINY_SIGLIP, top={"image_grid_pinpoints": _TINY_PINPOINTS}),
        "7b": ModelShape(
            text={
                "vocab_size": 152_000,
                "hidden_size": 3584,
                "intermediate_size": 18_944,
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "max_position_embeddings": 32_768,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            },
            vision={
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 26,
                "num_attention_heads": 16,
                "image_size": 384,
                "patch_size": 14,
                "vision_use_head": False,
            },
            top={"image_grid_pinpoints": _ONEVISION_PINPOINTS},
        ),
    },
)
PIXTRAL = ModelFamily(
    model_type="llava",
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
            top={"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_seq_length": 1},
        ),
    },
)
