"""Free-text replies to messages of any data set, generated with a VLMEvalKit class's own settings, under an intervention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lad_eval.attention.caches import cache_in
from lad_eval.attention.layout import PromptLayout
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.vlmeval.handlers import BaseHandler, PromptContext
from lad_eval.models.vlmeval.interception import GenerateCall
from lad_eval.models.vlmeval.passes import changed
from lad_eval.models.vlmeval.prompts import Message, images_of
from lad_eval.tasks.request import Permutation, Request
from lad_eval.tasks.sources.base import Picture

_SHOWN = 40
# A request needs at least one candidate; for free-text replies it is not used.
_CHOICES = ("1",)


def request_of(message: Message) -> Request:
    """A message as a request without candidates to choose from: its images in their order, and its texts.

    Raises:
        UserError: it holds something other than images and text.
    """
    if other := sorted({str(part["type"]) for part in message} - {"image", "text"}):
        raise UserError(f"Under an intervention only images and text are supported, and a question contains {other[0]}.")
    text = "\n".join(str(part["value"]) for part in message if part["type"] == "text")
    images = tuple(Picture(Path(path)) for path in images_of(message))
    named = repr(text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}")
    return Request(named, Permutation.identity(len(images)), images, text, _CHOICES, 0, "test")


class PassThroughHandler(BaseHandler):
    """Generates with the class's own settings, under the intervention.

    A prompt without images is run unchanged, since an intervention has nothing to change in it.

    Args:
        context: of the prompt.
    """

    def __init__(self, context: PromptContext) -> None:
        super().__init__(context.name)
        self._context = context
        self._layout: PromptLayout | None = None

    def _prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if cache_in(inputs) is not None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class reads the prompt before it calls `generate`.")
        self._layout = self._context.layout(ids.cpu(), inputs) if self._context.request.images else None
        return dict(inputs)

    @torch.no_grad()
    def _answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        for setting in ("num_beams", "num_return_sequences"):
            if (rows := _setting(call, setting)) and rows > 1:
                raise UnsupportedModelError(
                    f"{self.name} is not supported under an intervention: its class generates {rows} replies at once ({setting})."
                )
        with changed(call.module, self._layout, self._context.intervention):
            written = call.generate(**call.inputs, **call.settings)
        sequences = written if isinstance(written, torch.Tensor) else written.sequences
        ids = call.inputs.get("input_ids")
        tokens: list[int] = sequences[0, 0 if ids is None else ids.shape[1] :].tolist()
        return tokens, tokens


def _setting(call: GenerateCall, name: str) -> int | None:
    value: int | None = call.settings.get(name, getattr(call.settings.get("generation_config"), name, None))
    return value if value is not None else getattr(getattr(call.module, "generation_config", None), name, None)
