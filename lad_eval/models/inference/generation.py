"""Neutral generation settings, which replace the model's own generation configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.evidence.replies import Decoding
from lad_eval.models.inference.continuation import last_logits

# The tokens that begin, pad and end a text belong to the model; all other settings are choices of its author.
_TOKENS = ("bos_token_id", "pad_token_id", "decoder_start_token_id")


@contextmanager
def neutral_generation(model: Any, *, ends: Sequence[int], max_new_tokens: int, **changes: Any) -> Iterator[Any]:
    """While open, a `GenerationConfig` without sampling, beam search and logits processors, which is also the model's own.

    `generate` takes every entry that is None in the configuration it receives from `model.generation_config`, and None is the
    neutral value of most (`suppress_tokens`, `bad_words_ids`, `min_new_tokens`, ...). Passing a new configuration is therefore
    not enough: the model's own is replaced, and restored when the context closes.

    Args:
        model: to call `generate` of while the context is open, with the yielded `generation_config`.
        ends: token ids that end a reply, at least one.
        max_new_tokens: maximum length of a reply.
        changes: further entries, such as `output_logits`.
    """
    from transformers import GenerationConfig

    before = model.generation_config
    tokens = {name: value for name in _TOKENS if (value := getattr(before, name, None)) is not None}
    settings = {"pad_token_id": ends[0], **tokens, "eos_token_id": list(ends), "max_new_tokens": max_new_tokens, **changes}
    config = GenerationConfig(do_sample=False, num_beams=1, use_cache=True, **settings)
    model.generation_config = config
    try:
        with last_logits(model, 1):
            yield config
    finally:
        model.generation_config = before


class GumbelSampler:
    """A logits processor that samples from softmax(logits / temperature) with the Gumbel-max trick: add noise, take the maximum.

    Each row's noise has its own generator, seeded by the decoding's seed, the request's key and the number of the sample, on the
    CPU, whose random numbers are the same on every machine.

    Args:
        decoding: temperature and seed.
        replies: key of the request and number of the sample, one per row.
    """

    def __init__(self, decoding: Decoding, replies: Sequence[tuple[str, int]]) -> None:
        self._temperature = decoding.temperature
        self._generators = [torch.Generator().manual_seed(_seed(decoding.seed, key, sample)) for key, sample in replies]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Float32[n, V]: scores whose maximum is the sampled token."""
        noise = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self._generators])
        tiny = torch.finfo(torch.float32).tiny
        gumbel = -torch.log((-torch.log(noise.clamp(min=tiny))).clamp(min=tiny))
        return scores.float() / self._temperature + gumbel.to(scores.device)


def reply_length(tokens: Sequence[int], ends: Sequence[int]) -> int:
    """Number of tokens up to and including the first that ends the reply; of all tokens if none does."""
    return next((place for place, token in enumerate(tokens, start=1) if token in ends), len(tokens))


def _seed(seed: int, key: str, sample: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}/{sample}".encode()).digest()[:8], "big") >> 1
