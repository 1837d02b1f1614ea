"""Logits for scoring candidates: after the prompt, and after the prefixes of candidates of several tokens.

Candidates of several tokens need logits after prompt + prefix. The prompt is not run again: its key-value cache is repeated once
per prefix, and all prefixes go through the model in one pass.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.attention.caches import cache_argument
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.prompts.conversation import CandidateTokens

# Rows (requests x prefixes) of one continuation pass; each holds its own copy of a request's cache.
_ROWS = 32


def align_prompt_end(inputs: Mapping[str, Any], candidates: CandidateTokens) -> dict[str, Any]:
    """Inputs whose prompt ends where the candidates' tokens begin: `drop` tokens removed from its end, `lead` tokens appended."""
    if not candidates.drop and not candidates.lead:
        return dict(inputs)
    shape = inputs["input_ids"].shape
    aligned = dict(inputs)
    lead = torch.tensor(candidates.lead, dtype=torch.long).expand(shape[0], -1)
    values_of = {"input_ids": lead, "attention_mask": torch.ones_like(lead)}
    for key, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            added = values_of.get(key, torch.zeros_like(lead))  # token types: 0 is text
            aligned[key] = torch.cat([value[:, : shape[1] - candidates.drop], added.to(value)], dim=1)
    return aligned


def with_positions(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with position ids counted from each row's first real token, so that padding shifts nothing.

    Models with multi-axis rotary positions compute their own.
    """
    if "position_ids" in inputs or not _takes_positions(model) or _has_rope_deltas(model):
        return dict(inputs)
    positions = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    return {**inputs, "position_ids": positions}


def continue_prefixes(
    model: Any,
    cache: Any,
    attention_mask: torch.Tensor,
    prefixes: Sequence[tuple[int, ...]],
    columns: Sequence[Sequence[int]],
) -> list[torch.Tensor]:
    """Raw logits after each prefix, Float32[n, C_b] of the token ids `columns[b]`.

    Args:
        model: the model that made the cache; its last forward pass must be the prefill.
        cache: key-value cache of the prompts, n rows; it is consumed: do not use it afterwards.
        attention_mask: Int[n, T] of the prompts, left-padded.
        prefixes: token sequences, none empty.
        columns: token ids whose logits to return, per prefix.
    """
    n = attention_mask.shape[0]
    device = attention_mask.device
    deltas = _rope_deltas(model)
    logits_of: list[torch.Tensor] = []
    step = max(1, _ROWS // n)
    for start in range(0, len(prefixes), step):
        chosen = prefixes[start : start + step]
        m, longest = len(chosen), max(map(len, chosen))
        # Shorter prefixes are padded on the right, which causal attention does not see.
        tokens = torch.tensor([[*p, *[p[-1]] * (longest - len(p))] for p in chosen], device=device).repeat(n, 1)
        rows = torch.arange(n, device=device).repeat_interleave(m)
        mask = torch.cat([attention_mask[rows], attention_mask.new_ones(n * m, longest)], dim=1)
        positions = attention_mask.long().sum(-1)[rows, None] + torch.arange(longest, device=device)
        if deltas is not None:
            positions = (positions + deltas.to(device)[rows].view(-1, 1)).expand(3, -1, -1)
        arguments = {"position_ids": positions} if deltas is not None or _takes_positions(model) else {}
        last = start + step >= len(prefixes)
        with last_logits(model, longest) as options:
            output = model(
                input_ids=tokens,
                attention_mask=mask,
                use_cache=True,
                **{cache_argument(model): cache if last and m == 1 else repeated(cache, rows)},
                **options,
                **arguments,
            )
        logits = output.logits.view(n, m, -1, output.logits.shape[-1])
        for j, prefix in enumerate(chosen):
            logits_of.append(select(logits[:, j, len(prefix) - 1 - longest], columns[start + j]))
    return logits_of


@contextmanager
def last_logits(model: Any, count: int) -> Iterator[dict[str, int]]:
    """Options for a forward pass that computes the logits of the last `count` tokens only.

    Logits of a whole prompt have its length times the vocabulary, often more memory than everything else. For a model whose
    `forward` has no `logits_to_keep` (MiniCPM-V 4.6), the output layer receives the last tokens only while the context is open.
    """
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        yield {"logits_to_keep": count}
        return
    head = model.get_output_embeddings()
    if head is None:
        yield {}
        return
    hook = head.register_forward_pre_hook(lambda module, args: (args[0][..., -count:, :], *args[1:]))
    try:
        yield {}
    finally:
        hook.remove()


def select(logits: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
    """Float32[n, C] of the given token ids."""
    # Not blocking: a tensor that is made on a GPU waits for the forward pass.
    return logits[:, torch.tensor(list(columns)).to(logits.device, non_blocking=True)].float()


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token id that ends the model's reply.

    Raises:
        UnsupportedModelError: neither the generation configuration nor the tokenizer names one.
    """
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if ids is None:
        ids = tokenizer.eos_token_id
    if ids is None:
        raise UnsupportedModelError(
            "The model has no end-of-sequence token: neither generation_config.json nor the tokenizer gives eos_token_id."
        )
    return tuple(dict.fromkeys(map(int, ids if isinstance(ids, (list, tuple)) else [ids])))


def repeated(cache: Any, rows: torch.Tensor) -> Any:
    """A cache whose row i is row `rows[i]` of another one, which is not changed.

    Every kind of cache layer, recurrent ones too, has `reorder_cache`; it makes new tensors, so that only the containers must be
    copied first.
    """
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in twin.layers:
        for name, value in vars(layer).items():
            if isinstance(value, (dict, list)):
                setattr(layer, name, copy.copy(value))
        layer.reorder_cache(rows)
    return twin


def _rope_deltas(model: Any) -> torch.Tensor | None:
    """Offset that the last prefill added to the text positions, Int[n, 1], in models with multi-axis rotary positions."""
    deltas = getattr(getattr(model, "model", model), "rope_deltas", None)
    return deltas if isinstance(deltas, torch.Tensor) else None


def set_rope_deltas(model: Any, deltas: torch.Tensor) -> None:
    """Sets the offset that a prefill with multi-axis positions of its own would have left, Int[n, 1]."""
    getattr(model, "model", model).rope_deltas = deltas


def _has_rope_deltas(model: Any) -> bool:
    return hasattr(getattr(model, "model", model), "rope_deltas")


def _takes_positions(model: Any) -> bool:
    return "position_ids" in inspect.signature(type(model).forward).parameters
