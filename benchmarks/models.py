"""Models of the sizes that are measured, with random weights, and questions to put to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lad_eval.models.device import reuse_freed_memory
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.tasks.prompts import IdentifierStyle, identifiers, question
from lad_eval.tasks.request import Permutation, Request, Sample
from lad_eval.tasks.sources.scenes import draw_scene


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        device: "cpu" or "cuda".
        rounds: timed rounds of every comparison.
        layers: decoder layers of the middle-sized model.
        width: of its hidden states.
        images: of the longest prompt; 144 tokens each.
        samples: test samples of a whole run of the middle-sized model.
        batch: the largest batch.
        pool: pictures among which hard negatives are looked for.
        anchors: pictures for which they are.
        limits: numbers of samples whose runs' memory is compared.
    """

    device: str = "cpu"
    rounds: int = 5
    layers: int = 12
    width: int = 512
    images: int = 20
    samples: int = 2
    batch: int = 32
    pool: int = 20_000
    anchors: int = 1_000
    limits: tuple[int, ...] = (20, 100, 400)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models whose decoder's cost is the question."""
        return ("middle",) if self.device == "cpu" else ("qwen2.5-vl-3b", "llava-onevision-7b")

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the models for whole runs, the embedded model's size first where there is no GPU."""
        return ("tiny", "middle", "scaled") if self.device == "cpu" else self.models


# One for where the decoder is what counts. The other does as large a share of the work as in Qwen2.5-VL-3B: an image's patches
# take 0.95 of the multiply-adds of its tokens in a decoder of 12 layers and width 512, and 0.91 there.
_SMALL = {"depth": 2, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "fullatt_block_indexes": [1]}
_SHARED = {"depth": 7, "hidden_size": 320, "intermediate_size": 855, "num_heads": 5, "fullatt_block_indexes": [3, 6]}

SMALL = Plan(rounds=1, layers=2, width=64, images=3, samples=1, batch=2, pool=400, anchors=50, limits=(2, 4))
"""Runs in seconds."""


def describe(name: str, plan: Plan) -> str:
    if name in ("middle", "scaled"):
        vision = "" if name == "middle" else "a vision tower of Qwen2.5-VL-3B's share of the work, "
        return f"Qwen2.5-VL architecture, {plan.layers} layers, width {plan.width}, {vision}random weights, float32"
    if name == "tiny":
        return "Qwen2.5-VL architecture of lad-tiny's size, random weights, float32"
    return f"`random:{name}`, bfloat16"


def load(name: str, plan: Plan, *, attention: str = "sdpa", batch_size: int | str = "auto") -> HuggingFaceVLM:
    """A model by its name in `Plan.models` or `Plan.runs`; the same weights whatever the attention."""
    if name in ("middle", "scaled"):
        model, processor = _middle(plan, attention, _SMALL if name == "middle" else _SHARED)
    elif name == "tiny":
        model, processor = _tiny(attention)
    else:
        from lad_eval.models.random import load_random

        model, processor = load_random(name, device=plan.device, attn_implementation=attention)
    reuse_freed_memory(model)
    return HuggingFaceVLM(model, processor, name=name, weights="random", batch_size=batch_size)


def _middle(plan: Plan, attention: str, vision: dict[str, Any]) -> tuple[Any, Any]:
    import transformers

    from lad_eval.models.random.family import make_tokenizer
    from lad_eval.models.random.qwen import QWEN2_5_VL

    tokenizer = make_tokenizer(**QWEN2_5_VL.tokens)
    head = 64
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [head // 8, head * 3 // 16, head * 3 // 16]}
    config = transformers.AutoConfig.for_model(
        QWEN2_5_VL.model_type,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": plan.width,
            "intermediate_size": 3 * plan.width,
            "num_hidden_layers": plan.layers,
            "num_attention_heads": plan.width // head,
            "num_key_value_heads": max(1, plan.width // head // 4),
            "rope_parameters": rotary,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**vision, "out_hidden_size": plan.width},
        **{entry: tokenizer.convert_tokens_to_ids(token) for entry, token in QWEN2_5_VL.token_ids.items()},
    )
    pixels = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 336 * 336}
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=14, merge_size=2),
        chat_template=QWEN2_5_VL.template,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForImageTextToText.from_config(config, attn_implementation=attention), processor


def _tiny(attention: str) -> tuple[Any, Any]:
    from transformers import Qwen2_5_VLForConditionalGeneration

    from recipes.lad_tiny.build import build_config, build_processor

    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration._from_config(build_config(), attn_implementation=attention), build_processor()


def requests_for(n_images: int, count: int, *, seed: int | str, style: IdentifierStyle = "1..") -> list[Request]:
    """Questions of equal length about pictures that no other seed shows."""
    generator = random.Random(f"benchmarks/{seed}/{n_images}")
    names = identifiers(style, n_images)
    requests = []
    for index in range(count):
        images = tuple(draw_scene("test", generator) for _ in range(n_images))
        sample = Sample(id=f"{seed}-{index}", images=images, caption="a red circle on the left of a blue square", gold=0)
        text = question("retrieval", sample.caption, names)
        requests.append(Request.of(sample, Permutation.identity(n_images), text, names))
    return requests


def tokens(model: HuggingFaceVLM, requests: Sequence[Request]) -> int:
    """Tokens of the first request's prompt."""
    return int(model._prepare(requests[:1]).inputs["input_ids"].shape[1])
