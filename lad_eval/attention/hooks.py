"""Hooks on the attention of a decoder: observe a call, change its mask, or wrap it.

The attention layers of transformers look their function up by name at every call. A hook wraps the entry of that name while it is
open: the implementation keeps its name, its mask function and its branches. Modules outside the decoder (a vision tower, a
projector), other models and other threads pass through untouched.

Hooks that change a call nest as their contexts do, the one opened first outermost. Observers see what reaches the implementation.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Protocol

import torch

from lad_eval.errors import UnsupportedModelError


@dataclass(frozen=True)
class AttentionCall:
    """One call of an attention function, before it runs.

    Attributes:
        layer: index in the decoder's layers.
        module: the attention module.
        query: Float[batch, H, queries, head_dim], rotated.
        key: Float[batch, H_kv, keys, head_dim], rotated; cached keys included.
        mask: what the implementation takes: None, Bool or Float[batch or 1, 1 or H, queries, keys], or Int[batch, keys].
        options: the call's other keyword arguments: scaling, sliding_window, softcap, s_aux, is_causal, ...
        positions: Int[batch, keys], the position of each key in the prompt if tokens were dropped before this layer (see
            `kept_tokens`); -1 for padding that was put in their place. None: nothing was dropped.
        value: Float[batch, H_kv, keys, head_dim]; None in calls that were not taken from a model.
    """

    layer: int
    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    mask: Any
    options: Mapping[str, Any]
    positions: torch.Tensor | None = None
    value: torch.Tensor | None = None

    def is_prefill(self, length: int) -> bool:
        """Whether the queries are all those tokens of a prompt of `length` tokens that have not been dropped."""
        return self.query.shape[2] == (length if self.positions is None else self.positions.shape[1])

    @property
    def is_causal(self) -> bool:
        """Whether a query attends to no later keys where `mask` does not decide it; a single query comes after all keys."""
        causal = self.options.get("is_causal")
        return self.query.shape[2] > 1 and bool(getattr(self.module, "is_causal", True) if causal is None else causal)


AttentionOutput = tuple[torch.Tensor, torch.Tensor | None]
"""What an attention function returns: Float[batch, queries, H, head_dim], before `o_proj`, and the weights or None."""
Observer = Callable[[AttentionCall], None]
MaskTransform = Callable[[AttentionCall], Any]
"""Returns the mask to attend with, in a form that the implementation takes; the call's own mask to change nothing."""


class Run(Protocol):
    """The attention function with another query or mask, or with other keys; values and options are the call's."""

    def __call__(self, query: torch.Tensor, mask: Any, key: torch.Tensor | None = None) -> AttentionOutput: ...


Around = Callable[[AttentionCall, Run], AttentionOutput]
"""Returns the call's output, from any number of runs of the attention function."""


@dataclass(frozen=True)
class _Hook:
    layers: Mapping[int, int]
    observe: Observer | None = None
    around: Around | None = None
    positions: Mapping[int, torch.Tensor] | None = None


_HOOKS: ContextVar[tuple[_Hook, ...]] = ContextVar("lad_eval_attention_hooks", default=())
# Hooks for threads that have none of their own; see `hooks_in_all_threads`.
_SHARED: list[tuple[_Hook, ...]] = []
_LOCK = threading.Lock()


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The decoder's layers; some models (Llama 4) call a causal language model their decoder, whose layers are one level below.

    Raises:
        UnsupportedModelError: it has no list of layers.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    seen: list[Any] = []
    while decoder is not None and not any(decoder is known for known in seen):
        layers = getattr(decoder, "layers", None)
        if isinstance(layers, torch.nn.ModuleList) and len(layers):
            return layers
        seen.append(decoder)
        inner = decoder.get_decoder() if hasattr(decoder, "get_decoder") else None
        decoder = getattr(decoder, "model", None) if inner is None or inner is decoder else inner
    raise UnsupportedModelError(
        f"{type(model).__name__} is not supported: it has no list of decoder layers (get_decoder().layers)."
    )


