"""How much the last query token attends to each image, read inside an ordinary forward pass.

No eager attention and no `output_attentions`: only the last row of every layer's attention is computed a second time, in float32,
and summed over the image spans at once, so that neither time nor memory depends on the square of the prompt's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.attention.hooks import AttentionCall, attending_layers, observe_attention
from lad_eval.attention.rows import attention_rows, summed_rows
from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError


class Recorder:
    """Collects the last row of every decoder layer that attends; made by `record_last_row`.

    Attributes:
        layers: indices, in the decoder, of the layers that attend, ascending. Linear-attention layers are not among them.
    """

    def __init__(self, model: Any, spans: Spans, queries: torch.Tensor | None = None) -> None:
        self.layers: tuple[int, ...] = attending_layers(model)
        self._model = type(model).__name__
        self._spans = spans
        self._queries = queries
        self._summed: dict[int, torch.Tensor] = {}
        self._rows: dict[int, torch.Tensor] = {}
        self._membership: dict[torch.device, torch.Tensor] = {}

    def observe(self, call: AttentionCall) -> None:
        """Takes the last row of a prefill's call; decoding steps, which are shorter than the prompt, are ignored.

        A layer that uses the keys of a lower one (Gemma 4) is run for the prompt's last token only, with the prompt's keys.
        If tokens were dropped before the layer, a dropped token has no attention, and the others count for their images.
        """
        keys = self._spans.length if call.positions is None else call.positions.shape[1]
        last_only = call.key.shape[2] == keys and call.layer not in self._rows
        if not call.is_prefill(self._spans.length) and not last_only:
            return
        if call.layer in self._rows:
            raise UnsupportedModelError(f"{self._model} is not supported: layer {call.layer} attends more than once in a pass.")
        with torch.no_grad():
            row = last_row(call).mean(dim=1)[:, :keys]
            self._rows[call.layer] = torch.bmm(row[:, None, :], self._members(call))[:, 0]
            if self._queries is not None:
                if call.positions is not None or call.query.shape[2] != self._spans.length:
                    raise UnsupportedModelError(
                        f"{self._model} has no token map here: layer {call.layer} attends from some of the prompt's tokens only."
                    )
                self._summed[call.layer] = summed_rows(call, self._queries)[:, :keys]

    def _members(self, call: AttentionCall) -> torch.Tensor:
        """Float[batch, keys, 2 N]: `Spans.membership` of the call's keys."""
        device = call.query.device
        if device not in self._membership:
            self._membership[device] = self._spans.membership(device)
        members = self._membership[device]
        if call.positions is None:
            return members
        positions = call.positions.to(device)
        remaining = members.gather(1, positions.clamp(min=0)[..., None].expand(-1, -1, members.shape[2]))
        return remaining * (positions >= 0)[..., None]

    def attention(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention to each image: Float32[batch, L, N] over its own tokens, and the same with delimiters; layers as in `layers`.

        Source: arXiv 2605.11591, Eq. 6. On the CPU.

        Raises:
            UnsupportedModelError: a layer gave no row, or a row that is not finite.
        """
        missing = [layer for layer in self.layers if layer not in self._rows]
        if missing:
            raise UnsupportedModelError(
                f"{self._model} is not supported: decoder {_named(missing)} gave no attention row, as the attention does not go "
                "through transformers' attention functions."
            )
        # One copy for all layers, which a model on several devices has on several.
        device = self._rows[self.layers[-1]].device
        pooled = torch.stack([self._rows[layer].to(device) for layer in self.layers], dim=1).cpu()
        if not bool(torch.isfinite(pooled).all()):
            broken = [layer for i, layer in enumerate(self.layers) if not bool(torch.isfinite(pooled[:, i]).all())]
            raise UnsupportedModelError(
                f"{self._model}: the attention of decoder {_named(broken)} is not finite; try dtype bfloat16 or float32."
            )
        n = self._spans.image.shape[1]
        return pooled[..., :n], pooled[..., n:]

    def token_maps(self) -> list[torch.Tensor]:
        """Attention of `queries`, their mean, to each image token: Float32[image tokens] of each row, by image, then by token.

        The sum over the layers of the mean over their heads. Source: arXiv 2410.02642, whose released code sums over the heads.

        Raises:
            UnsupportedModelError: a value is not finite.
        """
        assert self._queries is not None, "token maps need queries"
        device = self._summed[self.layers[-1]].device
        total = torch.stack([self._summed[layer].to(device) for layer in self.layers]).sum(dim=0).cpu()
        total = total / self._queries.sum(dim=1, keepdim=True).cpu()
        if not bool(torch.isfinite(total).all()):
            raise UnsupportedModelError(f"{self._model}: a token map is not finite; try dtype bfloat16 or float32.")
        n = self._spans.image.shape[1]
        return [torch.cat([row[owner == i] for i in range(n)]) for row, owner in zip(total, self._spans.owner.cpu(), strict=True)]


@contextmanager
def record_last_row(model: Any, spans: Spans, queries: torch.Tensor | None = None) -> Iterator[Recorder]:
    """Records the forward pass made while the context is open: one prefill of the prompt that `spans` belongs to.

    Args:
        model: of transformers.
        spans: of the batch's images.
        queries: Bool[batch, T], the tokens whose attention to every image token is recorded too, some in each row; None: none.

    Use:
        with record_last_row(model, spans) as recorder:
            output = model(**inputs, use_cache=True, logits_to_keep=1)
        plain, delimited = recorder.attention()

    Raises:
        UnsupportedModelError: the model has no decoder layers with attention.
    """
    recorder = Recorder(model, spans, queries)
    with observe_attention(model, recorder.observe):
        yield recorder


def last_row(call: AttentionCall) -> torch.Tensor:
    """Post-softmax attention of the last query: Float32[batch, H, keys].

    Raises:
        UnsupportedModelError: see `attention_rows`.
    """
    batch, _, queries, _ = call.query.shape
    return attention_rows(call, torch.full((batch, 1), queries - 1))[:, :, 0]


def _named(layers: list[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
