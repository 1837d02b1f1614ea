"""The whole order of a run: check -> load -> plan -> collect -> decide -> write."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lad_eval.errors import UserError
from lad_eval.evidence import Evidence
from lad_eval.methods import Method
from lad_eval.models.base import VLM
from lad_eval.models.registry import check_model_name, load_model
from lad_eval.report.rows import Row, reported_rows, rows_of
from lad_eval.run import folder as files
from lad_eval.run.asked import Asked
from lad_eval.run.borrow import borrow, neighbours
from lad_eval.run.collect import in_batches
from lad_eval.run.decide import decide
from lad_eval.run.lineup import calibrates, line_up, views_of, with_stored
from lad_eval.run.progress import progress
from lad_eval.run.results import metrics_document, predictions_table, stored_methods, stored_metrics
from lad_eval.run.spec import RunSpec
from lad_eval.run.told import Told, calibration_of, notes_of
from lad_eval.run.world import World
from lad_eval.store import EvidenceStore
from lad_eval.tasks.plan import Plan, plan
from lad_eval.tasks.registry import load_spec, load_task, resolve
from lad_eval.tasks.task import Task

Overwrite = Literal["never", "missing", "always"]

logger = logging.getLogger(__name__)


class Interrupted(UserError):  # noqa: N818 - no fault, and named as Python names it
    """Ctrl-C, with what to do about it."""

    exit_code = 130


@dataclass(frozen=True)
class Settings:
    """A run as the user asked for it; the model's options are those of `load_model`.

    Attributes:
        tasks: names of tasks, groups, globs, or paths of YAML files.
        overwrite: "missing" resumes and computes only what is missing; "never" shows what is finished and changes nothing;
            "always" starts afresh.
        seed: of the bootstrap and of `random:` models.
        calibrate_on: another task whose calibration samples take the place of the tasks' own.
        reported: after a task's rows, those that its definition reports of the same model from elsewhere.
    """

    model: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    limit: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    dtype: str = "auto"
    device: str = "auto"
    attn: str | None = None
    revision: str | None = None
    image_preparation: Literal["protocol", "native"] = "protocol"
    trust_remote_code: bool = False
    out: Path = Path("results/runs")
    overwrite: Overwrite = "missing"
    seed: int = 42
    quiet: bool = False
    calibrate_on: str | None = None
    reported: bool = False


def run_tasks(settings: Settings) -> list[Row] | None:
    """Runs the tasks one after another on one model; several processes share each.

    Returns:
        The rows of the asked methods, and None in a process that does not lead.

    Raises:
        UserError: something that was given is wrong; unknown names are found before the model is loaded, an unsupported model
            before data is read, bad data before anything is asked.
        Interrupted: Ctrl-C; what was answered is kept.
    """
    world = World.from_environment()
    if not world.leads:
        logging.getLogger("lad_eval").setLevel(logging.WARNING)
    with world.joined():
        with world.together():
            methods = line_up(settings.methods)
            names = resolve(settings.tasks)
            for name in [*names, *filter(None, [settings.calibrate_on])]:
                load_spec(name)
            check_model_name(settings.model)
            if world.leads:
                files.ensure_writable(settings.out)
        with world.together():
            model = load(settings)
        with world.together():
            tasks = [load_task(name, calibrate_on=settings.calibrate_on) for name in names]
        rows = [row for task in tasks for row in run_task(model, task, methods, settings, world)]
    return rows if world.leads else None


def run_task(model: VLM, task: Task, methods: Mapping[str, Method], settings: Settings, world: World) -> list[Row]:
    """One task: what is missing is asked, and every method decides; rows of `methods`, none in a process that does not lead.

    Raises:
        UserError: as `run_tasks`.
    """
    spec = RunSpec.of(settings.model, model.fingerprint, task, settings.limit)
    folder = files.folder_of(settings.out, spec)
    with world.together():
        kept = settings.overwrite == "never" and folder.is_dir()
        if kept and world.leads:
            return _rows(stored_metrics(folder, methods), methods, settings)
    if kept:
        return []
    with world.together():
        wanted = with_stored(methods, [] if settings.overwrite == "always" else stored_methods(folder))
        asked = plan(task, limit=settings.limit, views=views_of(wanted.values()), calibration=calibrates(wanted.values()))
    with opened(folder, spec, task, settings, world, asked) as store:
        have = store.keys()
        with world.together(leave_at_once=True):
            seconds = ask(model, task, asked, have, store, settings, world)
        if not world.leads:
            return []
        store.finish()
        evidence = store.load()
        session = Session(len(evidence) - len(have), seconds)
        told = Told(
            _circumstances(model, world, session), task.spec.reported, calibration_of(task, asked), *notes_of(task, asked)
        )
        metrics = _conclude(folder, spec, Asked.of(asked), evidence, wanted, settings.seed, told)
    _announce(task, asked, wanted, session)
    return _rows(metrics, methods, settings)


def _rows(metrics: Mapping[str, Any], methods: Mapping[str, Method], settings: Settings) -> list[Row]:
    return [*rows_of(metrics, list(methods)), *(reported_rows(metrics) if settings.reported else [])]


def _conclude(
    folder: Path,
    spec: RunSpec,
    asked: Asked,
    evidence: Evidence,
    methods: Mapping[str, Method],
    seed: int,
    told: Told,
) -> dict[str, Any]:
    """Every method decides; `metrics.json` comes last, so that where it stands the rest stands too."""
    decisions = {name: decide(evidence, asked, method) for name, method in methods.items()}
    metrics = metrics_document(spec, asked, evidence, methods, decisions, seed=seed, told=told)
    table = predictions_table(asked, evidence, decisions)
    files.write_json(folder / files.PLAN, asked.document())
    files.write_atomically(folder / files.PREDICTIONS, lambda beside: table.to_parquet(beside, index=False))
    files.write_json(folder / files.METRICS, metrics)
    return metrics


def load(settings: Settings) -> VLM:
    """The model, with the options that the settings hold."""
    return load_model(
        settings.model,
        revision=settings.revision,
        dtype=settings.dtype,
        device=settings.device,
        attn_implementation=settings.attn,
        batch_size=settings.batch_size,
        image_preparation=settings.image_preparation,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
    )


def _circumstances(model: VLM, world: World, session: Session) -> dict[str, Any]:
    device = getattr(getattr(model, "model", None), "device", None)
    return {
        "device": None if device is None else str(device),
        "processes": world.size,
        "session": {"answered": session.answered, "seconds": session.seconds},
    }


def _announce(task: Task, asked: Plan, methods: Mapping[str, Method], session: Session) -> None:
    alone = {name: asked.passes([method.views], calibration=method.calibrates) for name, method in methods.items()}
    logger.info(
        "%s: %d requests serve %d methods, %d of them asked now; each method alone would ask %s, together %d.",
        task.name,
        len(asked),
        len(methods),
        session.answered,
        ", ".join(f"{name} {count}" for name, count in alone.items()),
        sum(alone.values()),
    )


@contextmanager
def opened(folder: Path, spec: RunSpec, task: Task, settings: Settings, world: World, asked: Plan) -> Iterator[EvidenceStore]:
    """The run's folder, claimed for its spec, and its store; the leader is the first in, so that two runs cannot mix.

    Unless it starts afresh, the leader fills the store with what the model's other runs hold already.
    """
    afresh = settings.overwrite == "always" and world.leads
    rank = None if world.size == 1 else world.rank
    store = EvidenceStore(folder, spec.fingerprint, task=task.fingerprint, rank=rank, afresh=afresh)
    with ExitStack() as stack:
        with world.together():
            if world.leads:
                stack.enter_context(store)
                if afresh:
                    files.clear(folder)
                files.claim(folder, spec)
                if settings.overwrite == "missing":
                    borrow(store, asked.requests, neighbours(settings.out, folder.parent.parent.name))
        with world.together():
            if not world.leads:
                stack.enter_context(store)
        yield store


@dataclass(frozen=True)
class Session:
    """What this call of the program did on top of what was stored: requests answered by all processes, seconds of the leader."""

    answered: int
    seconds: float


def ask(
    model: VLM, task: Task, asked: Plan, have: frozenset[str], store: EvidenceStore, settings: Settings, world: World
) -> float:
    """Asks this process's share of what is missing.

    Returns:
        Seconds that it took.

    Raises:
        Interrupted: Ctrl-C.
        UserError: an image cannot be read, memory or the disk does not suffice.
    """
    share = asked.shard(world.rank, world.size)
    missing = [request for request in share if request.key not in have]
    started, answered = time.monotonic(), 0
    shown = world.leads and not settings.quiet
    try:
        with progress(task.name, len(share), len(share) - len(missing), shown=shown) as advance:
            for batch in in_batches(model, missing):
                store.append(batch)
                answered += len(batch)
                advance(len(batch))
    except KeyboardInterrupt:
        done = len(share) - len(missing) + answered
        raise Interrupted(
            f"Interrupted: {task.name} has {done} of {len(share)} answers, all kept; the same command goes on from there."
        ) from None
    return time.monotonic() - started
