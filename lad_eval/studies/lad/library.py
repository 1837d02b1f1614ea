"""Table 2: what an answer costs in time and memory, measured on the model itself."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.methods import Method
from lad_eval.metrics import Predictions
from lad_eval.models.base import VLM
from lad_eval.report.sheet import Sheet
from lad_eval.run.decide import PlanIndex
from lad_eval.run.stored import StoredRun, load_run
from lad_eval.studies.lad.need import Family, Need
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task

QUERIES = 16
ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """Of one kind of answer with N images; medians of rounds that took turns.

    Attributes:
        seconds: per query, preparation included.
        ratio: of `seconds` to the plain answer's, the median of the rounds' ratios.
        peak_bytes: greatest memory of the GPU during the rounds; None where there is no GPU.
    """

    candidates: int
    kind: str
    seconds: float
    ratio: float
    peak_bytes: int | None

    def document(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def measure(model: VLM, task: Task, *, queries: int = QUERIES, rounds: int = ROUNDS) -> list[Cost]:
    """Cost of a plain answer (one greedy token) and of an answer with evidence, on samples that were not seen before.

    Each round takes new samples, so that no picture's features are remembered, and the two kinds take turns in going first.
    """
    samples = itertools.cycle(task.samples("test", queries * (rounds + 1)))
    order = task.orders[0]
    batches = [[task.request(s, order) for s in itertools.islice(samples, queries)] for _ in range(rounds + 1)]
    kinds: dict[str, Callable[[list[Request]], object]] = {
        "vanilla": lambda requests: model.generate(requests, max_new_tokens=1),
        "with evidence": model.evidence,
    }
    for answer in kinds.values():  # a first call pays for what later calls find ready
        answer(batches[0])
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    peaks: dict[str, list[int | None]] = {kind: [] for kind in kinds}
    for number, requests in enumerate(batches[1:]):
        for kind in sorted(kinds, reverse=bool(number % 2)):
            spent, peak = _timed(kinds[kind], requests)
            seconds[kind].append(spent / len(requests))
            peaks[kind].append(peak)
    return [
        Cost(
            task.candidates,
            kind,
            statistics.median(seconds[kind]),
            statistics.median(a / b for a, b in zip(seconds[kind], seconds["vanilla"], strict=True)),
            max((p for p in peaks[kind] if p is not None), default=None),
        )
        for kind in kinds
    ]


def _timed(answer: Callable[[list[Request]], object], requests: list[Request]) -> tuple[float, int | None]:
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    answer(requests)
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() if gpu else None


class Collection:
    """One run: its evidence, and the answers that were or can be decided from it."""

    def __init__(self, folder: Path) -> None:
        self.run: StoredRun = load_run(folder)

    @cached_property
    def evidence(self) -> Evidence:
        return read_evidence(self.run.path)

    @cached_property
    def asked(self) -> PlanIndex:
        return PlanIndex.read(self.run.path, str(self.run.metrics["run"]))

    @cached_property
    def evaluated(self) -> Evidence:
        """Rows of the evaluated requests, S samples x T orders."""
        return self.evidence.select_keys(self.asked.evaluated)

    @cached_property
    def calibration(self) -> Evidence:
        return self.evidence.select_keys(self.asked.calibration)

    def stored(self, method: str) -> Predictions:
        """The answers of a method by name, as the run decided them."""
        return self.run.predictions_of(method)

    def holds(self, method: str) -> bool:
        return method in self.run.methods

    @property
    def notes(self) -> tuple[str, ...]:
        """What the data's source had to say: rows left out, orders that were not permuted."""
        return tuple(self.run.metrics.get("notes", ()))

    def passes(self, method: str) -> str:
        """Forward passes per query of a method run alone, as tables show them; a dash where the model does not tell."""
        count = self.run.metrics["methods"][method]["forward_passes"]
        return "–" if count is None else f"{count:.3g}"

    def decided(self, method: Method, calibration: Evidence | None = None) -> Predictions:
        """The answers of a method with one pass a question, calibrated here or on the rows given."""
        if method.calibrates:
            method.calibrate(self.calibration if calibration is None else calibration)
        return Predictions.of(self.evaluated, method.predict(self.evaluated), self.asked.permutation_index)


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


@dataclass(frozen=True)
class Study:
    """A table or a figure of the paper, for one model.

    Attributes:
        name: "table4", "figure6".
        title: what it shows.
        needs: the collections of evidence that it reads, for a family of tasks.
        sheet: makes it from these.
    """

    name: str
    title: str
    needs: Callable[[Family], list[Need]]
    sheet: Callable[[Library, Family], Sheet]


def absent(family: Family, what: str) -> str:
    """A line for `Sheet.missing` where the family has no such task."""
    return f"{what}: the tasks {family.name}_* have none."
