"""The stages of a run: check -> load -> plan -> collect -> decide -> write."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lad_eval.errors import Interrupted
from lad_eval.evidence.store import EvidenceStore
from lad_eval.methods import Method, resolve_methods, with_stored
from lad_eval.models.base import VLM, Usage
from lad_eval.models.prompts.date import check_date
from lad_eval.models.registry import check_model, load_model, weights_identity
from lad_eval.names import spell
from lad_eval.run.choose import TaskMethods, choose, fitting, notes_on, say_left_out
from lad_eval.run.condition_results import with_their_probes
from lad_eval.run.condition_runs import Collector, ConditionRun, condition_runs_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.folder import files
from lad_eval.run.folder.metadata import RunMetadata, about
from lad_eval.run.folder.replacing import replacing, set_aside, settle
from lad_eval.run.folder.rows import Row, reported_rows, rows_of
from lad_eval.run.folder.spec import RunSpec
from lad_eval.run.folder.task_data import note_data
from lad_eval.run.folder.usage import read_usage
from lad_eval.run.preflight import check_methods, check_prompts
from lad_eval.run.progress import Overall, duration
from lad_eval.run.results import conclude, stored_methods, stored_metrics
from lad_eval.run.settings import Overwrite, Settings
from lad_eval.run.unrequested import read_unrequested
from lad_eval.tasks.registry import load_spec, load_task, resolve
from lad_eval.tasks.task import Task
from lad_eval.terminal import counted

__all__ = ["Interrupted", "Overwrite", "Session", "Settings", "load", "run_task", "run_tasks"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Work of this call of the program beyond stored results: requests run by all processes, seconds of the main one."""

    requests: int
    seconds: float


def _ignore(task: str, folder: Path) -> None:
    """Default callback for finished runs: does nothing."""


def run_tasks(settings: Settings, finished: Callable[[str, Path], None] = _ignore) -> list[Row] | None:
    """Runs the tasks one after another on one model; several processes share each.

    Args:
        settings: what is run.
        finished: called in the main process with a task's name and run folder as soon as its figures are written.

    Returns:
        The rows of the methods; None in every process but the main one.

    Raises:
        UserError: an argument is wrong; unknown names and missing data are found before the model is loaded, an
            unsupported model, bad data and prompts that the model cannot take before any request is run.
        Interrupted: Ctrl-C; all answers so far are stored.
    """
    context = DistributedContext.from_environment()
    if not context.is_main_process:
        logging.getLogger("lad_eval").setLevel(logging.WARNING)
    with context.joined():
        with context.barrier():
            resolve_methods(settings.methods or ())  # unknown names fail before data is opened
            names = resolve(settings.tasks)
            for name in [*names, *filter(None, [settings.calibrate_on])]:
                load_spec(name)
            check_model(settings.model, adapter=settings.adapter, revision=settings.revision, base_url=settings.base_url)
            check_date(settings.date)
            if context.is_main_process:
                files.ensure_writable(settings.out)
        context.check_same(settings.shared)
        context.check_shared(settings.out)
        with context.barrier():
            tasks = [load_task(name, calibrate_on=settings.calibrate_on) for name in names]
            choices = choose(tasks, settings.methods, {task.name: settings.samples_of(task) for task in tasks})
        model = load(settings, context)
        with context.barrier():
            for task in tasks:
                choices[task.name] = _fitting(model, task, choices[task.name], settings)
            methods = {name: method for choice in choices.values() for name, method in choice.methods.items()}
            check_methods(model, methods)
            if context.is_main_process:
                say_left_out(choices)
            warn_of_attention(model, methods.values())
            for task in tasks[1:] if context.is_main_process and settings.overwrite != "never" else ():  # the first is next
                check_prompts(model, task, choices[task.name].methods, settings.samples_of(task))
        rows = []
        for task in tasks:
            choice = choices[task.name]
            rows += run_task(model, task, choice.methods, settings, context, finished=finished, left_out=choice.left_out)
    return rows if context.is_main_process else None


def _fitting(model: VLM, task: Task, choice: TaskMethods, settings: Settings) -> TaskMethods:
    return fitting(
        model,
        task,
        choice,
        out=settings.out,
        limit=settings.samples_of(task),
        stored_only=settings.overwrite == "never",
        overwrite=settings.overwrite == "always",
    )


