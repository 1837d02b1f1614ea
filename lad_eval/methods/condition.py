"""Conditions: how a model was asked, beside the question itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lad_eval.attention.interventions import Intervention


@dataclass(frozen=True)
class Condition:
    """Wordings of the question, and a change of the model's attention. Evidence of two conditions never mixes.

    Attributes:
        wordings: names of `lad_eval.tasks.prompts.WORDINGS`.
        intervention: under which the model is asked.
    """

    wordings: tuple[str, ...] = ()
    intervention: Intervention | None = None

    @property
    def label(self) -> str:
        """As names have it, "instruction+sofa:sigma=0.3"; empty for the question and the model as they are."""
        return "+".join([*self.wordings, *([] if self.intervention is None else [self.intervention.label])])

    def document(self) -> dict[str, Any]:
        """JSON-serialisable facts."""
        return {"wordings": list(self.wordings), "intervention": None if self.intervention is None else self.intervention.facts}


PLAIN = Condition()
