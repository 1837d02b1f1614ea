"""A model's prompts without its weights: its configuration, processor and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from lad_eval.models.base import PromptReport
from lad_eval.models.conversation import Conversation
from lad_eval.models.date import DEFAULT_DATE
from lad_eval.models.preparation import Preparation, check_image_preparation
from lad_eval.models.prompt_check import PromptChecker

if TYPE_CHECKING:
    from lad_eval.tasks.request import Request


class PromptReader:
    """Implements `lad_eval.models.base.ReadsPrompts`.

    Args:
        config: of an image-text-to-text model of transformers.
        processor: of the model, with a chat template.
        name: for error texts.
        image_preparation: "protocol" or "native".
        date: YYYY-MM-DD, what a chat template prints that asks for today's date.

    Raises:
        UnsupportedModelError: there is no chat template, or it has no place for images.
        UserError: a wrong image preparation or date.
    """

    def __init__(
        self,
        config: Any,
        processor: Any,
        *,
        name: str,
        image_preparation: Literal["protocol", "native"] | str = "protocol",
        date: str = DEFAULT_DATE,
    ) -> None:
        self.name = name
        conversation = Conversation(processor, name, date)
        prepare = Preparation(config, processor, conversation, check_image_preparation(image_preparation))
        self._prompts = PromptChecker(conversation, prepare, config, processor, name)

    def check_prompts(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 1) -> PromptReport:
        """Control tokens in samples' texts, and prompts longer than the context."""
        return self._prompts.report(requests, reply_tokens=reply_tokens, exact=exact)