def attention_layers(model: Any) -> dict[int, torch.nn.Module]:
    """Self-attention module of every decoder layer that has one, by layer index; linear-attention layers have none.

    Raises:
        UnsupportedModelError: no decoder layers, no attention in them, or images that enter by cross-attention.
    """
    name = type(model).__name__
    layers = decoder_layers(model)
    if any(hasattr(layer, "cross_attn") for layer in layers):
        raise UnsupportedModelError(f"{name} is not supported: images enter it by cross-attention, not as tokens of the prompt.")
    modules = ((index, getattr(layer, "self_attn", None)) for index, layer in enumerate(layers))
    attending = {index: module for index, module in modules if isinstance(module, torch.nn.Module)}
    if not attending:
        raise UnsupportedModelError(f"{name} is not supported: no decoder layer has an attention module (self_attn).")
    return attending


def attending_layers(model: Any, every: int = 1) -> tuple[int, ...]:
    """Indices, in the decoder, of every `every`-th layer among those that attend, the first of them included.

    Decoder layers are not what is counted: in a hybrid whose attending layers are 3, 7, 11, ... every second decoder layer would
    be none of them.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    return tuple(sorted(attention_layers(model))[::every])


def attention_implementation(module: torch.nn.Module) -> str:
    """The implementation that an attention module runs: "sdpa", "eager", "flash_attention_2", ..."""
    return str(getattr(getattr(module, "config", None), "_attn_implementation", None) or "eager")


@contextmanager
def observe_attention(model: Any, observe: Observer) -> Iterator[None]:
    """Calls `observe` once for every attention call of the model's decoder layers, in this thread, while the context is open.

    It gets the query and the mask that the implementation receives, after all changes by other hooks; for a call that is run
    several times, those of the first run. All open observers are called, in the order in which they were opened.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    with _open(model, observe=observe):
        yield


@contextmanager
def transform_mask(model: Any, transform: MaskTransform) -> Iterator[None]:
    """Lets every attention call of the model's decoder layers, in this thread, attend with the mask that `transform` gives.

    Several may be open: each gets the mask returned by the one opened before it.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """

    def around(call: AttentionCall, run: Run) -> AttentionOutput:
        return run(call.query, transform(call))

    with _open(model, around=around):
        yield


@contextmanager
def around_attention(model: Any, around: Around) -> Iterator[None]:
    """Lets `around(call, run)` compute the output of every attention call of the model's decoder layers, in this thread.

    Several may be open, and mask transforms with them: `run` calls the hook opened next, and finally the
    implementation. It may be called several times, and with only some of the query's rows if the mask has the same ones. Its keys
    may have another width than the call's if the query has the same one.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    with _open(model, around=around):
        yield


@contextmanager
def kept_tokens(model: Any) -> Iterator[dict[int, torch.Tensor]]:
    """A table for code that drops tokens between layers: layer index -> Int[batch, keys], each key's position in the prompt.

    That code writes a layer's entry before the layer runs, and removes it before a step that continues the prompt.
    Other hooks see it as `AttentionCall.positions`. If several tables are open, the last one opened counts.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    positions: dict[int, torch.Tensor] = {}
    with _open(model, positions=positions):
        yield positions


@contextmanager
def unobserved() -> Iterator[None]:
    """Hides attention calls from the observers opened so far, for passes that are not part of the model's own forward pass.

    Hooks that change calls stay open, and observers may be opened inside.
    """
    token = _HOOKS.set(tuple(replace(hook, observe=None) for hook in _HOOKS.get()))
    try:
        yield
    finally:
        _HOOKS.reset(token)


@contextmanager
def hooks_in_all_threads() -> Iterator[None]:
    """Lets the hooks that are open here act in threads that have none of their own, too, while the context is open.

    On a GPU a backward pass runs in PyTorch's own threads, where gradient checkpointing computes attention again.
    """
    hooks = _HOOKS.get()
    _SHARED.append(hooks)
    try:
        yield
    finally:
        _SHARED.remove(hooks)


