"""Keys of chosen tokens, and the last query's scores and attention on them, read inside an ordinary forward pass.

Keys are taken at two stages: before rotary positions (the output of a key norm where a family has one, else of the key
projection), and as attention uses them. Hooks only read, so that the model's answers are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch

from lad_eval.attention.hooks import AttentionCall, attention_layers, observe_attention
from lad_eval.attention.recorder import last_row
from lad_eval.errors import UnsupportedModelError

Stage = Literal["unrotated", "rotated"]
STAGES: tuple[Stage, ...] = ("unrotated", "rotated")
LINKS = ("score", "norm", "cosine", "attention")
"""What is recorded for the last query and a group of keys, in this order; see `KeyRecorder.links`."""

_NORMS = ("k_norm", "k_layernorm")
_PROJECTION = "k_proj"


def unrotated_source(module: torch.nn.Module) -> str | None:
    """The name of the submodule whose output rotary positions are applied to.

    None where queries, keys and values are one projection, and where a layer uses the keys of a lower one (Gemma 4): such layers
    have rotated keys only.
    """
    names = {name for name, child in module.named_children() if not isinstance(child, torch.nn.Identity)}
    if _PROJECTION not in names:
        return None
    return next((norm for norm in _NORMS if norm in names), _PROJECTION)


class KeyRecorder:
    """Collects one prefill of a batch of left-padded prompts; made by `record_keys`.

    Args:
        model: of transformers.
        layers: indices, in the decoder, of layers that attend.
        rows: Int[n], the prompt of each chosen token.
        columns: Int[n], its index in the padded prompt.
        groups: Bool[batch, T] each, sets of keys that the last row is compared with.

    Attributes:
        keys: by (layer, stage), Float32[n, H_kv head_dim] on the CPU, all heads side by side.
        links: by layer, Float32[batch, 4, groups] on the CPU: means over a group's keys and the heads of the pre-softmax score
            with the last query (scaled as the layer scales it, before a soft cap), the key's norm, the cosine with the query,
            and attention. NaN where a prompt has no key of a group.
        scores: by layer, Float32[n] on the CPU: the pre-softmax score of each chosen token, mean over the heads.
        heads: by layer, H_kv, the number of key-value heads.
    """

    def __init__(
        self, model: Any, layers: Sequence[int], rows: torch.Tensor, columns: torch.Tensor, groups: Sequence[torch.Tensor]
    ) -> None:
        self.layers = tuple(layers)
        self.keys: dict[tuple[int, Stage], torch.Tensor] = {}
        self.links: dict[int, torch.Tensor] = {}
        self.scores: dict[int, torch.Tensor] = {}
        self.heads: dict[int, int] = {}
        self._model = type(model).__name__
        self._rows, self._columns = rows, columns
        self._groups = torch.stack(list(groups), dim=1)  # [batch, groups, T]
        self._batch, _, self._length = self._groups.shape

    def observe(self, call: AttentionCall) -> None:
        """Takes rotated keys and links from a prefill's call."""
        if call.layer not in self.layers:
            return
        if call.positions is not None:
            raise ValueError("keys are recorded of unchanged models, and tokens were dropped from this one")
        if call.layer in self.links:
            raise UnsupportedModelError(f"{self._model} is not supported: layer {call.layer} attends more than once in a pass.")
        with torch.no_grad():
            key = call.key[:, :, : self._length]
            self._take(call.layer, "rotated", key.transpose(1, 2))
            self.heads[call.layer] = key.shape[1]
            values = _compared(call, key)
            self.scores[call.layer] = values[self._rows.to(values.device), 0, self._columns.to(values.device)].cpu()
            self.links[call.layer] = self._means(values).cpu()

    def take_unrotated(self, layer: int, output: torch.Tensor) -> None:
        """Takes the output of a key norm or projection: [batch, T, H_kv d], [batch, T, H_kv, d] or [batch, H_kv, T, d].

        Raises:
            UnsupportedModelError: it has another form.
        """
        if output.dim() == 4 and output.shape[1] != self._length:
            output = output.transpose(1, 2)
        if output.dim() not in (3, 4) or tuple(output.shape[:2]) != (self._batch, self._length):
            raise UnsupportedModelError(
                f"{self._model} is not supported: the keys of decoder layer {layer} have the shape {list(output.shape)}, with "
                f"no place for {self._batch} prompts of {self._length} tokens."
            )
        self._take(layer, "unrotated", output)

    def _take(self, layer: int, stage: Stage, keys: torch.Tensor) -> None:
        """Stores the chosen tokens of Float[batch, T, ...]."""
        chosen = keys.detach()[self._rows.to(keys.device), self._columns.to(keys.device)]
        self.keys[layer, stage] = chosen.flatten(1).float().cpu()

    def _means(self, values: torch.Tensor) -> torch.Tensor:
        """Means over groups: Float[batch, 4, groups] of Float[batch, 4, T]."""
        groups = self._groups.to(values.device).float()
        # A padded key may hold anything, even values that are not finite; it belongs to no group.
        sums = torch.matmul(torch.nan_to_num(values), groups.transpose(1, 2))
        return sums / groups.sum(dim=-1)[:, None]  # 0 / 0 is NaN: a prompt without such keys

    def check(self) -> None:
        """Checks that every layer gave keys, and that they are finite.

        Raises:
            UnsupportedModelError: a layer gave no keys, or keys that are not finite.
        """
        if missing := [layer for layer in self.layers if layer not in self.links]:
            raise UnsupportedModelError(
                f"{self._model} is not supported: decoder layer {missing[0]} gave no keys, as its attention does not go through "
                "transformers' attention functions."
            )
        for (layer, _), keys in self.keys.items():
            if not bool(torch.isfinite(keys).all()):
                raise UnsupportedModelError(
                    f"{self._model}: the keys of decoder layer {layer} are not finite; try dtype bfloat16 or float32."
                )


