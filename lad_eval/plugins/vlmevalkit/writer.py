"""Models that write their replies, to the questions of any data set of VLMEvalKit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import UserError
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.vlmeval.model import InterceptedVLM
from lad_eval.models.vlmeval.prompts import Message
from lad_eval.models.vlmeval.writing import request_of

Writer = Callable[[Message], str]
REPLY_TOKENS = 512
"""For models of lad_eval; VLMEvalKit's classes have their own limits."""


def model_that_writes(loaded: HuggingFaceVLM, options: Mapping[str, Any]) -> HuggingFaceVLM:
    """A model of ours that is asked one row at a time, pictures in their own sizes.

    Squares of the LAD paper's protocol are for its tasks; an `image_preparation` among the options is kept.
    """
    options = {"image_preparation": "native", **{key: options[key] for key in ("image_preparation", "date") if key in options}}
    return HuggingFaceVLM(loaded.model, loaded.processor, name=loaded.name, batch_size=1, **options)


def writer_of_entry(model: InterceptedVLM, intervention: Intervention | None) -> Writer:
    """Generates as the entry's class does, under an intervention."""

    def write(message: Message) -> str:
        with model.under(intervention):
            return model.write(message)

    return write


def writer_of_ours(model: HuggingFaceVLM, intervention: Intervention | None) -> Writer:
    """Shows the pictures and then the text, and writes greedily, under an intervention."""

    def write(message: Message) -> str:
        request = request_of(message)
        if not request.images:
            raise UserError(f"{model.name}: the question {request.sample_id} comes without an image.")
        with model.under(intervention):
            return model.generate([request], max_new_tokens=REPLY_TOKENS)[0]

    return write
