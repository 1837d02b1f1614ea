"""Checks that tokens can leave before a decoder's layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from lad_eval.attention.hooks import attention_layers, decoder_layers
from lad_eval.attention.pruning.compaction import mask_form
from lad_eval.attention.pruning.options import How
from lad_eval.errors import UnsupportedModelError, UserError


def check_stages(model: Any, layers: Sequence[int], how: How, name: str) -> None:
    """Checks that tokens can leave before these decoder layers.

    Raises:
        UserError: a layer does not exist, or none below it attends.
        UnsupportedModelError: a layer's masks cannot be cut; or tokens are to be masked where no mask hides them.
    """
    total, attending = len(decoder_layers(model)), attention_layers(model)
    lowest, kind = min(attending) + 1, type(model).__name__
    for layer in layers:
        if not lowest <= layer < total:
            reason = f"has decoder layers 0 to {total - 1}" if layer >= total else f"has no attention below layer {lowest - 1}"
            raise UserError(
                f"{name} cannot prune before layer {layer}, as {kind} {reason}; choose a layer of {lowest} to {total - 1}."
            )
    for module in attending.values():
        mask_form(module)
    others = [layer for layer in range(min(layers), total) if layer not in attending]
    if how == "mask" and others:
        raise UnsupportedModelError(
            f"{name}: no mask hides tokens from decoder layer {others[0]} of {kind}, which has no attention; use how=drop."
        )


@contextmanager
def all_tokens_reach(model: Any, layer: int) -> Iterator[None]:
    """While open, a decoder layer is run for all tokens, whatever number of logits is requested.

    Gemma 4 runs its upper layers, which have no keys of their own, for the last tokens only; the other tokens' hidden states
    and attention are what pruners rank by. Logits are still those of the last tokens.
    """

    def all_tokens(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (args, {**kwargs, "logits_to_keep": 0}) if "logits_to_keep" in kwargs else None

    with ExitStack() as stack:
        for module in model.modules():
            if getattr(module, "first_kv_shared_layer_idx", layer + 1) <= layer:
                stack.callback(module.register_forward_pre_hook(all_tokens, with_kwargs=True).remove)
        yield
