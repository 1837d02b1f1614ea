"""InternVL, Idefics3 and SmolVLM, whose images are cut into tiles of a fixed number of tokens; GLM-4.1V and Gemma 4."""

from __future__ import annotations

from typing import Any

from lad_eval.errors import UnsupportedModelError
from lad_eval.models.random.family import TINY_TEXT, ModelFamily, ModelShape

_INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IDEFICS_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %} {{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_ROWS_AND_COLUMNS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def _internvl_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    side, patch = shape.vision["image_size"], shape.vision["patch_size"]
    size = {"height": side, "width": side}
    return transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=True, **shape.images),
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(size=size),
        image_seq_length=(side // patch // 2) ** 2,
    )


def _tile_tokens(shape: ModelShape) -> int:
    return int(shape.vision["image_size"] // shape.vision["patch_size"] // shape.top["scale_factor"]) ** 2


def _idefics3_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    return transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessor(**shape.images), tokenizer, image_seq_len=_tile_tokens(shape)
    )


def _smolvlm_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    try:
        return transformers.SmolVLMProcessor(
            transformers.SmolVLMImageProcessor(**shape.images),
            tokenizer,
            transformers.SmolVLMVideoProcessor(**shape.images),
            image_seq_len=_tile_tokens(shape),
        )
    except ImportError as fault:
        raise UnsupportedModelError("SmolVLM's processor needs the package num2words: pip install num2words") from fault


_TINY_TILES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}

INTERNVL = ModelFamily(
    model_type="internvl",
    text_type="qwen2",
    tokens={
        "named": {
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        },
        "extra": ("<|im_start|>",),
        "bos": None,
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
    },
    token_ids={"image_token_id": "<IMG_CONTEXT>"},
    template=_INTERNVL_TEMPLATE,
    processor=_internvl_processor,
    shapes={
        "": ModelShape(
            text=TINY_TEXT,
            vision=_TINY_VISION,
            top={"image_seq_length": 4, "tie_word_embeddings": False},
            images={"min_patches": 1, "max_patches": 4},
        ),
        "8b": ModelShape(
            text={
                "vocab_size": 151_674,
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
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 448,
                "patch_size": 14,
                "attention_bias": True,
            },
            top={"image_seq_length": 256, "tie_word_embeddings": False},
            images={"min_patches": 1, "max_patches": 12},
        ),
    },
)
_IDEFICS_TOKENS = {
    "named": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    },
    "extra": _ROWS_AND_COLUMNS,
    "bos": "<|begin_of_text|>",
    "eos": "<end_of_utterance>",
    "pad": "<|pad|>",
}
IDEFICS3 = ModelFamily(
    model_type="idefics3",
    text_type="llama",
    tokens=_IDEFICS_TOKENS,
    token_ids={"image_token_id": "<image>"},
    template=_IDEFICS_TEMPLATE,
    processor=_idefics3_processor,
    shapes={"": ModelShape(text=TINY_TEXT, vision=_TINY_VISION, top={"scale_factor": 2}, images=_TINY_TILES)},
)
SMOLVLM = ModelFamily(
    model_type="smolvlm",
    text_type="llama",
    tokens={**_IDEFICS_TOKENS, "bos": "<|im_start|>", "pad": "<|im_end|>"},
    token_ids={"image_token_id": "<image>"},
    template=_IDEFICS_TEMPLATE,
    processor=_smolvlm_processor,
    shapes={"": ModelShape(text=TINY_TEXT, vision=_TINY_VISION, top={"scale_factor": 2}, images=_TINY_TILES)},
)


_GLM_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_GEMMA4_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image|>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<turn|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


def _glm4v_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    return transformers.Glm4vProcessor(
        image_processor=transformers.Glm4vImageProcessor(**shape.images),
        tokenizer=tokenizer,
        video_processor=transformers.Glm4vVideoProcessor(patch_size=shape.images["patch_size"]),
    )


def _gemma4_processor(tokenizer: Any, shape: ModelShape) -> Any:
    import transformers

    images = dict(shape.images)
    return transformers.Gemma4Processor(
        feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
        image_processor=transformers.Gemma4ImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=transformers.Gemma4VideoProcessor(**images),
        image_seq_length=images["max_soft_tokens"],
    )


GLM4V = ModelFamily(
    model_type="glm4v",
    tokens={
        "named": {"image_token": "<|image|>", "video_token": "<|video|>"},
        "extra": (
            "[gMASK]",
            "<sop>",
            "<|user|>",
            "<|assistant|>",
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
        ),
        "bos": None,
        "eos": "<|endoftext|>",
        "pad": "<|pad|>",
    },
    token_ids={
        "image_token_id": "<|image|>",
        "video_token_id": "<|video|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    },
    template=_GLM_TEMPLATE,
    processor=_glm4v_processor,
    shapes={
        "": ModelShape(
            text={
                **TINY_TEXT,
                "rope_parameters": {
                    "rope_type": "default",
                    "mrope_section": [2, 1, 1],
                    "partial_rotary_factor": 0.5,
                    "rope_theta": 10_000.0,
                },
            },
            vision={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "out_hidden_size": 64,
            },
            # Pixels of two frames: the processor counts an image as two frames.
            images={"patch_size": 14, "size": {"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 112 * 112}},
        ),
    },
)
GEMMA4 = ModelFamily(
    model_type="gemma4",
    tokens={
        "named": {
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
        },
        "extra": ("<|video|>", "<|turn>"),
        "bos": "<bos>",
        "eos": "<turn|>",
        "pad": "<pad>",
        "adds_bos": True,
    },
    token_ids={
        "image_token_id": "<|image|>",
        "boi_token_id": "<|image>",
        "eoi_token_id": "<image|>",
        "video_token_id": "<|video|>",
        "audio_token_id": "<|audio|>",
        "boa_token_id": "<|audio>",
        "eoa_token_index": "<audio|>",
    },
    template=_GEMMA4_TEMPLATE,
    processor=_gemma4_processor,
    shapes={
        "": ModelShape(
            text={
                **TINY_TEXT,
                "num_hidden_layers": 4,
                "head_dim": 16,
                "global_head_dim": 16,
                "sliding_window": 40,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                # As in the smallest published sizes, the upper layers use the keys and values of lower ones.
                "num_kv_shared_layers": 2,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 600,
                "use_bidirectional_attention": "vision",
            },
            vision={
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "patch_size": 4,
                "pooling_kernel_size": 2,
                "position_embedding_size": 256,
            },
            images={"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70},
        ),
    },
)
