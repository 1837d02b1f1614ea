"""From a family and a size to a model and its processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lad_eval.models.random.blocks import GEMMA3, LLAMA4, MISTRAL3, PALIGEMMA, QWEN3_VL_MOE
from lad_eval.models.random.crops import COHERE2_VISION, LFM2_VL, MINICPM_V_4_6, MOLMO2, OVIS2
from lad_eval.models.random.family import ModelFamily, make_tokenizer
from lad_eval.models.random.llava import LLAVA_1_5, LLAVA_NEXT, LLAVA_ONEVISION, PIXTRAL
from lad_eval.models.random.qwen import QWEN2_5_VL, QWEN2_VL, QWEN3_5, QWEN3_VL
from lad_eval.models.random.tiles import GEMMA4, GLM4V, IDEFICS3, INTERNVL, SMOLVLM
from lad_eval.models.random.untrained import fill_zeros
from lad_eval.models.releases import check_transformers, repair

_FAMILIES: dict[str, ModelFamily] = {
    "qwen2-vl": QWEN2_VL,
    "qwen2.5-vl": QWEN2_5_VL,
    "qwen3-vl": QWEN3_VL,
    "qwen3.5": QWEN3_5,
    "llava-1.5": LLAVA_1_5,
    "llava-next": LLAVA_NEXT,
    "llava-onevision": LLAVA_ONEVISION,
    "internvl": INTERNVL,
    "internvl3": INTERNVL,
    "idefics3": IDEFICS3,
    "smolvlm": SMOLVLM,
    "gemma3": GEMMA3,
    "mistral3": MISTRAL3,
    "pixtral": PIXTRAL,
    "paligemma": PALIGEMMA,
    "qwen3-vl-moe": QWEN3_VL_MOE,
    "llama4": LLAMA4,
    "glm4v": GLM4V,
    "gemma4": GEMMA4,
    "ovis2": OVIS2,
    "cohere2-vision": COHERE2_VISION,
    "lfm2-vl": LFM2_VL,
    "minicpm-v-4.6": MINICPM_V_4_6,
    "molmo2": MOLMO2,
}

# With the usual 0.02 a tiny model attends almost uniformly, and a test with it would prove little.
_TINY_INITIALIZER_RANGE = 0.2


def build(
    name: str,
    *,
    seed: int,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
    attn_implementation: str | None,
) -> tuple[Any, Any]:
    """As `load_random`, for a `name` that exists."""
    import transformers

    family, size = _split(name)
    kind, tiny = _FAMILIES[family], size == ""
    if kind.since:
        check_transformers(f"random:{family}", kind.since, "earlier ones lack the architecture or get it wrong")
    tokenizer = make_tokenizer(**kind.tokens)
    processor = kind.processor(tokenizer, kind.shapes[size])  # before the configuration: PaliGemma's adds tokens
    processor.chat_template = kind.template
    config = make_config(family, size, tokenizer)
    number = _dtype(dtype, torch.float32 if tiny else torch.bfloat16)
    where = torch.device(device or "cpu")
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), torch.device("cpu" if tiny else where):
        torch.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=number, **options)
        fill_zeros(model, _TINY_INITIALIZER_RANGE)
    repair(model)
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return model.to(where).eval(), processor


def make_config(family: str, size: str, tokenizer: Any) -> Any:
    """The configuration of a family's size ("" is tiny) around this tokenizer."""
    from transformers import AutoConfig

    kind = _FAMILIES[family]
    shape = kind.shapes[size]
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text: dict[str, Any] = {**shape.text, **ends}
    vision = dict(shape.vision)
    if size == "":
        text.update(vocab_size=len(tokenizer), initializer_range=_TINY_INITIALIZER_RANGE)
        vision.setdefault("initializer_range", _TINY_INITIALIZER_RANGE)
    if kind.text_type:
        text["model_type"] = kind.text_type
    if kind.vision_type:
        vision["model_type"] = kind.vision_type
    top = dict(shape.top)
    if size == "" and "vocab_size" in top:
        top["vocab_size"] = len(tokenizer)
    ids = {entry: tokenizer.convert_tokens_to_ids(token) for entry, token in _listed(kind.token_ids)}
    return AutoConfig.for_model(kind.model_type, text_config=text, vision_config=vision, **ids, **top)


def _listed(token_ids: Mapping[str, str | tuple[str, ...]]) -> Iterator[tuple[str, str | list[str]]]:
    """The entries, several tokens as the list that transformers takes."""
    return ((entry, token if isinstance(token, str) else list(token)) for entry, token in token_ids.items())


def _split(name: str) -> tuple[str, str]:
    family = max((known for known in _FAMILIES if name == known or name.startswith(f"{known}-")), key=len)
    return family, name[len(family) + 1 :]


def _dtype(dtype: torch.dtype | str | None, default: torch.dtype) -> torch.dtype:
    if dtype is None or dtype == "auto":
        return default
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype
