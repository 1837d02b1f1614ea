"""The data behind the tables and figures: the run with all conditions, and the measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.trend import Grid, Trend
from lad_eval.methods import resolve_methods
from lad_eval.metrics import Predictions, Summary, summarise
from lad_eval.run.condition_results import condition_results_of
from lad_eval.run.folder.files import read_spec
from lad_eval.run.settings import Settings
from lad_eval.studies.pruning.conditions import (
    PruningCondition,
    conditions_of,
    intervention_of,
    is_choice,
    method_name,
    method_names,
)
from lad_eval.studies.pruning.measurements import PruningCost, calibration_requests, cost_facts, read_costs, read_layers
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import RunIndex, StudyRun


@dataclass(frozen=True)
class PrunerData:
    """What was measured on one pruner.

    Attributes:
        pruner: as the user named it.
        run: with every condition.
        keeps: shares of the visual tokens, greatest first.
        trends: by condition with a trend, the pruner with what it learned.
        layers: by layer before which tokens leave, the pruner with the trend of the attention below it; empty where not measured.
        seed: for every bootstrap.
    """

    pruner: DebiasedPruner
    run: StudyRun
    keeps: tuple[float, ...]
    trends: dict[PruningCondition, DebiasedPruner]
    layers: dict[int, DebiasedPruner]
    seed: int

    @property
    def middle(self) -> float:
        """Of the shares that leave a choice, the one that is nearest to a quarter."""
        return min(filter(is_choice, self.keeps), key=lambda keep: abs(keep - 0.25))

    def predictions(self, decision: str) -> dict[PruningCondition, Predictions]:
        """The predictions of a decision under every condition."""
        return {
            condition: self.run.predictions(method_name(self.pruner, condition, decision))
            for condition in conditions_of(self.keeps)
        }

    def summaries(self, decision: str) -> dict[PruningCondition, Summary]:
        """Their accuracy, RStd and consistency."""
        return {condition: summarise(table, seed=self.seed) for condition, table in self.predictions(decision).items()}


@dataclass(frozen=True)
class PruningData:
    """What was measured on a model.

    Attributes:
        pruners: in the user's order.
        costs: the unpruned model's first; empty where not measured.
    """

    pruners: tuple[PrunerData, ...]
    costs: tuple[PruningCost, ...]


def read_data(
    runs: RunIndex,
    requirement: Requirement,
    pruners: Sequence[DebiasedPruner],
    keeps: tuple[float, ...],
    settings: Settings,
    folder: Path,
) -> PruningData:
    """Reads the run and the measurements.

    Args:
        runs: include the required one.
        folder: of the study.

    Raises:
        UserError: a file is damaged, or the task's data is missing.
    """
    run, task = runs[requirement], requirement.load_task()
    fingerprint = read_spec(run.run.path)["fingerprint"]
    results = condition_results_of(run.run.path, resolve_methods(method_names(pruners, keeps)))
    calibrated = {condition.label: result.intervention for condition, result in results.items()}
    data = []
    for pruner in pruners:
        trends = {
            condition: cast("DebiasedPruner", calibrated[intervention_of(pruner, condition).label])
            for condition in conditions_of(keeps)
            if condition.ranking in ("mean", "exp")
        }
        requests = calibration_requests(task, settings.samples_of(task), pruner)
        layers = read_layers(fingerprint, pruner, requests, folder)
        data.append(PrunerData(pruner, run, keeps, trends, layers, runs.seed))
    return PruningData(tuple(data), tuple(read_costs(cost_facts(fingerprint, task.name), pruners, keeps, folder)))


def main_grid(trend: Trend) -> Grid:
    """The number of visual tokens of each image in most calibration prompts."""
    return max(trend.means, key=lambda grid: float(trend.means[grid][1].max()))
