"""`--model lad_eval` of lmms-eval: any model of ours, answering with a method of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string

from lad_eval.errors import UserError
from lad_eval.names import OUTSIDE_BRACKETS
from lad_eval.plugins.answering import Answering, check_question
from lad_eval.plugins.documents import Document, one_line, request_of


class LadEval(lmms):  # type: ignore[misc]
    """A vision-language model under one method; replies are identifiers.

    Args:
        arguments: as `lad_eval.plugins.answering.Answering` takes them.

    Raises:
        UserError: an argument is missing, unknown or wrong, or the model cannot be loaded.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._answering = Answering.from_arguments(arguments)
        self.batch_size = self._answering.batch_size
        self.device = self._answering.device

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> LadEval:
        """The model of lmms-eval's `--model_args`; these win over its own `--batch_size` and `--device`."""
        settings = {key: value for key, value in (additional_config or {}).items() if value is not None}
        with one_line():
            try:
                # A method's parameters are its own: lmms-eval would end the argument at the first comma between brackets.
                arguments = re.split("," + OUTSIDE_BRACKETS, arg_string)
                settings |= simple_parse_args_string(",".join(argument for argument in arguments if "(" not in argument))
                settings |= dict(argument.strip().split("=", 1) for argument in arguments if "(" in argument)
            except ValueError:
                raise UserError(f"--model_args must be key=value, separated by commas, not {arg_string!r}.") from None
            return cls(**settings)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One reply per request; lmms-eval's generation arguments have no effect, since methods read log-probabilities."""
        with one_line():
            return self._answering.replies([self._document(instance) for instance in requests])

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        """Refused: our questions have one round."""
        self._refuse_kind("several rounds")

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        """Refused: our tasks ask for replies."""
        self._refuse_kind("log-likelihoods of given texts")

    def clean(self) -> None:
        """Gives the memory back, and the evidence's folder to other processes."""
        self._answering.release()
        super().clean()

    def _document(self, instance: Any) -> Document:
        """Our document behind an instance."""
        context, _, _, doc_id, task, split = instance.args
        document: Document = self.task_dict[task][split][doc_id]
        if not {"task", "key"} <= document.keys():
            raise UserError(
                f"{task} is not a task of lad_eval, which `--model lad_eval` needs; `lad-eval lmms-eval tasks` writes them."
            )
        check_question(request_of(document), context)
        return document

    def _refuse_kind(self, kind: str) -> NoReturn:
        with one_line():
            raise UserError(f"`--model lad_eval` answers the tasks that `lad-eval lmms-eval tasks` writes, not {kind}.")
        raise AssertionError
