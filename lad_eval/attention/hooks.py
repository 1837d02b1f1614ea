"""Being called whenever a decoder layer attends, whatever the attention implementation; and giving it another mask.

The attention layers of transformers look their function up by name at every call. `tap` wraps the entry of that name while it is
open: the implementation keeps its name, its mask function and its branches. Modules outside the decoder (a vision tower, a
projector) and other models in other threads pass through untouched.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from lad_eval.attention.spans import image_token_id
from lad_eval.errors import UnsupportedModelError


@dataclass(frozen=True)
class AttentionCall:
    """One call of an attention function, before it runs.

    Attributes:
        layer: index in the decoder's layers.
        module: the attention module.
        query: Float[batch, H, queries, head_dim], rotated.
        key: Float[batch, H_kv, keys, head_dim], rotated; the cache's tail included.
        mask: what the implementation takes: None, Bool or Float[batch or 1, 1 or H, queries, keys], or Int[batch, keys].
        options: the call's other keyword arguments: scaling, sliding_window, softcap, s_aux, is_causal, ...
    """

    layer: int
    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    mask: Any
    options: Mapping[str, Any]


Observer = Callable[[AttentionCall], None]
Changer = Callable[[AttentionCall], Any]
"""Gives the mask to attend with, of a form that the implementation takes; the call's own to leave it as it is."""


@dataclass(frozen=True)
class _Tap:
    layers: Mapping[int, int]
    observe: Observer | None = None
    change: Changer | None = None


_TAPS: ContextVar[tuple[_Tap, ...]] = ContextVar("lad_eval_attention_taps", default=())
_LOCK = threading.Lock()


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The decoder's layers; some models (Llama 4) call a causal language model their decoder, whose layers are one level below.

    Raises:
        UnsupportedModelError: there is no list of layers.
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
    found = {index: module for index, module in modules if isinstance(module, torch.nn.Module)}
    if not found:
        raise UnsupportedModelError(f"{name} is not supported: no decoder layer has an attention module (self_attn).")
    return found


@contextmanager
def tap(model: Any, observe: Observer) -> Iterator[None]:
    """Calls `observe` before every attention call of the model's decoder layers, in this thread, while the context is open.

    It sees the mask that the layer will attend with, whoever changed it. Of several only the one opened last is called.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    with _open(model, observe=observe):
        yield


@contextmanager
def change_mask(model: Any, change: Changer) -> Iterator[None]:
    """Lets every attention call of the model's decoder layers, in this thread, attend with the mask that `change` gives.

    Several may be open: each is given the mask that those opened before it gave.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    with _open(model, change=change):
        yield


@contextmanager
def _open(model: Any, observe: Observer | None = None, change: Changer | None = None) -> Iterator[None]:
    layers = attention_layers(model)
    hooks = {_place(module) for module in layers.values()}
    held = _hold(hooks)
    indices = {id(module): index for index, module in layers.items()}
    token = _TAPS.set((*_TAPS.get(), _Tap(indices, observe, change)))
    try:
        yield
    finally:
        _TAPS.reset(token)
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

    implementation = getattr(getattr(module, "config", None), "_attn_implementation", None) or "eager"
    names = sys.modules[type(module).__module__].__dict__
    if forward := inspect.unwrap(type(module).forward):
        names = getattr(forward, "__globals__", names)
    interface = names.get("ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    local = interface._local_mapping
    if implementation in local:
        return _Place(local, implementation)
    if implementation in interface:
        return _Place(type(interface)._global_mapping, implementation)
    # Eager attention has no entry: every modeling file falls back to a function of its own.
    return _Place(names, "eager_attention_forward")


def _hold(places: set[_Place]) -> list[_Place]:
    held = []
    with _LOCK:
        for place in places:
            count, original, wrapper = _HELD.get(place, (0, place.table.get(place.key), None))
            if original is None:
                continue
            if count == 0:
                wrapper = _observed(original)
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


def _observed(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def attend(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        taps = [(tap, tap.layers[id(module)]) for tap in _TAPS.get() if id(module) in tap.layers]
        if not taps:
            return function(module, query, key, value, *args, **kwargs)
        given = args[0] if args else kwargs.get("attention_mask")
        options = {name: option for name, option in kwargs.items() if name != "attention_mask"}
        mask = given
        for active, layer in taps:
            if active.change is not None:
                mask = active.change(AttentionCall(layer, module, query, key, mask, options))
        observers = [(active.observe, layer) for active, layer in taps if active.observe is not None]
        if observers:
            observe, layer = observers[-1]
            observe(AttentionCall(layer, module, query, key, mask, options))
        if mask is not given:
            args, kwargs = (mask, *args[1:]) if args else args, kwargs if args else {**kwargs, "attention_mask": mask}
        return function(module, query, key, value, *args, **kwargs)

    return attend


def check_supported(model: Any, processor: Any) -> None:
    """Looks for what the evidence needs, and lets the model read a few words to see that its attention can be observed.

    Raises:
        UnsupportedModelError: one line that says what is missing.
    """
    name = type(model).__name__
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise UnsupportedModelError(
            f"{name} is not supported: its processor ({type(processor).__name__}) is no tokenizer joined with an image processor."
        )
    if not (getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)):
        raise UnsupportedModelError(
            f"{name} is not supported: its processor has no chat template; use a checkpoint tuned to follow instructions."
        )
    image_token_id(model)
    expected = attention_layers(model)
    seen: set[int] = set()

    def note(call: AttentionCall) -> None:
        seen.add(call.layer)

    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return
    words = torch.tensor([tokenizer.encode("Answer: 1", add_special_tokens=False)], device=device)
    with torch.no_grad(), tap(model, note):
        try:
            model(input_ids=words, attention_mask=torch.ones_like(words), use_cache=False)
        # Whatever the model's own code trips over is told with its type, and no evidence is taken from it.
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, NotImplementedError) as fault:
            reason = (str(fault).strip().splitlines() or [""])[0]
            raise UnsupportedModelError(
                f"{name} is not supported: it fails on a prompt of a few words ({type(fault).__name__}: {reason})."
            ) from fault
    if missing := sorted(set(expected) - seen):
        layers = ", ".join(map(str, missing))
        raise UnsupportedModelError(
            f"{name} is not supported: {type(expected[missing[0]]).__name__} (decoder layers {layers}) does not go through "
            "transformers' attention functions, so its attention cannot be read."
        )
