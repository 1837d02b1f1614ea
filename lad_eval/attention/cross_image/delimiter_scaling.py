"""Delimiter scaling: hidden states of the tokens around images, multiplied after the first layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.parameters import Count, Positive

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.layout import PromptLayout


@dataclass(frozen=True)
class DelimiterScaling(Intervention):
    """Scaled delimiters: hidden states of the special tokens around images times `scale` after each of the first layers.

    Source: delimiter token scaling, arXiv 2602.01984 (github.com/MYMY-young/DelimScaling, a288073), which keeps images apart.
    The factors multiply: after four layers a delimiter is 8 ** 4 times as large, so that later layers hardly change it.
    Only the prompt is changed, and only prompts of several images are, whatever else is in their batch.

    Args:
        scale: above 0.
        layers: how many of the decoder's first layers.

    Raises:
        UserError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "delimiter-scaling"
    idle: ClassVar[str] = "as it read no prompt"
    scale: Annotated[float, Positive()] = 8.0
    layers: Annotated[int, Count()] = 4

    def _concerns(self, layout: PromptLayout) -> bool:
        return layout.spans.image.shape[1] > 1

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        import torch

        from lad_eval.attention.hooks import decoder_layers
        from lad_eval.attention.layer_hooks import observe_embeddings, transform_hidden

        delimiters = _delimiters(layout)
        kind, depth = type(model).__name__, len(decoder_layers(model))
        if not bool(delimiters.any(dim=1).all()):
            raise UnsupportedModelError(f"{kind} puts no special tokens around its images that {self.name} could scale.")
        if self.layers > depth:
            raise UserError(
                f"{self.label} scales after the first {self.layers} decoder layers, and {kind} has {depth}; write "
                f"delimiter-scaling(layers={depth}) or less."
            )
        if getattr(model, "dtype", None) == torch.float16:
            raise UnsupportedModelError(f"{self.name} multiplies hidden states, which may exceed float16; use --dtype bfloat16.")
        in_prefill = False

        def begin(embeddings: torch.Tensor) -> None:
            nonlocal in_prefill
            in_prefill = embeddings.shape[:2] == delimiters.shape

        def scaled(hidden: torch.Tensor) -> torch.Tensor:
            if not in_prefill:
                return hidden
            if hidden.shape[:2] != delimiters.shape:
                raise UserError(f"{self.name} must be written after what drops tokens, such as fastv+{self.name}.")
            acted()
            return torch.where(delimiters.to(hidden.device)[..., None], hidden * self.scale, hidden)

        with ExitStack() as stack:
            stack.enter_context(observe_embeddings(model, begin))
            for layer in range(self.layers):
                stack.enter_context(transform_hidden(model, layer, scaled))
            yield


def _delimiters(layout: PromptLayout) -> torch.Tensor:
    """Bool[batch, T]: the special tokens around the images."""
    spans = layout.spans
    inside = spans.membership("cpu").bool()
    n = spans.image.shape[1]
    around = inside[..., n:].any(dim=-1) & ~inside[..., :n].any(dim=-1)
    return around & ~spans.in_labels()
