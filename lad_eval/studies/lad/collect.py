"""Collecting what the studies need: one model, many tasks, each as an ordinary run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.errors import DataError
from lad_eval.models.base import VLM
from lad_eval.models.registry import check_model
from lad_eval.run import folder as files
from lad_eval.run.collect import resolve_methods
from lad_eval.run.condition_runs import condition_runs_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.execute import Settings, load, run_task
from lad_eval.run.progress import Overall, Portion
from lad_eval.run.spec import RunSpec
from lad_eval.studies.lad.library import QUERIES, Cost, measure
from lad_eval.studies.lad.need import Family, Need
from lad_eval.studies.lad.tables import SIZES
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """Run folders by label; by label why there is none; what answers cost."""

    folders: dict[str, Path]
    absent: dict[str, str]
    costs: list[Cost]


def collected(needs: Sequence[Need], settings: Settings, family: Family, *, costs: bool, strict: bool) -> Collected | None:
    """Runs every need as `lad-eval run` would: resumes, shares among processes, keeps evidence.

    Args:
        needs: merged.
        settings: the model and where runs are kept.
        family: whose tasks the cost is measured on.
        costs: whether to measure cost.
        strict: missing data is an error, not a remark.

    Returns:
        None in a process that does not lead.
    """
    world = DistributedContext.from_environment()
    if not world.is_main_process:
        logging.getLogger("lad_eval").setLevel(logging.WARNING)
    with world.joined():
        with world.barrier():
            check_model(settings.model, adapter=settings.adapter, revision=settings.revision)
            if world.is_main_process:
                files.ensure_writable(settings.out)
        with world.barrier():
            opened, absent = _opened(needs, strict=strict)
        with world.barrier():
            model = load(settings)
        spent = _costs(model, family, world, settings.limit) if costs else []
        folders = {}
        overall = Overall(_portions(opened, settings, world), "paper", shown=world.is_main_process and not settings.quiet)
        for need, task in opened:
            run_task(model, task, resolve_methods(need.methods), settings, world, overall)
            limit = settings.samples_of(task)
            folders[need.label] = files.folder_of(settings.out, RunSpec.of(model.name, model.fingerprint, task, limit))
    return Collected(folders, absent, spent) if world.is_main_process else None


def _opened(needs: Sequence[Need], *, strict: bool) -> tuple[list[tuple[Need, Task]], dict[str, str]]:
    opened: list[tuple[Need, Task]] = []
    absent: dict[str, str] = {}
    for need in needs:
        task = _task_or_fault(need)
        if isinstance(task, Task):
            opened.append((need, task))
        elif strict and not need.optional:
            raise task
        else:
            absent[need.label] = str(task)
            logger.warning("%s is left out: %s", need.label, task)
    return opened, absent


def _task_or_fault(need: Need) -> Task | DataError:
    try:
        return need.open()
    except DataError as error:
        return error


def _portions(opened: Sequence[tuple[Need, Task]], settings: Settings, world: DistributedContext) -> Iterator[Portion]:
    """All that the needs ask, for the progress of the whole; planned once more when each is run."""
    for need, task in opened:
        for condition_run in condition_runs_of(task, resolve_methods(need.methods), settings.out, settings.samples_of(task)):
            yield from condition_run.portions(world.size)


def _costs(model: VLM, family: Family, world: DistributedContext, limit: int | float | None) -> list[Cost]:
    """Before anything else is asked: what was seen before would be cheaper."""
    if not world.is_main_process:
        return []
    try:
        tasks = [load_task(family.tasks["random", n]) for n in SIZES if family.has("random", n)]
    except DataError as error:
        logger.warning("Time and memory are not measured: %s", error)
        return []
    queries = min(QUERIES, int(limit or QUERIES))
    return [cost for task in tasks for cost in measure(model, task, queries=queries)]
