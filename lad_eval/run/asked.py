"""Which rows of evidence belong to what: the part of a plan that deciding needs, kept beside the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lad_eval.evidence import Evidence, Floats
from lad_eval.methods import Method, OverViews
from lad_eval.replies import UNKNOWN_PASSES, Replies
from lad_eval.run.folder import ResultsError
from lad_eval.tasks.plan import Plan


@dataclass(frozen=True)
class Asked:
    """Keys of the asked requests by their purpose; fields as in `tasks.plan.Plan`."""

    evaluated: tuple[str, ...]
    permutation_index: tuple[int, ...]
    cyclic: tuple[tuple[str, ...], ...]
    calibration: tuple[str, ...]
    random: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> Asked:
        return cls(plan.evaluated, plan.permutation_index, plan.cyclic, plan.calibration, plan.random)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Asked:
        """What `document` wrote.

        Raises:
            ResultsError: it is something else.
        """
        try:
            cyclic, drawn = (
                tuple(tuple(keys) for keys in several) for several in (document["cyclic"], document.get("random", ()))
            )
            evaluated, index = tuple(document["evaluated"]), tuple(document["permutation_index"])
            return cls(evaluated, index, cyclic, tuple(document["calibration"]), drawn)
        except (KeyError, TypeError) as error:
            raise ResultsError("plan.json is damaged; the command that began the run writes it anew.") from error

    def document(self) -> dict[str, Any]:
        """The keys as plain JSON."""
        return asdict(self)

    def seen_by(self, method: Method) -> list[str]:
        """Keys of the test requests that a method's answers rest on, each once."""
        if method.views == "identity":
            return list(self.evaluated)
        return list(dict.fromkeys(key for keys in self.views_of(method) for key in keys))

    def views_of(self, method: Method) -> tuple[tuple[str, ...], ...]:
        """For every evaluated key the keys of the displayed orders that a method answers it from, itself first.

        Raises:
            ResultsError: they were not asked.
        """
        if method.views == "identity":
            return tuple((key,) for key in self.evaluated)
        asked = self.cyclic if method.views == "cyclic" else self.random
        if not asked:
            what = "every cyclic shift" if method.views == "cyclic" else "random orders"
            raise ResultsError(f"{method.name} needs {what}, and this run has not asked them; run again with it among --methods.")
        most = method.most_orders if isinstance(method, OverViews) else None
        return tuple(keys[:most] for keys in asked)

    def calibration_keys(self, method: Method) -> list[str]:
        """Keys of the requests that a method learns from.

        Raises:
            ResultsError: they were not asked.
        """
        if not self.calibration:
            raise ResultsError(
                f"{method.name} needs calibration, and this run has asked none; run again with it among --methods."
            )
        return list(self.calibration)

    def passes_of(self, method: Method, answers: Evidence | Replies) -> Floats:
        """Decoder passes that each evaluated request would cost if the method were run alone, Float[evaluated]; NaN: unknown."""
        passes = np.where(answers.forward_passes == UNKNOWN_PASSES, np.nan, answers.forward_passes)
        spent = dict(zip(answers.key.tolist(), passes.tolist(), strict=True))
        return np.asarray([sum(spent[key] for key in keys) for keys in self.views_of(method)], dtype=np.float64)
