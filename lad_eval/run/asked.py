"""Which rows of evidence belong to what: the part of a plan that deciding needs, kept beside the evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.evidence import Evidence, Floats
from lad_eval.methods import Method, OverViews
from lad_eval.replies import UNKNOWN_PASSES, Replies
from lad_eval.run.folder import AGAIN, PLAN, ResultsError, read_json, write_json
from lad_eval.tasks.plan import Plan

_RUN = "run"
_Key = Annotated[str, Field(min_length=1)]
_Keys = tuple[_Key, ...]
_Index = Annotated[int, Field(ge=0, le=2**31, strict=True)]


class _Document(BaseModel):
    """What the file may hold."""

    model_config = ConfigDict(extra="forbid")

    evaluated: Annotated[_Keys, Field(min_length=1)]
    permutation_index: tuple[_Index, ...]
    cyclic: tuple[Annotated[_Keys, Field(min_length=1)], ...]
    calibration: _Keys
    random: tuple[Annotated[_Keys, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> _Document:
        n = len(self.evaluated)
        views = [keys for keys in (self.cyclic, self.random) if keys]
        same = all(len(keys) == n and len({len(of_one) for of_one in keys}) == 1 for keys in views)
        if len(self.permutation_index) != n or not same:
            raise ValueError("its lists do not fit each other")
        return self


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
    def read(cls, folder: Path, run: str | None = None) -> Asked:
        """What `write` put into a folder.

        Args:
            folder: of the run, or of a condition in it.
            run: digest of the run's spec, which the file must name too; None: of whatever run it is.

        Raises:
            ResultsError: it is missing or damaged, or is of another run.
        """
        path = folder / PLAN
        document = read_json(path, "which answers belong to what")
        if run is not None and document.get(_RUN, run) != run:
            raise ResultsError(f"{path} is of another run. {AGAIN}")
        try:
            read = _Document.model_validate({key: value for key, value in document.items() if key != _RUN})
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise ResultsError(f"{path} is damaged at {where or 'its lists, whose lengths differ'}. {AGAIN}") from error
        return cls(read.evaluated, read.permutation_index, read.cyclic, read.calibration, read.random)

    def write(self, folder: Path, run: str) -> None:
        """Writes the keys as JSON, with the digest of the run's spec."""
        write_json(folder / PLAN, {_RUN: run, **asdict(self)})

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
