"""GLM-4.1V and Gemma 4: images in their own aspect ratio, a number of tokens that depends on it."""

from __future__ import annotations

from typing import Any

from lad_eval.models.random.family import TINY_TEXT, Family, Shape

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


def _glm4v_processor(tokenizer: Any, shape: Shape) -> Any:
    import transformers

    return transformers.Glm4vProcessor(
        image_processor=transformers.Glm4vImageProcessor(**shape.images),
        tokenizer=tokenizer,
        video_processor=transformers.Glm4vVideoProcessor(patch_size=shape.images["patch_size"]),
    )


def _gemma4_processor(tokenizer: Any, shape: Shape) -> Any:
    import transformers

    images = dict(shape.images)
    return transformers.Gemma4Processor(
        feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
        image_processor=transformers.Gemma4ImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=transformers.Gemma4VideoProcessor(**images),
        image_seq_length=images["max_soft_tokens"],
    )


GLM4V = Family(
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
        "": Shape(
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
            # Pixels of two frames, as which the processor counts an image.
            images={"patch_size": 14, "size": {"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 112 * 112}},
        ),
    },
)
GEMMA4 = Family(
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
        "": Shape(
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
