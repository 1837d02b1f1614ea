"""Steps that continue pruned prompts: generation, and prefixes of answers."""

from __future__ import annotations

from typing import Any

import torch

from lad_eval.attention.caches import cache_in
from lad_eval.attention.hooks import AttentionCall, attention_layers
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.pruning.compaction import mask_form, written
from lad_eval.errors import UnsupportedModelError


class Steps:
    """How far prompts have been continued, and which tokens their continuation attends to.

    The caches of pruned layers are shorter than the first layer's, for which the model makes its masks. Their masks are made here
    from the cached tokens' positions: a query attends to remaining tokens before it in the layer's window or chunk.

    Args:
        model: of transformers.
        layout: of the prompts.

    Attributes:
        keys: by layer, Int[batch, keys]: positions of the prompt's tokens in its cache, -1 where they are hidden.
        continues: whether the pass continues the prompts, or reads them.
    """

    def __init__(self, model: Any, layout: PromptLayout) -> None:
        self._attention = attention_layers(model)
        self._length, self._padding = layout.length, layout.attended.int().argmax(dim=1)
        self._windows: dict[int, int | None] = {}
        self._masks: dict[Any, torch.Tensor | None] = {}
        self._appended = self._tokens = 0
        self.keys: dict[int, torch.Tensor] = {}
        self.continues = False

    def begin(self, tokens: int, kwargs: dict[str, Any]) -> bool:
        """Takes the start of a pass from the first layer's arguments; returns whether it continues the prompts."""
        cache = cache_in(kwargs)
        # Layers below the first stage have the whole prompt in their caches, and one of them attends.
        past = 0 if cache is None else int(cache.get_seq_length(self._cached(min(self._attention))))
        self._masks.clear()
        self.continues = past > 0
        self._tokens, self._appended = tokens, past - self._length
        if not self.continues:
            self.keys.clear()
            self._windows.clear()
            if tokens != self._length:
                raise ValueError(f"the model reads prompts of {tokens} tokens, and their layout is of {self._length}")
        return self.continues

    @property
    def continued(self) -> int:
        """Number of tokens after the prompts when this pass is done."""
        return self._appended + self._tokens

    def note_window(self, call: AttentionCall) -> None:
        """Takes a layer's window from a call of the prefill.

        Raises:
            UnsupportedModelError: the layer would count the remaining tokens instead of those of the prompt.
        """
        module: Any = call.module
        scaled = getattr(module, "attn_temperature_tuning", False) and not getattr(module, "use_rope", True)
        if scaled and self._length >= module.floor_scale:
            raise UnsupportedModelError(
                f"Layer {call.layer} scales queries by their place in prompts of {module.floor_scale} tokens or more, which is "
                "lost once tokens are dropped; use how=mask or shorter prompts."
            )
        window = call.options.get("sliding_window")
        self._windows[call.layer] = None if window is None else int(window)
        if window is not None and window < self._length and mask_form(call.module) == "keys":
            raise UnsupportedModelError(
                f"Layer {call.layer} attends to the last {window} tokens, which flash attention cannot count once tokens are "
                "dropped; use --attn sdpa or eager."
            )

    def source(self, layer: int) -> int:
        """The layer whose keys a layer attends to: itself, or for one without keys (Gemma 4) the last of its kind with keys."""
        module = self._attention.get(layer)
        if module is None or not getattr(module, "is_kv_shared_layer", False):
            return layer
        kind = getattr(module, "layer_type", None)
        return max(
            below
            for below, other in self._attention.items()
            if below < layer and not getattr(other, "is_kv_shared_layer", False) and getattr(other, "layer_type", None) == kind
        )

    def mask(self, layer: int, hidden: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor | None:
        """The mask of a step's queries in a pruned layer that attends.

        Args:
            layer: index in the decoder.
            hidden: Float[rows, queries, D] that enters it; the rows of each prompt are adjacent.
            kwargs: of the layer.
        """
        held = getattr(cache_in(kwargs).layers[self._cached(self.source(layer))], "sliding_window", None)
        known = (id(self.keys[layer]), held, self._windows.get(layer), self._chunk(layer))
        if known not in self._masks:
            self._masks[known] = self._written(layer, held, hidden)
        return self._masks[known]

    def _written(self, layer: int, held: int | None, hidden: torch.Tensor) -> torch.Tensor | None:
        rows, tokens = hidden.shape[:2]
        device, prompts = hidden.device, self.keys[layer].to(hidden.device)
        end = self._length + self._appended + tokens
        later = torch.arange(self._length, end, device=device).expand(len(prompts), -1)
        keys = torch.cat([prompts, later], dim=1)
        if held is not None:  # a sliding cache keeps a number of tokens, which may reach further back than the window
            keys = keys[:, max(0, keys.shape[1] - (held - 1 + tokens)) :]
        queries = torch.arange(end - tokens, end, device=device)[None, :, None]
        columns = keys[:, None]
        seen = (columns >= 0) & (columns <= queries)
        if (window := self._windows.get(layer)) is not None:
            seen &= queries - columns < window
        if (chunk := self._chunk(layer)) is not None:
            start = self._padding.to(device)[:, None, None]
            seen &= (columns - start) // chunk == (queries - start) // chunk
        seen = seen.repeat_interleave(rows // len(prompts), dim=0)
        form = mask_form(self._attention[layer])
        if form == "keys":
            real = (keys >= 0).repeat_interleave(rows // len(prompts), dim=0)
            return None if bool(real.all()) else real.long()
        return None if tokens == 1 and bool(seen.all()) else written(seen[:, None], form, hidden.dtype)

    def hidden(self, remaining: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        """Bool[rows, keys]: which keys of a call in a layer with a full cache are dropped tokens.

        Args:
            remaining: Bool[batch, T].
            call: of a prefill or a step.
        """
        total = self._length + (self._appended + self._tokens if self.continues else 0)
        gone = torch.nn.functional.pad(~remaining, (0, total - self._length))[:, total - call.key.shape[2] :]
        return gone.repeat_interleave(call.query.shape[0] // len(gone), dim=0)

    def _chunk(self, layer: int) -> int | None:
        """Chunk length of a layer that attends within chunks of the prompt (Llama 4); None for others."""
        config: Any = getattr(self._attention[layer], "config", None)
        kinds = getattr(config, "layer_types", None)
        if kinds is None or kinds[layer] != "chunked_attention":
            return None
        return int(config.attention_chunk_size)

    def _cached(self, layer: int) -> int:
        """A layer's number in the cache."""
        return int(getattr(self._attention[layer], "layer_idx", layer))
