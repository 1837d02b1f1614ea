"""Tiny random models and requests of images of unequal sizes."""

from __future__ import annotations

import types
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from lad_eval.attention.spans import NOT_FOR_THE_MODEL, span_options
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.random import load_random

EQUAL = [(336, 336)] * 3
UNEQUAL = [(336, 336), (200, 90), (60, 300)]
OTHER = [(64, 64), (500, 400), (100, 300)]


@cache
def _load(family, attn_implementation="sdpa"):
    return load_random(family, attn_implementation=attn_implementation, dtype=torch.float32)


def load(family, attn_implementation="sdpa"):
    try:
        return _load(family, attn_implementation)
    except UnsupportedModelError as fault:
        pytest.skip(str(fault))


def picture(size, seed):
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def conversation(sizes, text):
    seed = zlib.crc32(text.encode())  # a row shows the same pictures in every batch
    images = [{"type": "image", "image": picture(size, seed + i)} for i, size in enumerate(sizes)]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def prepare(processor, rows, **options):
    """Inputs of rows of (sizes, text), padded, with what `image_spans` needs."""
    return processor.apply_chat_template(
        [conversation(sizes, text) for sizes, text in rows],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, **span_options(processor), **options},
    )


def for_model(inputs):
    """Inputs as a float32 model takes them; Llama 4's processor makes half precise pixels."""
    given = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
    return {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in given.items()}


ROWS = [(UNEQUAL, "Caption: a red circle\nAnswer: "), (OTHER, "Caption: a blue square left of 25 other things\nAnswer: ")]


@pytest.fixture
def lab():
    """This module's helpers, as attributes."""
    return types.SimpleNamespace(
        load=load, prepare=prepare, for_model=for_model, picture=picture, ROWS=ROWS, EQUAL=EQUAL, UNEQUAL=UNEQUAL, OTHER=OTHER
    )
