"""Which methods each task is run with: those that were named, and of a named set those that task and model can take."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lad_eval.errors import DataError, EvidenceError, Interrupted, NotPreparedError, OutOfMemoryError, PictureError, UserError
from lad_eval.evidence.files import PARQUET
from lad_eval.methods import DEFAULT_METHODS, Condition, Method, resolve_methods, set_members
from lad_eval.models.base import VLM
from lad_eval.run.collect import check_options, in_batches, objection, plan_for, under
from lad_eval.run.folder.files import METRICS, condition_folder, folder_of, read_metrics
from lad_eval.run.folder.spec import RunSpec
from lad_eval.run.preflight import check_methods
from lad_eval.tasks.plan import one_request_per_sample
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskMethods:
    """The methods that a task is run with.

    Attributes:
        methods: by the names that tables show.
        optional: names of those that may be left out: members of a named set that are not named themselves.
        left_out: why methods are left out, by name.
    """

    methods: Mapping[str, Method]
    optional: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def without(self, reasons: Mapping[str, str]) -> TaskMethods:
        """The choice without some of the optional methods.

        Raises:
            UserError: no method is left.
        """
        methods = {name: method for name, method in self.methods.items() if name not in reasons}
        if not methods:
            raise UserError(f"No method is left: {'; '.join(f'{name}: {why}' for name, why in reasons.items())}")
        return replace(self, methods=methods, left_out={**self.left_out, **reasons})


def choose(tasks: Sequence[Task], names: Sequence[str] | None, limits: Mapping[str, int | None]) -> dict[str, TaskMethods]:
    """The methods of each task, as far as that can be said without the model.

    Args:
        tasks: to run.
        names: of methods and sets of methods; None: the default methods, of which each task gets those that can decide between
            its options, with a note.
        limits: number of test samples by task.

    Raises:
        UserError: a method that the user named cannot decide between the options of a task, or no method is left.
    """
    methods = resolve_methods(DEFAULT_METHODS if names is None else names)
    if names is None:
        return {name: TaskMethods(chosen) for name, chosen in _default_methods(tasks, methods).items()}
    optional = set_members(names)
    choices = {}
    for task in tasks:
        check_options(task, [method for name, method in methods.items() if name not in optional])
        wanted = {name: methods[name] for name in methods if name in optional}
        choices[task.name] = TaskMethods(methods, optional).without(dict(_unplannable(task, wanted, limits[task.name])))
    return choices


def fitting(
    model: VLM,
    task: Task,
    choice: TaskMethods,
    *,
    out: Path,
    limit: int | None,
    stored_only: bool = False,
    overwrite: bool = False,
) -> TaskMethods:
    """The choice without the optional methods that the model cannot be run for.

    A condition that is not stored yet is tried on one or two of the task's questions.

    Args:
        model: to run.
        task: that it is run on.
        choice: from `choose`.
        out: the folder of all runs.
        limit: number of test samples.
        stored_only: nothing is tried; what an existing run left out is left out.
        overwrite: answers that are stored do not count.

    Raises:
        UserError: no method is left, or a picture cannot be read.
    """
    wanted = {name: method for name, method in choice.methods.items() if name in choice.optional}
    if not wanted:
        return choice
    folder = folder_of(out, RunSpec.of(model.name, model.fingerprint, task, limit))
    if stored_only and folder.is_dir():
        metrics = read_metrics(folder) if (folder / METRICS).is_file() else {}
        return choice.without({name: why for name, why in metrics.get("left_out", {}).items() if name in wanted})
    reasons: dict[str, str] = {}
    faults: dict[Condition, str | None] = {}
    for name, method in wanted.items():
        try:
            check_methods(model, {name: method})
        except UserError as error:
            reasons[name] = str(error)
            continue
        condition = method.condition
        if condition.intervention is None or condition.learns:
            continue
        if condition not in faults:
            stored = not overwrite and any(condition_folder(folder, condition).glob(PARQUET))
            faults[condition] = None if stored else _fault_under(model, task, condition, limit)
        if (fault := faults[condition]) is not None:
            reasons[name] = fault
    return choice.without(reasons)


def say_left_out(choices: Mapping[str, TaskMethods]) -> None:
    """Warns of the methods that are left out: one line for each method and reason."""
    said: dict[tuple[str, str], list[str]] = {}
    for task, choice in choices.items():
        for name, why in choice.left_out.items():
            said.setdefault((name, why), []).append(task)
    for (name, why), tasks in said.items():
        logger.warning("%s is left out on %s: %s", name, ", ".join(tasks), why)


def notes_on(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Notes for tables on the methods that were left out, one line each."""
    return tuple(f"{name} is left out: {why}" for name, why in left_out.items())


