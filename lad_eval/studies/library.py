"""The evidence of one model, read back from its runs, and what methods make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lad_eval.evidence import Evidence
from lad_eval.methods import Method
from lad_eval.metrics import Predictions
from lad_eval.run.asked import Asked
from lad_eval.run.compare import table_of
from lad_eval.run.stored import StoredRun, load_run
from lad_eval.store import read_evidence
from lad_eval.studies.cost import Cost
from lad_eval.studies.need import Need


class Collection:
    """One run: its evidence, and the answers that were or can be decided from it."""

    def __init__(self, folder: Path) -> None:
        self.run: StoredRun = load_run(folder)

    @cached_property
    def evidence(self) -> Evidence:
        return read_evidence(self.run.path)

    @cached_property
    def asked(self) -> Asked:
        return Asked.read(self.run.path, str(self.run.metrics["run"]))

    @cached_property
    def evaluated(self) -> Evidence:
        """Rows of the evaluated requests, S samples x T orders."""
        return self.evidence.select_keys(self.asked.evaluated)

    @cached_property
    def calibration(self) -> Evidence:
        return self.evidence.select_keys(self.asked.calibration)

    def stored(self, method: str) -> Predictions:
        """The answers of a method by name, as the run decided them."""
        return table_of(self.run, method)

    def holds(self, method: str) -> bool:
        return method in self.run.methods

    @property
    def notes(self) -> tuple[str, ...]:
        """What the data's source had to say: rows left out, orders that were not permuted."""
        return tuple(self.run.metrics.get("notes", ()))

    def passes(self, method: str) -> str:
        """Forward passes per query of a method run alone, as tables show them; a dash where the model does not tell."""
        told = self.run.metrics["methods"][method]["forward_passes"]
        return "–" if told is None else f"{told:.3g}"

    def decided(self, method: Method, calibration: Evidence | None = None) -> Predictions:
        """The answers of a method with one pass a question, calibrated here or on the rows given."""
        if method.calibrates:
            method.calibrate(self.calibration if calibration is None else calibration)
        position = method.predict(self.evaluated)
        rows = self.evaluated
        return Predictions(rows.sample_id, np.asarray(self.asked.permutation_index), rows.gold_position, position, rows.perm)


class Library:
    """Collections by need.

    Args:
        model: its name.
        folders: run folder by the need's label.
        costs: what answers cost on this machine; empty where that was not measured.
        seed: of every bootstrap and every draw.
    """

    def __init__(self, model: str, folders: Mapping[str, Path], *, costs: Sequence[Cost] = (), seed: int = 42) -> None:
        self.model = model
        self.costs = tuple(costs)
        self.seed = seed
        self._folders = dict(folders)
        self._opened: dict[str, Collection] = {}

    def has(self, need: Need) -> bool:
        return need.label in self._folders

    def __getitem__(self, need: Need) -> Collection:
        if need.label not in self._opened:
            self._opened[need.label] = Collection(self._folders[need.label])
        return self._opened[need.label]
