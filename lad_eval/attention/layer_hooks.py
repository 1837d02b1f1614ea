"""Hooks on whole decoder layers: their inputs and outputs. Like hooks on attention, they act in one thread only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.attention.hooks import decoder_layers


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A PyTorch hook that does nothing in other threads than the one that creates it."""
    thread = threading.get_ident()
    return lambda *arguments: hook(*arguments) if threading.get_ident() == thread else None


@contextmanager
def observe_embeddings(model: Any, observe: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Calls `observe` with the input of the decoder's first layer, Float[batch, tokens, D], in every forward pass.

    It contains the image features at the image tokens, however the family computes them.

    Raises:
        UnsupportedModelError: see `decoder_layers`.
    """

    def enter(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observe(args[0] if args else kwargs["hidden_states"])

    handle = decoder_layers(model)[0].register_forward_pre_hook(in_this_thread(enter), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def transform_hidden(model: Any, layer: int, transform: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replaces a decoder layer's output, Float[batch, tokens, D], by `transform(output)`.

    Raises:
        UnsupportedModelError: see `decoder_layers`.
    """

    def leave(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (transform(output[0]), *output[1:]) if isinstance(output, tuple) else transform(output)

    handle = decoder_layers(model)[layer].register_forward_hook(in_this_thread(leave))
    try:
        yield
    finally:
        handle.remove()
