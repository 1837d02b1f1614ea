"""Ovis2, Command A Vision, LFM2-VL, MiniCPM-V 4.6 and Molmo2: an overview of an image, and crops of it."""

from __future__ import annotations

from typing import Any

from lad_eval.models.random.family import TINY_TEXT, ModelFamily, ModelShape
from lad_eval.models.random.llava import TINY_SIGLIP
from lad_eval.models.random.qwen import QWEN3_5

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COHERE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|START_OF_TURN_TOKEN|>"
    "{{ '<|CHATBOT_TOKEN|>' if message['role'] == 'assistant' else '<|USER_TOKEN|>' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|IMG_PATCH|>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|END_OF_TURN_TOKEN|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
_TINY_SIDE = 32


def _chatml(image: str, *, begin: str = "") -> str:
    return begin + _CHATML.replace("IMAGE", image)


def _ovis2_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side, patch = shape.vision["image_size"], shape.vision["patch_size"]
    return transformers.Ovis2Processor(
        image_processor=transformers.Ovis2ImageProcessor(size={"height": side, "width": side}, **shape.images),
        tokenizer=tokenizer,
        image_seq_length=(side // patch // shape.vision["hidden_stride"]) ** 2,
    )


def _cohere2_vision_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side = shape.vision["image_size"]
    return transformers.Cohere2VisionProcessor(
        image_processor=transformers.Cohere2VisionImageProcessor(size={"height": side, "width": side}, **shape.images),
        tokenizer=tokenizer,
    )


def _lfm2_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    return transformers.Lfm2VlProcessor(transformers.Lfm2VlImageProcessor(**shape.images), tokenizer)


def _minicpm_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    return transformers.MiniCPMV4_6Processor(
        image_processor=transformers.MiniCPMV4_6ImageProcessor(**shape.images),
        video_processor=transformers.MiniCPMV4_6VideoProcessor(**shape.images),
        tokenizer=tokenizer,
    )


def _molmo2_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    height, width = shape.vision["image_size"]
    size, patch = {"height": height, "width": width}, shape.vision["patch_size"]
    return transformers.Molmo2Processor(
        image_processor=transformers.Molmo2ImageProcessor(size=size, patch_size=patch, **shape.images),
        video_processor=transformers.Molmo2VideoProcessor(size=size, patch_size=patch),
        tokenizer=tokenizer,
    )


OVIS2 = ModelFamily(
    model_type="ovis2",
    text_type="qwen2",
    tokens={
        "named": {"image_token": "<image>"},
        "extra": ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>", "<|im_start|>"),
        "bos": None,
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
    },
    token_ids={
        "image_token_id": "<IMG_ATOM>",
        "visual_indicator_token_ids": ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
    },
    template=_chatml("<image>"),
    processor=_ovis2_processor,
    shapes={
        "": ModelShape(
            text=TINY_TEXT,
            vision={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": _TINY_SIDE,
                "patch_size": 8,
                "hidden_stride": 2,
                "vocab_size": 48,
            },
            top={"hidden_size": 64, "vocab_size": 0},
            images={"crop_to_patches": True, "max_patches": 4},
        ),
    },
)
COHERE2_VISION = ModelFamily(
    model_type="cohere2_vision",
    text_type="cohere2",
    vision_type="siglip_vision_model",
    tokens={
        "named": {
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        "extra": ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        "bos": "<BOS_TOKEN>",
        "eos": "<|END_OF_TURN_TOKEN|>",
        "pad": "<PAD>",
        "adds_bos": True,
    },
    token_ids={"image_token_id": "<|IMG_PATCH|>"},
    template=_COHERE_TEMPLATE,
    processor=_cohere2_vision_processor,
    shapes={
        "": ModelShape(
            text={
                **TINY_TEXT,
                "logit_scale": 1.0,
                "sliding_window": 40,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            vision={**TINY_SIGLIP, "image_size": _TINY_SIDE, "patch_size": 8},
            top={"downsample_factor": 2, "alignment_intermediate_size": 96},
            # The processor's patch size is the side of a tile in tokens.
            images={"patch_size": 2, "max_patches": 4},
        ),
    },
)
LFM2_VL = ModelFamily(
    model_type="lfm2_vl",
    text_type="lfm2",
    vision_type="siglip2_vision_model",
    tokens={
        "named": {
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail": "<|img_thumbnail|>",
        },
        "extra": ("<|im_start|>", *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5))),
        "bos": "<|startoftext|>",
        "eos": "<|im_end|>",
        "pad": "<|pad|>",
    },
    token_ids={"image_token_id": "<image>"},
    template=_chatml("<image>", begin="{{ bos_token }}"),
    processor=_lfm2_processor,
    shapes={
        "": ModelShape(
            text={
                **TINY_TEXT,
                "layer_types": ["full_attention", "conv", "full_attention"],
                "block_auto_adjust_ff_dim": False,
            },
            vision={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 8,
                "num_patches": 64,
                "vision_use_head": False,
            },
            top={"projector_hidden_size": 48, "downsample_factor": 2},
            images={
                "encoder_patch_size": 8,
                "tile_size": 64,
                "max_num_patches": 64,
                "min_image_tokens": 4,
                "max_image_tokens": 16,
                "downsample_factor": 2,
                "min_tiles": 2,
                "max_tiles": 4,
            },
        ),
    },
)
MINICPM_V_4_6 = ModelFamily(
    model_type="minicpmv4_6",
    text_type="qwen3_5_text",
    tokens={
        "named": {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "image_start_token": "<image>",
            "image_end_token": "</image>",
            "slice_start_token": "<slice>",
            "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>",
            "image_id_end_token": "</image_id>",
        },
        "extra": ("<|im_start|>",),
        "bos": None,
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
    },
    token_ids={"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
    template=_chatml("<|image_pad|>"),
    processor=_minicpm_processor,
    shapes={
        "": ModelShape(
            text=QWEN3_5.shapes[""].text,
            vision={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 8,
            },
            top={"insert_layer_id": 1, "image_size": 64},
            images={"patch_size": 8, "scale_resolution": 64, "max_slice_nums": 4},
        ),
    },
    since="5.19",
)
MOLMO2 = ModelFamily(
    model_type="molmo2",
    tokens={
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "extra": (
            "<im_patch>",
            "<im_col>",
            "<im_start>",
            "<low_res_im_start>",
            "<frame_start>",
            "<im_end>",
            "<frame_end>",
            "<im_low>",
            "<|im_start|>",
        ),
        "bos": "<|endoftext|>",
        "eos": "<|im_end|>",
        "pad": "<|pad|>",
    },
    token_ids={
        "image_patch_id": "<im_patch>",
        "image_start_token_id": "<im_start>",
        "low_res_image_start_token_id": "<low_res_im_start>",
        "image_end_token_id": "<im_end>",
        "frame_start_token_id": "<frame_start>",
        "frame_end_token_id": "<frame_end>",
    },
    template=_chatml("<|image|>", begin="{{ bos_token }}"),
    processor=_molmo2_processor,
    shapes={
        "": ModelShape(
            text={**TINY_TEXT, "head_dim": 16, "additional_vocab_size": 0},
            vision={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "image_size": [48, 48],
                "patch_size": 8,
            },
            top={
                "adapter_config": {
                    "vision_feature_layer": [2, 1],
                    "hidden_size": 32,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 2,
                    "head_dim": 16,
                    "intermediate_size": 48,
                    "text_hidden_size": 64,
                }
            },
            images={"max_crops": 4, "overlap_margins": [1, 1], "pooling_size": [2, 2]},
        ),
    },
    since="5.20",
)
