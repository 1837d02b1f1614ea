"""The forward pass that evidence is read from: candidates' log-probabilities, and attention to each image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from lad_eval.attention.caches import cache_in
from lad_eval.attention.hooks import observe_attention
from lad_eval.attention.recorder import record_last_row
from lad_eval.errors import UnsupportedModelError
from lad_eval.evidence.table import Floats
from lad_eval.models.inference.candidates import CandidateTrie
from lad_eval.models.inference.continuation import continue_prefixes, end_ids, last_logits, select
from lad_eval.models.inference.shared_images import Causality, Tail, holds_every_token, read_tail, tail_of
from lad_eval.models.inputs.preparation import Batch


class Read(NamedTuple):
    """What was read of n prompts.

    Attributes:
        log_probs: Float[n, N] of the candidates.
        attention: Float[n, L, images].
        delimited: the same with the tokens around the images.
        seconds: that it took.
        token_maps: Float[image tokens] of each prompt, by image, then by token; None if none were wanted.
    """

    log_probs: Floats
    attention: Floats
    delimited: Floats
    seconds: float
    token_maps: list[torch.Tensor] | None = None


class EvidencePass:
    """Runs a model on prepared batches.

    Args:
        model: of transformers.
        tokenizer: of the model.
        name: for error texts.
        inputs: a batch's inputs on the model's device.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, inputs: Callable[[Batch], Mapping[str, Any]]) -> None:
        self._model, self._tokenizer, self._name, self._inputs = model, tokenizer, name, inputs
        # Whether prompts can go on from the cache of others; None: not known yet.
        self._goes_on: bool | None = None

    @torch.inference_mode()
    def __call__(
        self,
        batch: Batch,
        changed: AbstractContextManager[None] | None = None,
        use_cache: Callable[[Any], None] | None = None,
        queries: torch.Tensor | None = None,
    ) -> Read:
        """Evidence of a batch's prompts.

        Args:
            batch: to run.
            changed: open while the model runs; it may hold hooks.
            use_cache: called with the key-value cache of the prompts, which it must not change; its time is not counted.
            queries: Bool[batch, T], the tokens that token maps are read from; None: there are none.

        Raises:
            UnsupportedModelError: logits are not finite, or a layer gave no attention.
        """
        started = time.perf_counter()
        inputs = self._inputs(batch)
        with changed or nullcontext():
            with record_last_row(self._model, batch.spans, queries) as recorder, last_logits(self._model, 1) as options:
                output = self._model(**inputs, use_cache=bool(batch.trie.prefixes or use_cache), **options)
            attention, delimited = recorder.attention()
            maps = None if queries is None else recorder.token_maps()
            logits, cache = output.logits[:, -1], cache_in(output)
            del output
            if use_cache is not None:
                before = time.perf_counter()
                use_cache(cache)
                started += time.perf_counter() - before
            # Pruned prompts are continued on shorter caches, which the intervention handles.
            log_probs = self._log_probs(batch.trie, logits, cache, inputs["attention_mask"])
        return Read(log_probs, attention.numpy(), delimited.numpy(), time.perf_counter() - started, maps)

    def with_probes(self, batch: Batch, probes: Sequence[Batch]) -> list[Read]:
        """Evidence of a batch, and of batches whose prompts show the same images, row by row.

        These go on from the cache of the first one's prompts where the model is causal and holds all tokens in its cache, and
        where the prompts do not differ before the end of the images; else they are read whole, with the same results.

        Raises:
            UnsupportedModelError: as for a batch alone.
        """
        read: dict[int, Read] = {}
        causality = Causality()

        def read_probes(cache: Any) -> None:
            if self._goes_on is None:
                self._goes_on = causality.holds and holds_every_token(self._model, cache)
            for place, probe in enumerate(probes if self._goes_on else ()):
                if (tail := tail_of(self._model, batch, probe)) is not None:
                    read[place] = self._read_tail(cache, tail, probe.trie)

        with observe_attention(self._model, causality.observe) if self._goes_on is None else nullcontext():
            first = self(batch, use_cache=None if self._goes_on is False else read_probes)
        return [first, *(read[place] if place in read else self(probe) for place, probe in enumerate(probes))]

    def _read_tail(self, cache: Any, tail: Tail, trie: CandidateTrie) -> Read:
        started = time.perf_counter()
        with record_last_row(self._model, tail.spans) as recorder:
            output, attended = read_tail(self._model, cache, tail)
        attention, delimited = recorder.attention()
        log_probs = self._log_probs(trie, output.logits[:, -1], cache_in(output), attended)
        return Read(log_probs, attention.numpy(), delimited.numpy(), time.perf_counter() - started)

    def _log_probs(self, trie: CandidateTrie, logits: torch.Tensor, cache: Any, mask: torch.Tensor) -> Floats:
        """Float[n, N], from the logits after the prompts and, for candidates of several tokens, the prompts' cache.

        The cache is consumed.
        """
        ends = end_ids(self._model, self._tokenizer) if trie.needs_end else ()
        columns = [branch.columns(ends) for branch in trie.branches]
        rooted = [select(logits, columns[0])] if len(trie.prefixes) < len(trie.branches) else []
        if trie.prefixes:
            rooted += continue_prefixes(self._model, cache, mask, trie.prefixes, columns[len(rooted) :])
        ends_at = np.cumsum([branch.shape[1] for branch in rooted])
        by_branch = np.split(torch.cat(rooted, dim=1).double().cpu().numpy(), ends_at[:-1], axis=1)
        if not all(np.isfinite(branch).all() for branch in by_branch):
            raise UnsupportedModelError(
                f"{self._name} gave logits that are not finite in {self._model.dtype}; try dtype bfloat16 or float32."
            )
        return trie.log_probs(by_branch, ends)
