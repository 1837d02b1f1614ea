"""`--model lad_eval` of lm-eval: any of our models, answering with one of our methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from lm_eval.api.model import LM

from lad_eval.errors import UserError
from lad_eval.plugins.answering import Answering, check_question
from lad_eval.plugins.documents import Document, one_line, request_of
from lad_eval.plugins.lm_eval.task import IMAGE


class LmEvalModel(LM):  # type: ignore[misc]
    """A vision-language model under one method; replies are identifiers.

    Args:
        device: lm-eval's, whose default is "cuda:0" even on machines without a GPU.
        max_batch_size: of lm-eval; not used.
        arguments: as `lad_eval.plugins.answering.Answering` takes them.

    Raises:
        UserError: an argument is missing, unknown or wrong, or the model cannot be loaded.
    """

    MULTIMODAL = True

    def __init__(self, device: str | None = None, max_batch_size: Any = None, **arguments: Any) -> None:
        super().__init__()
        settings = {key: value for key, value in arguments.items() if value is not None}
        settings["device"] = "auto" if device in (None, "cuda:0") else device
        with one_line():
            self._answering = Answering.from_arguments(settings)
        self._device = self._answering.device

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """One reply per request; lm-eval's generation arguments have no effect, since methods read log-probabilities."""
        with one_line():
            return self._answering.replies([self._document(instance) for instance in requests])

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> NoReturn:
        """Refused: our tasks are of the type `generate_until`."""
        self._refuse("log-likelihoods of settings texts")

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> NoReturn:
        """Refused: our tasks are of the type `generate_until`."""
        self._refuse("log-likelihoods of whole texts")

    def _document(self, instance: Any) -> Document:
        """The document of a request: a displayed order of a sample."""
        if "orders" not in instance.doc:
            raise UserError(
                f"{instance.task_name} is not a task of lad_eval, which `--model lad_eval` needs; "
                "`lad-eval lm-eval tasks` writes them."
            )
        document: Document = instance.doc["orders"][instance.idx]
        check_question(request_of(document), str(instance.args[0]).replace(IMAGE, ""))
        return document

    def _refuse(self, kind: str) -> NoReturn:
        with one_line():
            raise UserError(f"`--model lad_eval` answers the tasks that `lad-eval lm-eval tasks` writes, not {kind}.")
        raise AssertionError
