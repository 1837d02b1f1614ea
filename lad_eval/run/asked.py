"""Which rows of evidence belong to what: the part of a plan that deciding needs, kept beside the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lad_eval.evidence import Evidence, Floats
from lad_eval.methods import Method
from lad_eval.run.folder import ResultsError
from lad_eval.tasks.plan import Plan


@dataclass(frozen=True)
class Asked:
    """Keys of the asked requests by their purpose; fields as in `tasks.plan.Plan`."""

    evaluated: tuple[str, ...]
    permutation_index: tuple[int, ...]
    cyclic: tuple[tuple[str, ...], ...]
    calibration: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan) -> Asked:
        return cls(plan.evaluated, plan.permutation_index, plan.cyclic, plan.calibration)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Asked:
        """What `document` wrote.

        Raises:
            ResultsError: it is something else.
        """
        try:
            cyclic = tuple(tuple(keys) for keys in document["cyclic"])
            return cls(tuple(document["evaluated"]), tuple(document["permutation_index"]), cyclic, tuple(document["calibration"]))
        except (KeyError, TypeError) as error:
            raise ResultsError("plan.json is damaged; the command that began the run writes it anew.") from error

    def document(self) -> dict[str, Any]:
        """The keys as plain JSON."""
        return asdict(self)

    def seen_by(self, method: Method) -> list[str]:
        """Keys of the test requests that a method's answers rest on, each once."""
        if method.views != "cyclic":
            return list(self.evaluated)
        if not self.cyclic:
            raise ResultsError(
                f"{method.name} needs every cyclic shift, and this run has not asked them; run again with it among --methods."
            )
        return list(dict.fromkeys(key for keys in self.cyclic for key in keys))

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

    def passes_of(self, method: Method, evidence: Evidence) -> Floats:
        """Decoder passes that each evaluated request would cost if the method were run alone, Float[evaluated]."""
        spent = dict(zip(evidence.key.tolist(), evidence.forward_passes.tolist(), strict=True))
        views = self.cyclic if method.views == "cyclic" else [(key,) for key in self.evaluated]
        return np.asarray([sum(spent[key] for key in keys) for keys in views], dtype=np.float64)