@contextmanager
def _open(
    model: Any,
    observe: Observer | None = None,
    around: Around | None = None,
    positions: Mapping[int, torch.Tensor] | None = None,
) -> Iterator[None]:
    layers = attention_layers(model)
    held = _hold({_place(module) for module in layers.values()})
    indices = {id(module): index for index, module in layers.items()}
    token = _HOOKS.set((*_HOOKS.get(), _Hook(indices, observe, around, positions)))
    try:
        yield
    finally:
        _HOOKS.reset(token)
        _release(held)


class _Place:
    """Where a module's attention function is looked up: a mapping and a name in it."""

    def __init__(self, table: MutableMapping[str, Any], key: str) -> None:
        self.table, self.key = table, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self.table is other.table and self.key == other.key

    def __hash__(self) -> int:
        return hash((id(self.table), self.key))


_HELD: dict[_Place, tuple[int, Any, Any]] = {}


def _place(module: torch.nn.Module) -> _Place:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    implementation = attention_implementation(module)
    names = sys.modules[type(module).__module__].__dict__
    if forward := inspect.unwrap(type(module).forward):
        names = getattr(forward, "__globals__", names)
    interface = names.get("ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    local = interface._local_mapping
    if implementation in local:
        return _Place(local, implementation)
    if implementation in interface:
        return _Place(type(interface)._global_mapping, implementation)
    # Eager attention has no entry: every modeling file falls back to its own function.
    return _Place(names, "eager_attention_forward")


def _hold(places: set[_Place]) -> list[_Place]:
    held = []
    with _LOCK:
        for place in places:
            count, original, wrapper = _HELD.get(place, (0, place.table.get(place.key), None))
            if original is None:
                continue
            if count == 0:
                wrapper = _hooked(original)
                place.table[place.key] = wrapper
            _HELD[place] = (count + 1, original, wrapper)
            held.append(place)
    return held


def _release(places: list[_Place]) -> None:
    with _LOCK:
        for place in places:
            count, original, wrapper = _HELD.pop(place)
            if count > 1:
                _HELD[place] = (count - 1, original, wrapper)
            elif place.table.get(place.key) is wrapper:
                place.table[place.key] = original


def _hooked(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def attend(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        opened = _HOOKS.get() or (_SHARED[-1] if _SHARED else ())
        hooks = [hook for hook in opened if id(module) in hook.layers]
        if not hooks:
            return function(module, query, key, value, *args, **kwargs)
        mask = args[0] if args else kwargs.get("attention_mask")
        options = {name: option for name, option in kwargs.items() if name != "attention_mask"}
        layer = hooks[-1].layers[id(module)]
        call = AttentionCall(layer, module, query, key, mask, options, _positions(hooks, layer, key.shape[2]), value)
        unseen = [hook.observe for hook in hooks if hook.observe is not None]

        def implementation(query: torch.Tensor, mask: Any, key: torch.Tensor | None = None) -> Any:
            key = call.key if key is None else key
            while unseen:
                unseen.pop(0)(replace(call, query=query, key=key, mask=mask))
            if args:
                return function(module, query, key, value, mask, *args[1:], **kwargs)
            return function(module, query, key, value, **{**kwargs, "attention_mask": mask})

        run: Run = implementation
        for hook in reversed(hooks):
            if hook.around is not None:
                run = _inside(hook.around, call, run)
        return run(query, mask)

    return attend


def _inside(around: Around, call: AttentionCall, inner: Run) -> Run:
    """A run of a call through a hook; keys that the hook does not replace are those that it got."""

    def run(query: torch.Tensor, mask: Any, key: torch.Tensor | None = None) -> AttentionOutput:
        used = call.key if key is None else key

        def inner_run(query: torch.Tensor, mask: Any, key: torch.Tensor | None = None) -> AttentionOutput:
            return inner(query, mask, used if key is None else key)

        return around(replace(call, query=query, key=used, mask=mask), inner_run)

    return run


def _positions(hooks: list[_Hook], layer: int, keys: int) -> torch.Tensor | None:
    tables = (hook.positions for hook in reversed(hooks) if hook.positions is not None)
    positions = next((table[layer] for table in tables if layer in table), None)
    if positions is not None and positions.shape[1] != keys:
        raise ValueError(f"layer {layer} attends to {keys} keys, and positions of {positions.shape[1]} kept tokens were given")
    return positions
