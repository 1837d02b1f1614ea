"""From evidence to answers: calibrates a method, passes it what it needs, and returns the answers to evaluated requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.evidence.table import Evidence, Ints, Rows
from lad_eval.files.documents import write_json
from lad_eval.methods import Condition, Method
from lad_eval.methods.base import Answers, Results, shared_passes
from lad_eval.run.folder.files import AGAIN, PLAN, ResultsError, read_run_json
from lad_eval.tasks.plan import Plan
from lad_eval.tasks.probes import Probe

_RUN = "run"
_Key = Annotated[str, Field(min_length=1)]
_Keys = tuple[_Key, ...]
_Index = Annotated[int, Field(ge=0, le=2**31, strict=True)]


class _Document(BaseModel):
    """Schema of the file."""

    model_config = ConfigDict(extra="forbid")

    evaluated: Annotated[_Keys, Field(min_length=1)]
    permutation_index: tuple[_Index, ...]
    cyclic: tuple[Annotated[_Keys, Field(min_length=1)], ...]
    calibration: _Keys
    random: tuple[Annotated[_Keys, Field(min_length=1)], ...] = ()
    image_orders: tuple[Annotated[tuple[_Index, ...], Field(min_length=1)], ...] = ()
    repeats: tuple[Annotated[_Keys, Field(min_length=1)], ...] = ()
    clusters: _Keys = ()

    @model_validator(mode="after")
    def _fits(self) -> _Document:
        n = len(self.evaluated)
        orders = [keys for keys in (self.cyclic, self.random, self.repeats) if keys]
        same = all(len(keys) == n and len({len(of_one) for of_one in keys}) == 1 for keys in orders)
        if len(self.permutation_index) != n or not same or not {len(self.image_orders), len(self.clusters)} <= {0, n}:
            raise ValueError("its lists differ in length")
        return self


@dataclass(frozen=True)
class PlanIndex:
    """Keys of the planned requests by their purpose; fields as in `tasks.plan.Plan`."""

    evaluated: tuple[str, ...]
    permutation_index: tuple[int, ...]
    cyclic: tuple[tuple[str, ...], ...]
    calibration: tuple[str, ...]
    random: tuple[tuple[str, ...], ...] = ()
    image_orders: tuple[tuple[int, ...], ...] = ()
    repeats: tuple[tuple[str, ...], ...] = ()
    clusters: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> PlanIndex:
        return cls(**{name: getattr(plan, name) for name in cls.__dataclass_fields__})

    @classmethod
    def read(cls, folder: Path, run: str | None = None) -> PlanIndex:
        """Reads the file that `write` wrote into a folder.

        Args:
            folder: of the run, or of a condition in it.
            run: digest of the run's spec, which the file must name too; None: of any run.

        Raises:
            ResultsError: it is missing or damaged, or is of another run.
        """
        path = folder / PLAN
        document = read_run_json(path, "which answers belong to what")
        if run is not None and document.get(_RUN, run) != run:
            raise ResultsError(f"{path} is of another run. {AGAIN}")
        try:
            read = _Document.model_validate({key: value for key, value in document.items() if key != _RUN})
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise ResultsError(f"{path} is damaged at {where or 'its lists, whose lengths differ'}. {AGAIN}") from error
        return cls(**{name: getattr(read, name) for name in cls.__dataclass_fields__})

    def write(self, folder: Path, run: str) -> None:
        """Writes the keys as JSON, with the digest of the run's spec."""
        later = ("image_orders", "repeats", "clusters")
        document = {name: value for name, value in asdict(self).items() if value or name not in later}
        write_json(folder / PLAN, {_RUN: run, **document})

    def seen_by(self, method: Method) -> list[str]:
        """Keys of the test requests that a method's answers are computed from, each once."""
        if method.orders == "identity":
            return list(self.evaluated)
        return list(dict.fromkeys(key for keys in self.orders_of(method) for key in keys))

    def run_for(self, method: Method) -> list[str]:
        """Keys of the test requests that are run for a method: those of `seen_by`, and their repetitions."""
        return list(dict.fromkeys([*self.seen_by(method), *(key for keys in self.repeats for key in keys)]))

    def moves_images_only(self, rows: Rows) -> bool:
        """Whether the orders of the evaluated rows move images while every option keeps its letter."""
        return bool(self.image_orders) and bool((rows.perm == rows.perm[:1]).all())

    def orders_of(self, method: Method) -> tuple[tuple[str, ...], ...]:
        """For every evaluated key the keys of the displayed orders that its answer is computed from, itself first.

        Raises:
            ResultsError: the run does not have them.
        """
        if method.orders == "identity":
            return tuple((key,) for key in self.evaluated)
        several = self.cyclic if method.orders == "cyclic" else self.random
        if not several:
            what = "every cyclic shift" if method.orders == "cyclic" else "random orders"
            raise ResultsError(f"{method.name} needs {what}, which this run lacks; run again with it among --methods.")
        return tuple(keys[: method.most_orders] for keys in several)

    def calibration_keys(self, method: Method) -> list[str]:
        """Keys of the requests that a method learns from.

        Raises:
            ResultsError: the run does not have them.
        """
        if not self.calibration:
            raise ResultsError(f"{method.name} needs calibration, which this run lacks; run again with it among --methods.")
        return list(self.calibration)

    def used(self, condition: Condition, methods: Iterable[Method]) -> set[str]:
        """Keys of the requests under a condition that answers of methods are computed from.

        Args:
            condition: of the methods, or that with one of their probes.
            methods: of one condition.

        Raises:
            ResultsError: the run does not have them.
        """
        keys: set[str] = set()
        for method in methods:
            probe = condition.probe
            if probe is None or probe in method.probes:
                keys.update(self.run_for(method))
            if (method.calibrates and probe is None) or probe in method.calibration_probes:
                keys.update(self.calibration_keys(method))
        return keys

    def in_place_of(self, other: PlanIndex) -> dict[str, str]:
        """The key here by the other's key in the same place; the other's plan has the same questions.

        Raises:
            ResultsError: it has others.
        """
        pairs: dict[str, str] = {}
        for name in ("evaluated", "calibration", "cyclic", "random"):
            here, there = getattr(self, name), getattr(other, name)
            if not here or not there:  # one of the two needed no such requests
                continue
            if len(here) != len(there):
                raise ResultsError(f"The probes of this run are of other questions. {AGAIN}")
            if name in ("cyclic", "random"):
                here, there = ([key for keys in several for key in keys] for several in (here, there))
            pairs.update(zip(there, here, strict=True))
        return pairs