def warn_of_attention(model: VLM, methods: Iterable[Method]) -> None:
    """Warns if no method runs the model under the attention that its adapter was trained under."""
    trained_under = model.fingerprint.get("adapter_attention")
    if trained_under is None:
        return
    for method in methods:
        facts = method.condition.document()["intervention"] or {}
        if trained_under in (facts, *facts.get("parts", ())):
            return
    logger.warning(
        "%s was trained under %s, and no method runs it under that; add one to --methods.", model.name, _spelled(trained_under)
    )


def adapter_notes(model: VLM) -> tuple[str, ...]:
    """Note for tables on a model whose adapter was trained under another attention; empty for other models."""
    trained_under = model.fingerprint.get("adapter_attention")
    return () if trained_under is None else (f"The adapter of {model.name} was trained under {_spelled(trained_under)}.",)


def _spelled(facts: Mapping[str, Any]) -> str:
    """An intervention's facts as a part of a method's name."""
    return spell(facts["name"], {key: value for key, value in facts.items() if key != "name"})


def _weights(settings: Settings) -> str | None:
    return weights_identity(
        settings.model, adapter=settings.adapter, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )


def load(settings: Settings, context: DistributedContext | None = None) -> VLM:
    """Loads the model with the options of the settings, in every process; one process of each node identifies its weights."""
    context = context or DistributedContext()
    weights = None if context.size == 1 else context.once_per_node(partial(_weights, settings))
    with context.barrier():
        return _load(settings, weights)


def _load(settings: Settings, weights: str | None) -> VLM:
    return load_model(
        settings.model,
        revision=settings.revision,
        adapter=settings.adapter,
        dtype=settings.dtype,
        device=settings.device,
        device_map=settings.device_map,
        attn_implementation=settings.attn,
        batch_size=settings.batch_size,
        image_preparation=settings.image_preparation,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
        date=settings.date,
        base_url=settings.base_url,
        concurrency=settings.concurrency,
        timeout=settings.timeout,
        extra_body=settings.extra_body,
        weights=weights,
    )


def run_task(
    model: VLM,
    task: Task,
    methods: Mapping[str, Method],
    settings: Settings,
    context: DistributedContext,
    overall: Overall | None = None,
    finished: Callable[[str, Path], None] = _ignore,
    left_out: Mapping[str, str] = MappingProxyType({}),
) -> list[Row]:
    """One task: missing requests are run, and every method decides; why methods are left out is stored with the figures.

    Returns:
        Rows of `methods`, in the main process only. The run also decides again with the other methods that it holds, those of
        other conditions as far as their stored answers can be read.

    Raises:
        UserError: as `run_tasks`.
    """
    check_methods(model, methods)
    limit = settings.samples_of(task)
    spec = RunSpec.of(model.name, model.fingerprint, task, limit)
    folder = files.folder_of(settings.out, spec)
    with context.barrier():
        only_shown = settings.overwrite == "never" and folder.is_dir()
        if only_shown and context.is_main_process:
            finished(task.name, folder)
            return _rows(stored_metrics(folder, methods), methods, settings)
    if only_shown:
        return []
    with context.barrier():
        stored = [] if settings.overwrite == "always" else stored_methods(folder)
        wanted = with_stored(methods, stored)
        every = condition_runs_of(task, wanted, folder, limit)
        requested = {method.condition for method in methods.values()}
        condition_runs = [condition_run for condition_run in every if condition_run.condition.base in requested]
        unrequested = [condition_run for condition_run in every if condition_run.condition.base not in requested]
        if context.is_main_process:
            check_prompts(model, task, methods, limit)
            _warn_of_unknown(folder, [name for name in stored if name not in wanted])
    collector = Collector(model, context, settings.out if settings.overwrite == "missing" else None, not settings.quiet, overall)
    with claimed(folder, spec, task, settings, context) as store:
        condition_runs = [collector.calibrated(condition_run) for condition_run in condition_runs]
        with context.barrier():
            for condition_run in condition_runs if context.is_main_process else ():
                collector.reuse(condition_run, store)
        requests, seconds = 0, 0.0
        for condition_run in condition_runs:
            with context.barrier(fail_fast=True):
                count, took = collector.collect(condition_run, store, condition_runs)
            requests, seconds = requests + count, seconds + took
        if not context.is_main_process:
            return []
        results = with_their_probes([collector.finish(condition_run, store) for condition_run in condition_runs])
        others = read_unrequested(folder, unrequested)
        session = Session(requests, seconds)
        study = _study_of(folder, settings)
        plans = [*(condition_run.plan for condition_run in condition_runs), *(other.plan for other in others)]
        calibration, notes, data = about(task, plans)
        notes = (*notes, *adapter_notes(model), *notes_on(left_out))
        environment = _environment(model, context, session, study, read_usage(folder))
        metadata = RunMetadata(environment, task.spec.reported, calibration, notes, data, left_out)
        metrics = conclude(folder, spec, results, others, wanted, settings.seed, metadata)
    _announce(task, condition_runs, session)
    finished(task.name, folder)
    return _rows(metrics, methods, settings)