def _default_methods(tasks: Sequence[Task], methods: Mapping[str, Method]) -> dict[str, Mapping[str, Method]]:
    """The default methods that can decide between the options of each task, with a note on the others."""
    chosen = {task.name: {name: method for name, method in methods.items() if not objection(task, method)} for task in tasks}
    left_out: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        if missing := tuple(name for name in methods if name not in chosen[task.name]):
            left_out.setdefault(missing, []).append(task.name)
    if left_out:
        parts = [f"{', '.join(missing)} on {', '.join(names)}" for missing, names in left_out.items()]
        logger.info(
            "Not run of the default methods, which read attention to images, where options are texts: %s.", "; ".join(parts)
        )
    return dict(chosen)


def _unplannable(task: Task, methods: Mapping[str, Method], limit: int | None) -> Iterator[tuple[str, str]]:
    """The methods for which a task has no requests, and why: its options, orders, prompt or calibration samples.

    Methods that need requests of the same kinds are planned once.
    """
    known: dict[tuple[Any, ...], str | None] = {}
    for name, method in methods.items():
        if (reason := objection(task, method)) is not None:
            yield name, reason
            continue
        probes = tuple(dict.fromkeys((*method.probes, *method.calibration_probes)))
        learns = method.calibrates or method.condition.learns
        kind = (method.condition.prompt_variants, method.orders, learns, method.condition.learns, probes)
        if kind[1:] == ("identity", False, False, ()):
            continue  # what any method needs; a fault of it is one of the task
        if kind not in known:
            known[kind] = _plan_fault(task, method, probes, limit)
        if (fault := known[kind]) is not None:
            yield name, fault


def _plan_fault(task: Task, method: Method, probes: Collection[Any], limit: int | None) -> str | None:
    variant = task.with_prompt(*method.condition.prompt_variants) if method.condition.prompt_variants else task
    try:
        planned = plan_for(variant, method.condition, [method], limit)
        for probe in probes:
            probe.plan(variant, planned)
    except (PictureError, NotPreparedError):
        raise
    except UserError as error:
        return str(error)
    return None


def _fault_under(model: VLM, task: Task, condition: Condition, limit: int | None) -> str | None:
    """Why the model cannot run a task's questions under an intervention; None if it ran those that were tried."""
    variant = task.with_prompt(*condition.prompt_variants) if condition.prompt_variants else task
    requests = one_request_per_sample(variant, limit=limit)
    hardest = max(requests, key=_difference)
    try:
        for request in requests[:1] if hardest is requests[0] else (requests[0], hardest):
            with under(model, condition.intervention):
                list(in_batches(model, [request]))
    except (DataError, EvidenceError, Interrupted, OutOfMemoryError):
        raise
    except UserError as error:
        return str(error)
    return None


def _difference(request: Request) -> float:
    """How much the sizes of a request's images differ, as some interventions need equally many tokens; 0 for unknown sizes."""
    sizes = [size for image in request.images if (size := getattr(image, "size", None)) is not None]
    if len(sizes) < 2:
        return 0.0
    ratios, areas = [width / height for width, height in sizes], [width * height for width, height in sizes]
    return float(max(ratios) / min(ratios) * max(areas) / min(areas)) - 1