@dataclass(frozen=True)
class Decision:
    """A method's answers to the evaluated requests of a run, n of them.

    Attributes:
        answers: in the order of `rows`.
        calibration_passes: decoder passes of its calibration and of its intervention's; 0 where neither calibrates.
        rows: of the evaluated requests.
        repeated: Int[R, n], the answers in each repetition, `answers` the first; None without repetitions.
    """

    answers: Answers
    calibration_passes: int
    rows: Rows
    repeated: Ints | None = None


def probes_of(methods: Iterable[Method]) -> tuple[Probe, ...]:
    """The probes that any of the methods reads, each once."""
    return tuple(dict.fromkeys(probe for method in methods for probe in (*method.probes, *method.calibration_probes)))


Probed = Callable[[Evidence, Sequence[Probe]], Evidence]
"""Adds the probes of each row to rows of evidence."""


def without_probes(evidence: Evidence, probes: Sequence[Probe]) -> Evidence:
    """Adds none: a method that needs some refuses the rows."""
    return evidence


def calibrated(evidence: Evidence, plan_index: PlanIndex, method: Method, probed: Probed = without_probes) -> int:
    """Calibrates a method if it calibrates; returns the decoder passes of the calibration.

    Raises:
        EvidenceError: evidence is missing or not what the method needs.
        ResultsError: the run has no calibration.
    """
    if not method.calibrates:
        return 0
    learned_from = probed(evidence.select_keys(plan_index.calibration_keys(method)), method.calibration_probes)
    method.calibrate(learned_from)
    return int(learned_from.forward_passes.sum() + sum(rows.forward_passes.sum() for rows in learned_from.probes.values()))


def decide(
    results: Results, plan_index: PlanIndex, method: Method, calibration_passes: int = 0, probed: Probed = without_probes
) -> Decision:
    """A method's answers to the evaluated requests.

    Args:
        results: evidence or replies, whichever the method reads.
        plan_index: the purpose of each request.
        method: already calibrated, if it calibrates.
        calibration_passes: decoder passes that its calibration took.
        probed: adds the probes that the method reads.

    Raises:
        EvidenceError: evidence or replies are missing or not what the method needs.
        ResultsError: the run lacks what the method needs.
    """
    answers, shared = _answers(results, plan_index, method, probed)
    decision = Decision(answers, calibration_passes + shared, results.select_keys(plan_index.evaluated))
    if not plan_index.repeats or method.orders != "identity" or method.probes:
        return decision
    others = [replace(plan_index, evaluated=keys) for keys in list(zip(*plan_index.repeats, strict=True))[1:]]
    positions = [answers.position, *(_answers(results, other, method, probed)[0].position for other in others)]
    return replace(decision, repeated=np.stack(positions))


def _answers(results: Results, plan_index: PlanIndex, method: Method, probed: Probed) -> tuple[Answers, int]:
    """A method's answers, and the decoder passes of probes that they share."""
    seen = results.select_keys(plan_index.seen_by(method))
    shared = 0
    if isinstance(seen, Evidence):
        seen = probed(seen, method.probes)
        shared = shared_passes(seen)
    return method.decide(seen, index_of(seen, plan_index, method)), shared


def index_of(seen: Rows, plan_index: PlanIndex, method: Method) -> Ints:
    """Int[evaluated, V]: the rows of `seen` from which a method answers each evaluated request."""
    where = {key: row for row, key in enumerate(seen.key.tolist())}
    return np.asarray([[where[key] for key in keys] for keys in plan_index.orders_of(method)], dtype=np.int64)
