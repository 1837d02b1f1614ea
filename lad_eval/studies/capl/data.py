"""What the tables and figures are made from: the runs of both models, and the attention between images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lad_eval.metrics import Predictions, Summary, resampled_means, summarise
from lad_eval.metrics.bootstrap import Estimate, interval
from lad_eval.metrics.predictions import Bools
from lad_eval.run.folder.files import read_spec
from lad_eval.run.settings import Settings
from lad_eval.studies.capl.between import REQUESTS, Shares, between_facts, read_between
from lad_eval.studies.capl.conditions import CaplCondition, StudyConditions, Weights
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import RunIndex
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task


@dataclass(frozen=True)
class TaskData:
    """What was measured on one task.

    Attributes:
        task: its name.
        conditions: of the study.
        predictions: by condition, the unchanged model first; all of the same samples and orders.
        between: attention between images by model; a model whose attention was not measured is missing.
        seed: of every bootstrap.
    """

    task: str
    conditions: StudyConditions
    predictions: Mapping[CaplCondition, Predictions]
    between: Mapping[Weights, Shares]
    seed: int

    @property
    def candidates(self) -> int:
        """N."""
        return next(iter(self.predictions.values())).grid.n_candidates

    @property
    def summaries(self) -> dict[CaplCondition, Summary]:
        """Accuracy, RStd and consistency of every condition."""
        return {condition: summarise(table, seed=self.seed) for condition, table in self.predictions.items()}

    def share(self, rows: Bools) -> Estimate:
        """Share of the answers, Bool[S, T], in points, with its 95 % interval; whole samples are resampled."""
        per_sample = rows.mean(axis=1)[:, None]
        return Estimate(100 * float(rows.mean()), *interval(100 * resampled_means(per_sample, seed=self.seed)[:, 0]))

    def differing(self, first: CaplCondition, second: CaplCondition) -> Bools:
        """Bool[S, T]: where the two conditions answer differently."""
        differs: Bools = self.predictions[first].grid.predicted != self.predictions[second].grid.predicted
        return differs


def attention_requests(task: Task, limit: int | None) -> list[Request]:
    """One request of each of the first samples: those whose attention is averaged."""
    count = REQUESTS if limit is None else min(limit, REQUESTS)
    return [task.request(sample, task.orders[0]) for sample in islice(task.samples("test", count), count)]


def read_data(
    indexes: Mapping[Weights, RunIndex],
    requirements: Sequence[Requirement],
    conditions: StudyConditions,
    settings: Settings,
    folder: Path,
) -> list[TaskData]:
    """Reads the runs and the attention, task by task.

    Args:
        indexes: by model; they hold every required run.
        requirements: one per task.
        conditions: of the study.
        settings: of the study.
        folder: of the study.

    Raises:
        UserError: a file is damaged, or a task's data is missing.
    """
    made = []
    for requirement in requirements:
        task = requirement.load_task()
        requests = attention_requests(task, settings.samples_of(task))
        predictions = {row: indexes[row.weights][requirement].predictions(row.method) for row in conditions.rows}
        between: dict[Weights, Shares] = {}
        for weights, index in indexes.items():
            fingerprint = read_spec(index[requirement].run.path)["fingerprint"]
            shares = read_between(between_facts(fingerprint, task.name, requests, conditions.fused), weights, task.name, folder)
            if shares is not None:
                between[weights] = shares
        made.append(TaskData(requirement.label, conditions, predictions, between, indexes["base"].seed))
    return made


def positions_chosen(predictions: Predictions) -> list[float]:
    """Share of the answers at each of the N positions, in points; replies without an answer are at none."""
    grid = predictions.grid
    counts = [(grid.predicted == position).mean() for position in range(grid.n_candidates)]
    return [100 * float(np.asarray(count)) for count in counts]
