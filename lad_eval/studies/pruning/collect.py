"""One run with every condition, the bias of each layer's attention, and what a pass costs."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np

from lad_eval.attention.interventions import Intervention
from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.errors import EvidenceError
from lad_eval.files.documents import write_json
from lad_eval.models.base import VLM, ReadsPrompts
from lad_eval.models.registry import check_model
from lad_eval.run import folder as files
from lad_eval.run.collect import calibrate_intervention, resolve_methods, under
from lad_eval.run.condition_results import condition_results_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.execute import Settings, load, run_task
from lad_eval.run.spec import RunSpec
from lad_eval.run.stored import StoredRun, load_run
from lad_eval.studies.pruning.conditions import chooses, intervention_name, method_names
from lad_eval.tasks.plan import plan
from lad_eval.tasks.task import Task

LAYERS_SHOWN = 8
"""Layers whose attention is measured; each takes a pass over the calibration requests."""
QUERIES = 16
ROUNDS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """Of a forward pass over one prompt at one share.

    Attributes:
        keep: the share; None for the unpruned model.
        seconds: of a request's share of its batch, decoder and vision tower, without reading the pictures; median of the rounds.
        ratio: to the unpruned pass, median of the rounds.
    """

    keep: float | None
    seconds: float
    ratio: float


@dataclass(frozen=True)
class Shape:
    """The longest prompt, and the model, as far as the key-value cache depends on them.

    Attributes:
        tokens: of the longest prompt; 0 where the model does not tell.
        layers: those that attend.
    """

    tokens: int
    layers: int


@dataclass(frozen=True)
class Collected:
    """What the tables and figures are made from.

    Attributes:
        trends: by (keep, kind of trend), the pruner with what it learned.
        layers: by layer before which tokens leave, a pruner that learned the trend of the attention below it.
    """

    run: StoredRun
    trends: dict[tuple[float, str], DebiasedPruner]
    layers: dict[int, DebiasedPruner]
    costs: tuple[Cost, ...]
    shape: Shape


def collected(settings: Settings, task: Task, keeps: Sequence[float], folder: Path) -> Collected | None:
    """Asks what is missing, as `lad-eval run` would: resumes, shares among processes, keeps evidence.

    Args:
        settings: the model, the limit, and where runs are kept.
        task: what is asked.
        keeps: shares of the visual tokens.
        folder: keeps what is measured beside the run.

    Returns:
        None in a process that does not lead.

    Raises:
        UserError: as `run_task`; the model's attention is out of reach.
    """
    context = DistributedContext.from_environment()
    if not context.is_main_process:
        logging.getLogger("lad_eval").setLevel(logging.WARNING)
    with context.joined():
        with context.barrier():
            methods = resolve_methods(method_names(keeps))
            check_model(settings.model, adapter=settings.adapter, revision=settings.revision)
            if context.is_main_process:
                files.ensure_writable(settings.out)
                files.ensure_writable(folder)
        with context.barrier():
            model = load(settings)
        run_task(model, task, methods, settings, context)
        with context.barrier():
            if not context.is_main_process:
                return None
            limit = settings.samples_of(task)
            run = load_run(files.folder_of(settings.out, RunSpec.of(model.name, model.fingerprint, task, limit)))
            results = condition_results_of(run.path, methods)
            learned = {c.label: result.intervention for c, result in results.items()}
            trends = {
                (keep, kind): cast("DebiasedPruner", learned[intervention_name(keep, kind)])
                for keep in keeps
                for kind in ("mean", "exp")
                if chooses(keep)
            }
            depth = next(result.evidence.n_layers for result in results.values() if result.evidence is not None)
            layers = _bias_by_layer(model, task, limit, depth, folder)
            costs = _costs(model, task, keeps, folder)
            return Collected(run, trends, layers, costs, Shape(_longest(model, task, limit), depth))


def layers_shown(depth: int) -> list[int]:
    """Layers before which tokens may leave, that of FastV among them; of many, some that are evenly spaced."""
    every = range(1, depth)
    if len(every) <= LAYERS_SHOWN:
        return list(every)
    spaced = np.linspace(1, depth - 1, LAYERS_SHOWN).round().astype(int).tolist()
    return sorted({*spaced, FastV.layer})


def _bias_by_layer(model: VLM, task: Task, limit: int | None, depth: int, folder: Path) -> dict[int, DebiasedPruner]:
    """The exponential trend of the unchanged model's attention, layer by layer; what was learned once is read again."""
    requests = plan(task, limit=limit, calibration=True, distinct=True).calibration_requests()
    pruners = {}
    for layer in layers_shown(depth):
        pruner, place = FastV(layer=layer, trend="exp"), folder / "learned" / f"layer-{layer}"
        place.mkdir(parents=True, exist_ok=True)
        try:
            learned = calibrate_intervention(model, pruner, requests, folder=place)
        except EvidenceError:  # of another task or limit, which the study was made of before
            learned = calibrate_intervention(model, pruner, requests)
            cast("DebiasedPruner", learned).save_learned(place)
        pruners[layer] = cast("DebiasedPruner", learned)
    return pruners


def _longest(model: VLM, task: Task, limit: int | None) -> int:
    if not isinstance(model, ReadsPrompts):
        return 0
    requests = plan(task, limit=min(QUERIES, limit or QUERIES)).requests
    return model.check_prompts(requests).longest


def _costs(model: VLM, task: Task, keeps: Sequence[float], folder: Path) -> tuple[Cost, ...]:
    """Passes under each share, taking turns on the same requests, whose pictures were all seen before."""
    device = str(getattr(getattr(model, "model", None), "device", None))
    facts = {"model": dict(model.fingerprint), "device": device, "task": task.name, "keeps": list(keeps), "queries": QUERIES}
    path = folder / "costs.json"
    if path.is_file() and (stored := files.read_run_json(path)).get("facts") == json.loads(json.dumps(facts)):
        return tuple(Cost(**cost) for cost in stored["costs"])
    samples = list(islice(task.samples("test", QUERIES), QUERIES))
    requests = [task.request(sample, task.orders[0]) for sample in samples]
    variants: dict[float | None, Intervention | None] = {None: None}
    variants |= {keep: FastV(keep=keep) for keep in keeps}
    seconds: dict[float | None, list[float]] = {keep: [] for keep in variants}
    for number in range(ROUNDS + 1):
        turn = list(variants)
        for keep in turn if number % 2 else reversed(turn):
            with under(model, variants[keep]):
                spent = float(model.evidence(requests).seconds.mean())
            if number:  # a first round pays for what later rounds find ready
                seconds[keep].append(spent)
    costs = tuple(
        Cost(
            keep,
            statistics.median(values),
            statistics.median(a / b for a, b in zip(values, seconds[None], strict=True)),
        )
        for keep, values in seconds.items()
    )
    write_json(path, {"facts": facts, "costs": [asdict(cost) for cost in costs]})
    return costs
