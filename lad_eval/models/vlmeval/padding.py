"""Padding that a class of VLMEvalKit puts around pictures, found by showing it black ones and white ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lad_eval.attention.layout import padding_unknown
from lad_eval.attention.spans import Spans
from lad_eval.data.pictures import picture_facts
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inputs.padding import padded_pixels, pooled
from lad_eval.models.vlmeval.handlers import BaseHandler
from lad_eval.models.vlmeval.interception import GenerateCall
from lad_eval.models.vlmeval.passes import ends_of
from lad_eval.models.vlmeval.prompts import Message, images_of

Sizes = tuple[tuple[int, int], ...]
Generate = Callable[[BaseHandler, Message], object]
"""Lets the class answer a message, with a handler in the place of `generate`."""


class PixelsHandler(BaseHandler):
    """Records the pixels that a class passes to its model. The model is not run: the reply ends at once.

    Attributes:
        pixels: on the CPU; None where there were none.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        super().__init__(name)
        self.pixels: torch.Tensor | None = None
        self._tokenizer = tokenizer

    def _prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        pixels = inputs.get("pixel_values")
        self.pixels = pixels.cpu() if isinstance(pixels, torch.Tensor) else None
        return dict(inputs)

    def _answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        end = [ends_of(call, self._tokenizer)[0]]
        return end, end


class PaddingOfClass:
    """Where a class pads pictures, computed once for each combination of picture sizes.

    Args:
        name: of the model, for error texts.
        tokenizer: of the class.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._padded: dict[Sizes, torch.Tensor | None] = {}

    def of(self, message: Message, generate: Generate) -> Callable[[Spans], torch.Tensor]:
        """`find_padding` for the prompt that the class makes of a message.

        Args:
            message: with pictures of these sizes.
            generate: runs the class on a message.

        Raises:
            UnsupportedModelError: there is padding, and an image does not become one square of pixels.
        """
        sizes = tuple(picture_facts(Path(path)).header.size for path in images_of(message))
        if not sizes:
            return padding_unknown
        if sizes not in self._padded:
            self._padded[sizes] = self._compared(message, sizes, generate)
        return partial(_shares, self._padded[sizes], self._name)

    def _compared(self, message: Message, sizes: Sizes, generate: Generate) -> torch.Tensor | None:
        from PIL import Image

        shown = []
        with TemporaryDirectory() as folder:
            for colour in ("black", "white"):
                paths = [Path(folder) / f"{colour}-{number}.png" for number in range(len(sizes))]
                for path, size in zip(paths, sizes, strict=True):
                    Image.new("RGB", size, colour).save(path)
                handler = PixelsHandler(self._name, self._tokenizer)
                generate(handler, _with_images(message, paths))
                shown.append(handler.pixels)
        black, white = shown
        if black is None or white is None or black.shape != white.shape:
            raise UnsupportedModelError(
                f"{self._name} does not show the pixels that its model is given, so it is unknown which visual tokens show "
                "padding of a picture; leave trend out."
            )
        return padded_pixels(black, white, len(sizes), self._name)


def _with_images(message: Message, paths: list[Path]) -> Message:
    places = iter(paths)
    return [{**part, "value": str(next(places))} if part.get("type") == "image" else part for part in message]


def _shares(padded: torch.Tensor | None, name: str, spans: Spans) -> torch.Tensor:
    return torch.stack([pooled(padded, owner, name) for owner in spans.owner])
