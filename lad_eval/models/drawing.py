"""Drawing a reply's tokens so that a request's draws are its own: the same alone, in any batch, and after a resumed run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from lad_eval.replies import Decoding


class Draw:
    """A logits processor that draws from softmax(logits / temperature) by the Gumbel-max trick: noise, then the greatest.

    Each row's noise has a generator of its own, seeded by the decoding's seed, the request's key and the number of the sample, on
    the CPU, whose numbers are the same on every machine.

    Args:
        decoding: temperature and seed.
        keys: of the batch's requests, row by row.
        sample: number of the reply.
    """

    def __init__(self, decoding: Decoding, keys: Sequence[str], sample: int) -> None:
        self._temperature = decoding.temperature
        self._generators = [torch.Generator().manual_seed(_seed(decoding.seed, key, sample)) for key in keys]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Float32[n, V]: scores whose greatest is the draw."""
        noise = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self._generators])
        tiny = torch.finfo(torch.float32).tiny
        gumbel = -torch.log((-torch.log(noise.clamp(min=tiny))).clamp(min=tiny))
        return scores.float() / self._temperature + gumbel.to(scores.device)


def reply_length(tokens: Sequence[int], ends: Sequence[int]) -> int:
    """Tokens up to the first that ends the reply, it counted in; all of them where none does."""
    return next((place for place, token in enumerate(tokens, start=1) if token in ends), len(tokens))


def _seed(seed: int, key: str, sample: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}/{sample}".encode()).digest()[:8], "big") >> 1
