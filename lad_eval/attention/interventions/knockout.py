"""Attention knockout: text does not attend to visual tokens in chosen layers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.errors import UserError
from lad_eval.parameters import ParameterError

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.hooks import AttentionCall
    from lad_eval.attention.layout import PromptLayout

Tokens = Literal["image", "all-but-last"]
_LAYERS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Knockout(Intervention):
    """Attention knockout: in chosen layers, tokens that are not visual do not attend to visual ones. No calibration.

    Visual tokens still attend to each other, so an image's last token can still gather what the image shows. Replies after
    the prompt are text, too. A model that reads its images through these layers becomes worse.

    Source: Geva et al. 2023 (arXiv 2304.14767), section 4; for images and text arXiv 2412.06646.

    Args:
        tokens: that text does not attend to: "image", all visual tokens, or "all-but-last", all but the last one of each image.
        layers: "all", one layer of the decoder such as "8", or a range such as "8-16", both ends included. Layers without
            attention in the range are not changed.

    Raises:
        ParameterError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "knockout"
    idle: ClassVar[str] = "as no text after an image attends to it in these layers anyway"
    tokens: Tokens = "image"
    layers: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        match = _LAYERS.fullmatch(str(self.layers))
        if match is None and self.layers != "all":
            raise ParameterError(
                f"layers of knockout must be all, a layer or a range of layers such as 8-16, not {self.layers!r}."
            )
        if match is not None:
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                raise ParameterError(
                    f"layers of knockout must be a range from its lower end to its upper one, not {self.layers!r}."
                )
            # One spelling for equal parameters, since the label names the method.
            object.__setattr__(self, "layers", f"{first}" if first == last else f"{first}-{last}")

    def chosen(self, model: Any) -> frozenset[int]:
        """The layers of the model in which text is kept from visual tokens.

        Raises:
            UserError: a layer does not exist, or none of them attends.
        """
        from lad_eval.attention.hooks import attention_layers, decoder_layers

        attending, total = attention_layers(model), len(decoder_layers(model))
        if self.layers == "all":
            return frozenset(attending)
        first, _, last = self.layers.partition("-")
        wanted = range(int(first), int(last or first) + 1)
        if wanted[-1] >= total:
            raise UserError(
                f"{self.label} names decoder layer {wanted[-1]}, and {type(model).__name__} has layers 0 to {total - 1}; choose "
                "among these."
            )
        chosen = frozenset(attending).intersection(wanted)
        if not chosen:
            raise UserError(
                f"{self.label} names no layer of {type(model).__name__} that attends; those are "
                f"{', '.join(map(str, sorted(attending)))}."
            )
        return chosen

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.hooks import decoder_layers, transform_mask

        hiding = _HiddenImages(model, self.chosen(model), layout, hidden_tokens(layout, self.tokens), acted)
        before = decoder_layers(model)[0].register_forward_pre_hook(hiding.begin, with_kwargs=True)
        try:
            with transform_mask(model, hiding):
                yield
        finally:
            before.remove()


def hidden_tokens(layout: PromptLayout, tokens: Tokens) -> torch.Tensor:
    """Bool[batch, T]: the visual tokens that text does not attend to."""
    hidden = layout.visual.clone()
    if tokens == "all-but-last":
        owner = layout.spans.owner
        for image in range(layout.spans.image.shape[1]):
            of_image = owner == image
            last = of_image.shape[1] - 1 - of_image.int().flip(1).argmax(dim=1)
            rows = of_image.any(dim=1).nonzero()[:, 0]
            hidden[rows, last[rows]] = False
    return hidden


class _HiddenImages:
    """A mask transform for the prefill of a batch of prompts and for the steps that continue it."""

    def __init__(self, model: Any, layers: frozenset[int], layout: PromptLayout, hidden: torch.Tensor, acted: Acted) -> None:
        from lad_eval.attention.pruning.steps import Steps

        self._layers, self._acted, self._thread = layers, acted, threading.get_ident()
        self._visual, self._hidden = layout.visual, hidden
        self._steps = Steps(model, layout)
        self._positions: dict[int, torch.Tensor | None] = {}

    def begin(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the first layer: whether the pass reads the prompts or continues them."""
        if threading.get_ident() == self._thread and not self._steps.begin(args[0].shape[1], kwargs):
            self._positions.clear()

    def __call__(self, call: AttentionCall) -> Any:
        import torch

        from lad_eval.attention.masks import additive_mask

        if call.layer not in self._layers:
            return call.mask
        reads = not self._steps.continues
        if reads:
            self._positions[call.layer] = call.positions
        base = additive_mask(call)
        rows, queries, keys = call.query.shape[0], call.query.shape[2], call.key.shape[2]
        # Where prompts are continued by several prefixes at once, the rows of each prompt are adjacent.
        hidden = self._at(self._hidden, call.layer, keys).repeat_interleave(rows // len(self._hidden), dim=0).to(base.device)
        blocked = hidden[:, None, None, :]
        if reads:
            # Some layers are run for the last tokens only.
            visual = self._at(self._visual, call.layer, keys)[:, keys - queries :].to(base.device)
            blocked = blocked & ~visual[:, None, :, None]
        lowest = torch.finfo(base.dtype).min
        base = base.expand(rows, *base.shape[1:])
        if reads and bool(((base > lowest / 2) & blocked).any()):
            self._acted()
        return base.masked_fill(blocked, lowest)

    def _at(self, tokens: torch.Tensor, layer: int, keys: int) -> torch.Tensor:
        """Bool[batch, keys]: which of a layer's keys are among some tokens of the prompts, Bool[batch, T].

        Tokens that were dropped before the layer have no key; a sliding cache has lost the first ones.
        """
        import torch

        positions = self._positions.get(layer)
        if positions is not None:
            positions = positions.to(tokens.device)
            tokens = tokens.gather(1, positions.clamp(min=0)) & (positions >= 0)
        continued = self._steps.continued if self._steps.continues else 0
        tokens = torch.nn.functional.pad(tokens, (0, continued))
        spare = keys - tokens.shape[1]
        return torch.nn.functional.pad(tokens, (0, spare)) if spare > 0 else tokens[:, -spare:]
