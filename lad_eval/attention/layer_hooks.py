"""Hooks on whole decoder layers: their inputs and outputs. Like hooks on attention, they act in one thread only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.attention.hooks import decoder_layers
from lad_eval.errors import UnsupportedModelError


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


@contextmanager
def transform_positions(model: Any, transform: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Replaces the position ids of the decoder's rotary embeddings, Int[..., batch, tokens], by `transform(positions)`.

    Masks, and the positions of later passes, stay as they are.

    Raises:
        UnsupportedModelError: the decoder has no rotary embeddings of its own.
    """

    def enter(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "position_ids" in kwargs:
            return args, {**kwargs, "position_ids": transform(kwargs["position_ids"])}
        hidden, positions, *others = args
        return (hidden, transform(positions), *others), kwargs

    handles = [module.register_forward_pre_hook(in_this_thread(enter), with_kwargs=True) for module in rotary_embeddings(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def observe_rotary(model: Any, observe: Callable[[torch.Tensor, Any], None]) -> Iterator[None]:
    """Calls `observe(positions, output)` with the position ids and the output of the decoder's rotary embeddings in every pass.

    Raises:
        UnsupportedModelError: see `rotary_embeddings`.
    """

    def leave(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        observe(kwargs["position_ids"] if "position_ids" in kwargs else args[1], output)

    handles = [module.register_forward_hook(in_this_thread(leave), with_kwargs=True) for module in rotary_embeddings(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def rotary_embeddings(model: Any) -> list[torch.nn.Module]:
    """The modules that turn position ids into the angles of the decoder's keys and queries.

    Raises:
        UnsupportedModelError: the decoder has none of its own.
    """
    layers = decoder_layers(model)
    holders = [module for module in model.modules() if any(child is layers for child in module.children())]
    rotary = [child for holder in holders for child in holder.children() if type(child).__name__.endswith("RotaryEmbedding")]
    if not rotary:
        raise UnsupportedModelError(f"{type(model).__name__} is not supported here: its decoder has no rotary embeddings.")
    return rotary
