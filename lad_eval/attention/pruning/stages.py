"""Lets tokens leave a prompt before decoder layers, with the state that a pruner ranks them by.

Nothing is patched. PyTorch hooks on the decoder's layers give each layer from the first such one on the remaining tokens
only, and put its output back among all tokens: the decoder's own loop, features that are added between layers
(DeepStack), the final norm and the choice of the last logits get the length that they expect. The key-value caches of these
layers are shorter; steps that continue the prompt get masks of that length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from lad_eval.attention.caches import CACHE_NAMES
from lad_eval.attention.hooks import (
    AttentionCall,
    attention_layers,
    decoder_layers,
    kept_tokens,
    observe_attention,
    unobserved,
)
from lad_eval.attention.layer_hooks import in_this_thread
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.masks import hide_keys
from lad_eval.attention.pruning.compaction import Slots, compacted_inputs, cut_entries, cut_keys, mask_form
from lad_eval.attention.pruning.decoder import all_tokens_reach
from lad_eval.attention.pruning.options import How
from lad_eval.attention.pruning.steps import Steps
from lad_eval.errors import UnsupportedModelError


@dataclass(frozen=True)
class StageInput:
    """The state of a batch of prompts before a decoder layer at which tokens may leave.

    Attributes:
        layer: index of that layer in the decoder.
        layout: of the prompts.
        entering: Float[batch, T, D], the layer's input; only the last tokens in some layers without keys of their own (Gemma 4).
        embeddings: Float[batch, T, D], the first layer's input.
        remaining: Bool[batch, T], the tokens that have not left; False on padding.
        attention: the call of the nearest layer below that attends.
        rotary: position embeddings of the layer of that call, for all T tokens; None where it has none.
        coming: returns the attention call that this layer would make on the remaining tokens, at the cost of its projections.
    """

    layer: int
    layout: PromptLayout
    entering: torch.Tensor
    embeddings: torch.Tensor
    remaining: torch.Tensor
    attention: AttentionCall
    rotary: Any
    coming: Callable[[], AttentionCall]

    @property
    def hidden(self) -> torch.Tensor:
        """Float[batch, T, D], the layer's input; for tokens that have left, their hidden states at that point.

        Raises:
            UnsupportedModelError: the layer is run for the last tokens only.
        """
        if self.entering.shape[1] != self.layout.length:
            raise UnsupportedModelError(
                f"Decoder layer {self.layer} is run for the last tokens only, and hidden states of all are needed there; choose "
                "another layer."
            )
        return self.entering


@dataclass(frozen=True)
class PruningDecision:
    """The decision at a stage: which tokens remain, and their hidden states.

    Attributes:
        remaining: Bool[batch, T]; a token that has left does not come back.
        hidden: Float[batch, T, D] to continue with, where tokens were merged; None: unchanged.
    """

    remaining: torch.Tensor
    hidden: torch.Tensor | None = None


Decide = Callable[[StageInput], PruningDecision]


@contextmanager
def pruned(model: Any, layout: PromptLayout, stages: Mapping[int, Decide], how: How = "drop") -> Iterator[None]:
    """Lets tokens leave before decoder layers while a model reads the prompts of a layout, and continues them.

    Args:
        model: of transformers; see `decoder.check_stages`.
        layout: of the prompts.
        stages: by decoder layer, the function that chooses the tokens that remain from it on.
        how: "drop" takes the others out; "mask" hides their keys from the layers, with no speed-up.
    """
    with kept_tokens(model) as table, ExitStack() as stack:
        one = _Pruned(model, layout, stages, how, table)
        stack.enter_context(observe_attention(model, one.observe))
        if how == "mask":
            stack.enter_context(hide_keys(model, one.hidden_keys))
        stack.enter_context(all_tokens_reach(model, max(stages)))
        layers = decoder_layers(model)
        stack.callback(layers[0].register_forward_pre_hook(in_this_thread(one.begin), with_kwargs=True).remove)
        for index in sorted(set(one.below.values())):  # before these layers' tokens are gathered
            stack.callback(
                layers[index].register_forward_pre_hook(in_this_thread(partial(one.note, index)), with_kwargs=True).remove
            )
        for index in range(min(stages), len(layers)):
            stack.callback(
                layers[index].register_forward_pre_hook(in_this_thread(partial(one.enter, index)), with_kwargs=True).remove
            )
            stack.callback(layers[index].register_forward_hook(in_this_thread(partial(one.leave, index))).remove)
        yield


class _ReachedError(Exception):
    """Stops a layer once its attention call is known."""

    def __init__(self, call: AttentionCall) -> None:
        self.call = call


@dataclass(frozen=True)
class _Left:
    """The tokens that remain from a stage on, Bool[batch, T], and their slots."""

    remaining: torch.Tensor
    slots: Slots


class _Pruned:
    """Which tokens remain, layer by layer, in the prefill of a batch of prompts and in the steps that continue it."""

    def __init__(
        self, model: Any, layout: PromptLayout, stages: Mapping[int, Decide], how: How, table: dict[int, torch.Tensor]
    ) -> None:
        self._model, self._layout, self._stages, self._how, self._table = model, layout, stages, how, table
        self._attention = attention_layers(model)
        self.below = {layer: max(below for below in self._attention if below < layer) for layer in stages}
        self._steps = Steps(model, layout)
        self._embeddings: torch.Tensor | None = None
        self._left: _Left | None = None
        self._at: dict[int, _Left] = {}
        self._calls: dict[int, AttentionCall] = {}
        self._rotary: dict[int, Any] = {}
        self._entering: dict[int, torch.Tensor] = {}
        self._cut: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def begin(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the first layer."""
        self._table.clear()
        self._cut.clear()
        if self._steps.begin(args[0].shape[1], kwargs):
            return
        self._left = None
        for state in (self._at, self._calls, self._rotary, self._entering):
            state.clear()
        self._embeddings = args[0]

    def note(self, index: int, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a layer whose attention a stage ranks by."""
        if not self._steps.continues:
            self._rotary[index] = kwargs.get("position_embeddings")

    def observe(self, call: AttentionCall) -> None:
        """Stores what stages and later steps need of an attention call."""
        if self._steps.continues:
            return
        if call.layer in self.below.values():
            self._calls[call.layer] = call
        if call.layer in self._at and self._how == "drop":
            self._steps.note_window(call)

    def hidden_keys(self, call: AttentionCall) -> torch.Tensor | None:
        """Bool[rows, keys] that are masked from a call; None where all tokens remain."""
        left = self._at.get(call.layer)
        return None if left is None else self._steps.hidden(left.remaining, call)

    def enter(self, index: int, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a layer from the first stage on."""
        if self._steps.continues:
            if index not in self._at or index not in self._attention or self._how == "mask":
                return None
            return args, {**kwargs, "attention_mask": self._steps.mask(index, args[0], kwargs)}
        if self._left is not None:
            self._at[index] = self._left
        if index in self._stages:
            args = self._decide(index, module, args, kwargs)
        if self._left is None:
            return args, kwargs
        self._at[index] = self._left
        keys = self._keys(index)
        if index in self._attention:
            self._table[index] = keys
            self._steps.keys[index] = keys
        if self._how == "mask":
            return args, kwargs
        if args[0].shape[1] == self._layout.length:
            self._entering[index] = args[0]
        return self._compacted(index, args, kwargs)

    def leave(self, index: int, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """After a layer from the first stage on."""
        full = self._entering.pop(index, None)
        if full is None:
            return None
        slots = self._at[index].slots
        return (slots.put(full, output[0]), *output[1:]) if isinstance(output, tuple) else slots.put(full, output)

    def _decide(self, index: int, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The layer's arguments, perhaps with new hidden states; the remaining tokens are in `_left`."""
        hidden = args[0]
        assert self._embeddings is not None  # `begin` comes first
        remaining = self._layout.attended.to(hidden.device) if self._left is None else self._left.remaining.to(hidden.device)
        coming = partial(self._coming, index, module, args, kwargs)
        call, rotary = self._calls[self.below[index]], self._rotary.get(self.below[index])
        inputs = StageInput(index, self._layout, hidden, self._embeddings, remaining, call, rotary, coming)
        decision = _decided_before_appended(self._stages[index], inputs)
        if index == max(self._stages):
            self._calls.clear()
            self._rotary.clear()
            self._embeddings = None
        after = remaining & decision.remaining
        if not torch.equal(after, remaining):
            self._left = _Left(after, Slots.of(after))
        return args if decision.hidden is None else (decision.hidden, *args[1:])

    def _coming(self, index: int, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AttentionCall:
        """The attention call that a layer would make; nothing is cached, and no other hook observes it.

        Raises:
            UnsupportedModelError: it does not attend.
        """
        if index not in self._attention:
            raise UnsupportedModelError(
                f"Decoder layer {index} of {type(self._model).__name__} has no attention to rank tokens by; choose another layer."
            )

        def stop(call: AttentionCall) -> None:
            raise _ReachedError(call)

        if self._left is not None:
            self._table[index] = self._keys(index)
            if self._how == "drop":
                args, kwargs = self._compacted(index, args, kwargs)
        kwargs = {**kwargs, **{name: None for name in CACHE_NAMES if name in kwargs}}
        try:
            with torch.no_grad(), unobserved(), observe_attention(self._model, stop):
                module.forward(*args, **kwargs)
        except _ReachedError as reached:
            return reached.call
        finally:
            self._table.pop(index, None)
        raise UnsupportedModelError(
            f"{type(self._model).__name__} is not supported: decoder layer {index} does not go through transformers' attention "
            "functions."
        )

    def _keys(self, index: int) -> torch.Tensor:
        """Int[batch, keys]: the position in the prompt of each of a layer's keys, -1 where it is hidden."""
        left = self._at[index]
        source = self._steps.source(index)
        if self._how == "drop" and source == index:
            return left.slots.positions
        if self._how == "drop" and source in self._at:
            positions = self._at[source].slots.positions
        else:
            positions = torch.arange(self._layout.length, device=left.remaining.device).expand_as(left.remaining)
        real = (positions >= 0) & left.remaining.gather(1, positions.clamp(min=0))
        return torch.where(real, positions, -1)

    def _compacted(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A layer's arguments for the remaining tokens only."""
        hidden, mask, slots = args[0], kwargs.get("attention_mask"), self._at[index].slots
        batch, tokens = hidden.shape[:2]
        keys = self._keys(index).to(hidden.device)
        whole = tokens == slots.length
        known = (id(mask), id(slots), tokens, self._steps.source(index) if index in self._attention else -1)
        if known not in self._cut:
            if index not in self._attention or (form := mask_form(self._attention[index])) == "keys":
                cut = cut_keys(mask, keys)
            else:
                last = torch.arange(slots.length - tokens, slots.length, device=hidden.device).expand(batch, -1)
                queries = slots.positions.to(hidden.device) if whole else last
                cut = cut_entries(mask, queries, keys, form, hidden.dtype)
            self._cut[known] = (mask, cut)  # held, so that no other mask can have its id
        if whole:
            args, kwargs = compacted_inputs(args, kwargs, slots, batch)
        return args, {**kwargs, "attention_mask": self._cut[known][1]}


def _decided_before_appended(decide: Decide, inputs: StageInput) -> PruningDecision:
    """The decision for prompts with appended tokens: as without them, and the appended tokens all remain.

    So a prompt that is run again for every prefix of an answer is pruned like one that is run once and continued.

    Raises:
        UnsupportedModelError: an attention call has the last token only.
    """
    if not (count := inputs.layout.appended):
        return decide(inputs)
    prompts = StageInput(
        inputs.layer,
        inputs.layout.without_appended(),
        inputs.entering[:, :-count],
        inputs.embeddings[:, :-count],
        inputs.remaining[:, :-count],
        _without_last(inputs.attention, count),
        inputs.rotary,
        lambda: _without_last(inputs.coming(), count),
    )
    decision = decide(prompts)
    remaining = torch.nn.functional.pad(decision.remaining, (0, count), value=True)
    if decision.hidden is None:
        return PruningDecision(remaining)
    return PruningDecision(remaining, torch.cat([decision.hidden, inputs.hidden[:, -count:]], dim=1))


def _without_last(call: AttentionCall, count: int) -> AttentionCall:
    """A prefill's call without its last tokens, which no token before them sees."""
    if call.query.shape[2] <= count:
        raise UnsupportedModelError(
            f"Layer {call.layer} attends from the last token only, so that a prompt with a prefix of an answer cannot be pruned."
        )
    mask: Any = call.mask
    if isinstance(mask, torch.Tensor):
        mask = mask[..., :-count] if mask.dim() == 2 else mask[..., :-count, :-count]
    positions = None if call.positions is None else call.positions[:, :-count]
    return replace(call, query=call.query[:, :, :-count], key=call.key[:, :, :-count], mask=mask, positions=positions)