def _warn_of_unknown(folder: Path, names: Sequence[str]) -> None:
    """Warns of stored methods that this process does not know: those of files that the command does not name."""
    if names:
        logger.warning(
            "The run in %s holds figures of %s, which are not known methods here; they are left out of its tables from now on. "
            "To keep them, add file.py:Class to --methods.",
            folder,
            ", ".join(names),
        )


@contextmanager
def claimed(folder: Path, spec: RunSpec, task: Task, settings: Settings, context: DistributedContext) -> Iterator[EvidenceStore]:
    """The run's folder, claimed for its spec, and this process's store in it.

    The store of the main process is open for as long as the block lasts, so that two runs cannot mix; the others open theirs when
    they write. A run that is started over replaces the old one once the block is done.
    """
    start_over = settings.overwrite == "always"

    def prepare() -> None:
        settle(folder)
        if start_over:
            set_aside(folder)

    store = EvidenceStore(
        folder,
        spec.fingerprint,
        task=task.fingerprint,
        rank=context.store_rank,
        prepare=prepare if context.is_main_process else None,
    )
    with ExitStack() as stack:
        with context.barrier():
            if context.is_main_process:
                stack.enter_context(files.removed_if_unused(folder))
                stack.enter_context(store)
                if start_over:
                    stack.enter_context(replacing(folder))
                files.claim(folder, spec)
                note_data(folder, task)
        yield store


def _study_of(folder: Path, settings: Settings) -> str | None:
    """The study that a run belongs to; None once a user has requested the run directly."""
    path = folder / files.METRICS
    if settings.study is None or not path.is_file():
        return settings.study
    stored = files.read_run_json(path).get("study")
    return None if stored is None else settings.study


def _environment(
    model: VLM, context: DistributedContext, session: Session, study: str | None, usage: Usage | None
) -> dict[str, Any]:
    """Facts in `metrics.json` about this call of the program; `answered` is the number of requests that it ran.

    `tokens` and `served_models` are those of all calls, where a server counts tokens and names the model that answered.
    """
    device = getattr(getattr(model, "model", None), "device", None)
    return {
        "device": None if device is None else str(device),
        "processes": context.size,
        "session": {"answered": session.requests, "seconds": session.seconds},
        "study": study,
        **({"tokens": {"prompt": usage.prompt, "reply": usage.reply}} if usage and (usage.prompt or usage.reply) else {}),
        **({"served_models": dict(sorted(usage.answers.items()))} if usage and usage.answers else {}),
    }


def _announce(task: Task, condition_runs: Sequence[ConditionRun], session: Session) -> None:
    """Logs how much was run and how much was stored, and what the methods would need if each were run alone."""
    total = sum(condition_run.total() for condition_run in condition_runs)
    each: Counter[str] = Counter()
    for condition_run in condition_runs:
        each.update(condition_run.alone())
    alone = list(each.values())
    run = f"{counted(session.requests, 'request')} run in {duration(session.seconds)}" if session.requests else "no request run"
    stored = f", {total - session.requests} stored before" if total > session.requests else ""
    more = f" (one by one they would need {sum(alone)})" if sum(alone) > total else ""
    logger.info("%s: %s%s, for %s%s.", task.name, run, stored, counted(len(alone), "method"), more)


def _rows(metrics: Mapping[str, Any], methods: Mapping[str, Method], settings: Settings) -> list[Row]:
    """Rows of these methods, and the task's published figures if the settings include them."""
    return [*rows_of(metrics, list(methods)), *(reported_rows(metrics) if settings.reported else [])]