def _compared(call: AttentionCall, key: torch.Tensor) -> torch.Tensor:
    """Each of LINKS for every key of the prompt, means over the heads: Float32[batch, 4, T]."""
    batch, _, _, width = call.query.shape
    scaling = call.options.get("scaling")
    query = call.query[:, :, -1].float().reshape(batch, key.shape[1], -1, width)
    keys = key.float()
    products = torch.matmul(query, keys.transpose(-1, -2))  # [batch, H_kv, heads that share a key, T]
    norms = keys.norm(dim=-1)
    lengths = query.norm(dim=-1)[..., None] * norms[:, :, None]
    return torch.stack(
        [
            products.mean(dim=(1, 2)) * (width**-0.5 if scaling is None else scaling),
            norms.mean(dim=1),
            (products / lengths.clamp(min=torch.finfo(torch.float32).tiny)).mean(dim=(1, 2)),
            last_row(call).mean(dim=1)[:, : key.shape[2]],
        ],
        dim=1,
    )


@contextmanager
def record_keys(
    model: Any, layers: Sequence[int], rows: torch.Tensor, columns: torch.Tensor, groups: Sequence[torch.Tensor]
) -> Iterator[KeyRecorder]:
    """Records the one forward pass over a batch of prompts that is made while the context is open.

    Args:
        model: without interventions.
        layers: see `KeyRecorder`, as for the other arguments.

    Raises:
        UnsupportedModelError: a layer does not attend, or raised by the pass: see `KeyRecorder`.
    """
    modules = attention_layers(model)
    if others := [layer for layer in layers if layer not in modules]:
        raise UnsupportedModelError(f"Decoder layer {others[0]} of {type(model).__name__} has no attention, so it has no keys.")
    recorder = KeyRecorder(model, layers, rows, columns, groups)
    with ExitStack() as stack:
        for layer in layers:
            source = unrotated_source(modules[layer])
            if source is not None:
                hook = _taking(recorder, layer)
                stack.callback(modules[layer].get_submodule(source).register_forward_hook(hook).remove)
        stack.enter_context(observe_attention(model, recorder.observe))
        yield recorder


def _taking(recorder: KeyRecorder, layer: int) -> Callable[..., None]:
    def hook(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        recorder.take_unrotated(layer, output)

    return hook


def stage_names(model: Any, layers: Sequence[int]) -> Mapping[int, str]:
    """By layer, the kind of its keys before rotary positions: "normed", "projected", or "none" if there are none."""
    modules = attention_layers(model)
    names = {None: "none", _PROJECTION: "projected"}
    return {layer: names.get(unrotated_source(modules[layer]), "normed") for layer in layers}
