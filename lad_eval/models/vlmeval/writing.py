"""Free replies to messages of any data set, as a class of VLMEvalKit asks for them, under an intervention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lad_eval.attention.layout import PromptLayout
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.vlmeval.answering import ShownPrompt, Standing
from lad_eval.models.vlmeval.interception import Call
from lad_eval.models.vlmeval.passes import changed
from lad_eval.models.vlmeval.prompts import Message, images_of
from lad_eval.tasks.request import Permutation, Request
from lad_eval.tasks.sources.base import Picture

_SHOWN = 40
# Requests have at least one candidate; of those that are answered freely it is not asked for.
_CHOICES = ("1",)


def request_of(message: Message) -> Request:
    """A message as a request that nobody has to choose in: its images in their order, and its texts.

    Raises:
        UserError: it shows something else than pictures.
    """
    if other := sorted({str(part["type"]) for part in message} - {"image", "text"}):
        raise UserError(f"Under an intervention only pictures and text can be read, and a question comes with {other[0]}.")
    text = "\n".join(str(part["value"]) for part in message if part["type"] == "text")
    images = tuple(Picture(Path(path)) for path in images_of(message))
    named = repr(text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}")
    return Request(named, Permutation.identity(len(images)), images, text, _CHOICES, 0, "test")


class Replying(Standing):
    """Lets the model generate as its class asks, under the intervention.

    A prompt without images is read as it is, since an intervention has nothing to change in it.

    Args:
        shown: the prompt.
    """

    def __init__(self, shown: ShownPrompt) -> None:
        super().__init__(shown.name)
        self._shown = shown
        self._layout: PromptLayout | None = None

    def _prepare(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if inputs.get("past_key_values") is not None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class reads the prompt before it calls `generate`.")
        self._layout = self._shown.layout(ids.cpu(), inputs) if self._shown.request.images else None
        return dict(inputs)

    @torch.no_grad()
    def _answer(self, call: Call) -> tuple[list[int], list[int]]:
        for setting in ("num_beams", "num_return_sequences"):
            if (rows := _setting(call, setting)) and rows > 1:
                raise UnsupportedModelError(
                    f"{self.name} is not supported under an intervention: its class asks for {rows} replies at once ({setting})."
                )
        with changed(call.module, self._layout, self._shown.intervention):
            written = call.generate(**call.inputs, **call.settings)
        sequences = written if isinstance(written, torch.Tensor) else written.sequences
        ids = call.inputs.get("input_ids")
        tokens: list[int] = sequences[0, 0 if ids is None else ids.shape[1] :].tolist()
        return tokens, tokens


def _setting(call: Call, name: str) -> int | None:
    value: int | None = call.settings.get(name, getattr(call.settings.get("generation_config"), name, None))
    return value if value is not None else getattr(getattr(call.module, "generation_config", None), name, None)
