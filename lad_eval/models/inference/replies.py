"""Several sampled replies to a prompt: the prompt is read once, and its key-value cache is repeated for every reply.

`generate` prepares the prompts and the settings, and its sampling loop writes the replies; only the first step, which would
read the prompts, gets the repeated results of the one prefill instead.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from lad_eval.attention.caches import CACHE_NAMES
from lad_eval.evidence.replies import Decoding
from lad_eval.models.inference.batching import free_memory, is_out_of_memory
from lad_eval.models.inference.continuation import repeated
from lad_eval.models.inference.generation import GumbelSampler

ROWS = 32
"""Replies that are written at once; each holds its own copy of a prompt's cache."""


def write_replies(
    model: Any, inputs: Mapping[str, Any], config: Any, decoding: Decoding, keys: Sequence[str]
) -> list[list[list[int]]]:
    """The new tokens of every reply, by sample and request, with padding after the end.

    Where a model's cache cannot be repeated (see `repeats`), or its `generate` is not that of transformers, the prompts are read
    again for every reply, with the same result.

    Args:
        model: in the context of `neutral_generation`.
        inputs: of n prompts, padded on the left, on the model's device.
        config: that the context yields.
        decoding: generation settings.
        keys: of the n requests.
    """
    if decoding.samples > 1 and "custom_generate" in inspect.signature(type(model).generate).parameters:
        replies: list[list[list[int]]] | None = model.generate(
            **inputs, generation_config=config, custom_generate=_Sampling(decoding, keys)
        )
        if replies is not None:
            return replies
    start = inputs["input_ids"].shape[1]
    each = []
    for sample in range(decoding.samples):
        drawing = [GumbelSampler(decoding, [(key, sample) for key in keys])] if decoding.temperature else []
        written = model.generate(**inputs, generation_config=config, logits_processor=drawing)
        each.append(written[:, start:].tolist())
    return each


def repeats(cache: Any, copied: Any, rows: torch.Tensor) -> bool:
    """Whether a cache was repeated: every state in it has a row for each prompt, and in its copy one for each entry of `rows`."""
    before, after = list(_tensors(cache)), list(_tensors(copied))
    prompts = int(rows.max()) + 1
    return (
        bool(before)
        and len(before) == len(after)
        and all(one.shape[0] == prompts and other.shape[0] == len(rows) for one, other in zip(before, after, strict=True))
    )


def _tensors(cache: Any) -> Iterator[torch.Tensor]:
    """The states in a cache's layers; flags and counters, of no or one dimension, are none."""
    for layer in getattr(cache, "layers", ()):
        for value in vars(layer).values():
            entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            yield from (entry for entry in entries if isinstance(entry, torch.Tensor) and entry.dim() > 1)


class _Sampling:
    """A decoding method for `generate`: one prefill, then all replies, several at once."""

    def __init__(self, decoding: Decoding, keys: Sequence[str]) -> None:
        self._decoding, self._keys = decoding, keys

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **arguments: Any,
    ) -> list[list[list[int]]] | None:
        """The new tokens by sample and request; None if the cache cannot be repeated."""
        prompts, start = input_ids.shape
        prefill = model._prefill(input_ids, generation_config, arguments)
        if (name := _cache_name(prefill)) is None:
            return None
        # Images have been read. What later steps take has an entry for every token.
        steps = {key: value for key, value in arguments.items() if _is_for_steps(key, value, input_ids.shape)}
        run = partial(self._written, model, input_ids, steps, prefill, name, stopping_criteria, generation_config)
        samples, size = self._decoding.samples, max(1, ROWS // prompts)
        replies: list[list[list[int]]] = []
        while len(replies) < samples:
            size = min(size, samples - len(replies))
            rows = torch.arange(prompts, device=input_ids.device).repeat_interleave(size)
            fits, written = self._attempt(run, rows, len(replies), size)
            if not fits:
                free_memory()
                size //= 2
            elif written is None:
                return None
            else:
                replies += written[:, start:].reshape(prompts, size, -1).transpose(0, 1).tolist()
        return replies

    @staticmethod
    def _attempt(run: Any, rows: torch.Tensor, first: int, size: int) -> tuple[bool, torch.Tensor | None]:
        """Whether memory sufficed for several replies at once, and what `run` returned."""
        try:
            return True, run(rows, first, size)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            return False, None

    def _written(
        self,
        model: Any,
        input_ids: torch.Tensor,
        steps: Mapping[str, Any],
        prefill: Any,
        name: str,
        stopping_criteria: Any,
        generation_config: Any,
        rows: torch.Tensor,
        first: int,
        size: int,
    ) -> torch.Tensor | None:
        """Int[rows, T + new]: prompts and replies number `first` to `first + size - 1`; None if the cache cannot be repeated."""
        from transformers import LogitsProcessorList

        cache = repeated(prefill[name], rows)
        if not repeats(prefill[name], cache, rows):
            return None
        ids, arguments = model._expand_inputs_for_generation(expand_size=size, input_ids=input_ids, **steps)
        results = copy.copy(prefill)
        results[name], results["logits"] = cache, prefill.logits[:, -1:][rows]
        drawing = []
        if self._decoding.temperature:
            replies = [(self._keys[row], first + i % size) for i, row in enumerate(rows.tolist())]
            drawing = [GumbelSampler(self._decoding, replies)]
        with _prefilled(model, results):
            written: torch.Tensor = type(model)._sample(
                model,
                ids,
                logits_processor=LogitsProcessorList(drawing),
                stopping_criteria=stopping_criteria,
                generation_config=generation_config,
                **{**arguments, name: cache},
            )
        return written


def _cache_name(prefill: Any) -> str | None:
    """The entry of a prefill's results that holds a cache of layers."""
    keys = set(prefill.keys())
    return next((name for name in CACHE_NAMES if name in keys and hasattr(prefill[name], "layers")), None)


def _is_for_steps(name: str, value: Any, shape: torch.Size) -> bool:
    """Whether an argument of `generate` is for the steps that continue prompts, too, given the prompts' shape Int[n, T]."""
    if isinstance(value, torch.Tensor):
        return value.shape[-2:] == shape
    return name != "mm_encoder_outputs"


@contextmanager
def _prefilled(model: Any, results: Any) -> Iterator[None]:
    """While open, the model's sampling loop takes these results as those of its prefill."""
    vars(model)["_prefill"] = lambda *args, **kwargs: results
    try:
        yield
    finally:
        del vars(model)["_prefill"]
