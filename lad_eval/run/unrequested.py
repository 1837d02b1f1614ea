"""Stored conditions of a run that a command does not name: decided again from their files, neither run nor written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.run.condition_results import ConditionResults, read_condition_results
from lad_eval.run.condition_runs import ConditionRun
from lad_eval.run.decide import Decision
from lad_eval.tasks.plan import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unrequested:
    """A condition that an earlier command ran.

    Attributes:
        results: in its folder.
        decisions: of its methods, by the names that tables show.
        plan: of its requests, with the notes on its intervention's learned state.
    """

    results: ConditionResults
    decisions: Mapping[str, Decision]
    plan: Plan


def read_unrequested(run: Path, condition_runs: Iterable[ConditionRun]) -> list[Unrequested]:
    """Reads the conditions' files; a condition that cannot be read is named in a warning and left out.

    Args:
        run: the run's folder.
        condition_runs: the conditions, each with the methods that the run holds figures of.
    """
    read = []
    for condition_run in condition_runs:
        if condition_run.condition.probe is not None:  # read with the condition that it belongs to
            continue
        methods = condition_run.methods
        try:
            results = read_condition_results(run, condition_run.condition, methods.values())
            decisions = {name: results.decide(method) for name, method in methods.items()}
        except UserError as error:
            logger.warning("%s Until then the run's tables are without %s.", error, ", ".join(methods))
            continue
        learned = () if results.intervention is None else results.intervention.learned_notes
        planned = replace(condition_run.plan, notes=(*condition_run.plan.notes, *learned))
        read.append(Unrequested(results, decisions, planned))
    return read
