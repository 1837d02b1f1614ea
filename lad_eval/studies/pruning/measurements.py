"""What the study measures beyond its run: the trend of each layer's attention, and the cost of a pass.

Everything is written to the study's folder and read from there, so that tables can be remade without a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lad_eval.attention.interventions import Intervention
from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.errors import EvidenceError, UserError
from lad_eval.files.documents import read_json, write_json
from lad_eval.models.base import VLM, calibration_origin
from lad_eval.run.collect import calibrate_intervention, under
from lad_eval.run.folder import files
from lad_eval.studies.pruning.conditions import PruningCondition, intervention_of
from lad_eval.studies.pruning.flops import cache_entries, layer_loads, prefill_flops
from lad_eval.studies.timing import time_in_turns
from lad_eval.tasks.plan import plan
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task

LAYERS_SHOWN = 8
"""Layers whose attention is measured; each takes a pass over the calibration requests."""
QUERIES = 16
ROUNDS = 5
COSTS = "costs.json"


@dataclass(frozen=True)
class PruningCost:
    """Of a forward pass over one prompt.

    Attributes:
        pruner: its label; None for the unpruned model.
        keep: the share; None for the unpruned model.
        tokens: of the prompt, in the last layer that attends.
        seconds: of a request's share of its batch, decoder and vision tower, without loading the images; median of the rounds.
        time: of the seconds to those of the unpruned pass, median of the rounds' ratios.
        flops: of the decoder layers' arithmetic to the unpruned model's, see `prefill_flops`; None where it cannot be counted.
        cache: of the key-value cache to the unpruned model's.
    """

    pruner: str | None
    keep: float | None
    tokens: int
    seconds: float
    time: float
    flops: float | None
    cache: float


def measured_layers(lowest: int, depth: int, layer: int) -> list[int]:
    """Layers before which tokens may leave, `layer` among them; of many, some that are evenly spaced.

    Args:
        lowest: the first that has attention below it.
        depth: number of decoder layers.
        layer: before which the pruner drops tokens first.
    """
    every = range(lowest, depth)
    if len(every) <= LAYERS_SHOWN:
        return list(every)
    spaced = np.linspace(lowest, depth - 1, LAYERS_SHOWN).round().astype(int).tolist()
    return sorted({*spaced, layer})


def calibration_requests(task: Task, limit: int | None, pruner: DebiasedPruner) -> Sequence[Request]:
    """The requests that a pruner's trends are fitted to, as in a run with that limit."""
    samples = replace(pruner, trend="exp").calibration_samples_wanted(task.candidates)
    return plan(task, limit=limit, calibration=True, distinct=True, intervention_samples=samples).intervention_requests


def fit_layers(model: VLM, pruner: DebiasedPruner, requests: Sequence[Request], folder: Path) -> None:
    """Fits an exponential trend to the unchanged model's attention, layer by layer; trends that are already stored are kept.

    Args:
        pruner: its scores are what the trend is fitted to.
        requests: for calibration.
        folder: of the study.
    """
    from lad_eval.attention.hooks import attention_layers, decoder_layers

    network = cast("Any", model).model
    for layer in measured_layers(min(attention_layers(network)) + 1, len(decoder_layers(network)), pruner.layer):
        place = _layers_folder(folder, pruner) / f"layer-{layer}"
        place.mkdir(parents=True, exist_ok=True)
        fitted = replace(pruner, layer=layer, trend="exp")
        try:
            calibrate_intervention(model, fitted, requests, folder=place)
        except EvidenceError:  # fitted for another task or limit, which the study was made of before
            calibrated = calibrate_intervention(model, fitted, requests)
            cast("DebiasedPruner", calibrated).save_learned(place)


def read_layers(
    fingerprint: Mapping[str, Any], pruner: DebiasedPruner, requests: Sequence[Request], folder: Path
) -> dict[int, DebiasedPruner]:
    """By layer, the pruner with the trend that was fitted to the attention below it; empty where none was fitted.

    Args:
        fingerprint: of the model; a trend of another model, or of other requests, is passed over. Others as of `fit_layers`.

    Raises:
        UserError: a file is damaged.
    """
    origin = calibration_origin(fingerprint, requests)
    named = ((path.name.removeprefix("layer-"), path) for path in _layers_folder(folder, pruner).glob("layer-*"))
    folders = {int(layer): path for layer, path in named if layer.isdecimal()}
    trends = {layer: _read_layer(replace(pruner, layer=layer, trend="exp"), folders[layer], origin) for layer in sorted(folders)}
    return {layer: fitted for layer, fitted in trends.items() if fitted is not None}


def _read_layer(pruner: DebiasedPruner, folder: Path, origin: Mapping[str, Any]) -> DebiasedPruner | None:
    try:
        fitted = pruner.load_learned(folder, json.loads(json.dumps(origin)))
    except EvidenceError:  # of another task, limit or model
        return None
    return cast("DebiasedPruner", fitted) if fitted.is_ready else None


def _layers_folder(folder: Path, pruner: DebiasedPruner) -> Path:
    return folder / "learned" / files.slug(pruner.label)


def measure_costs(model: VLM, task: Task, pruners: Sequence[DebiasedPruner], keeps: Sequence[float], folder: Path) -> None:
    """Measures passes under every pruner and share, on the same requests, whose images were all encoded beforehand.

    Does nothing where the folder has these costs of this model and task already, measured on the same device.

    Raises:
        UserError: costs that are stored already are damaged.
    """
    from lad_eval.attention.hooks import decoder_layers

    facts = {**cost_facts(model.fingerprint, task.name), "device": _device(model)}
    wanted = [(pruner.label, keep) for pruner in pruners for keep in keeps]
    stored = _stored_costs(folder)
    if stored is not None and stored.facts == facts and stored.costs.keys() >= set(wanted):
        return
    ways: dict[tuple[str | None, float | None], Intervention | None] = {(None, None): None}
    for pruner in pruners:
        ways |= {(pruner.label, keep): intervention_of(pruner, PruningCondition(keep, "none")) for keep in keeps}
    samples = list(islice(task.samples("test", QUERIES), QUERIES))
    requests = [task.request(sample, task.orders[0]) for sample in samples]
    timings = time_in_turns({way: _seconds_under(model, change) for way, change in ways.items()}, [requests] * (ROUNDS + 1))
    network = cast("Any", model).model
    depth = len(decoder_layers(network))
    costs: list[PruningCost] = []
    unpruned_flops, unpruned_cache = None, 1
    for way, change in ways.items():
        with under(model, change):
            loads = layer_loads(network, lambda: model.evidence(requests[:1]))
        flops, cache = prefill_flops(loads, depth), cache_entries(loads)
        if change is None:
            unpruned_flops, unpruned_cache = flops, cache
        share = None if flops is None or unpruned_flops is None else flops / unpruned_flops
        seconds, time, _ = asdict(timings[way]).values()
        costs.append(PruningCost(*way, loads[-1].tokens, seconds, time, share, cache / unpruned_cache))
    write_json(folder / COSTS, {"facts": facts, "costs": [asdict(cost) for cost in costs]})


def read_costs(
    facts: Mapping[str, Any], pruners: Sequence[DebiasedPruner], keeps: Sequence[float], folder: Path
) -> list[PruningCost]:
    """The costs that `measure_costs` wrote, the unpruned model's first; none where some are missing.

    Args:
        facts: as `cost_facts` gives them.

    Raises:
        UserError: the file is damaged.
    """
    stored = _stored_costs(folder)
    if stored is None or {**stored.facts, "device": None} != {**facts, "device": None}:
        return []
    wanted: list[tuple[str | None, float | None]] = [(None, None), *((p.label, keep) for p in pruners for keep in keeps)]
    return [stored.costs[pair] for pair in wanted] if stored.costs.keys() >= set(wanted) else []


def cost_facts(fingerprint: Mapping[str, Any], task: str) -> dict[str, Any]:
    """What the costs were measured on: the model, the task, how many queries."""
    return cast("dict[str, Any]", json.loads(json.dumps({"model": dict(fingerprint), "task": task, "queries": QUERIES})))


@dataclass(frozen=True)
class _StoredCosts:
    facts: dict[str, Any]
    costs: dict[tuple[str | None, float | None], PruningCost]


def _stored_costs(folder: Path) -> _StoredCosts | None:
    """By (pruner, keep); None where no file is, or one of an earlier version, whose costs do not name a pruner."""
    path = folder / COSTS
    if not path.exists():
        return None
    cure = "Delete it and run without --stored, and the costs are measured again."
    document = read_json(path, what="costs of pruning", cure=cure)
    listed = document.get("costs")
    if isinstance(listed, list) and any(isinstance(cost, dict) and "pruner" not in cost for cost in listed):
        return None
    try:
        facts = TypeAdapter(dict[str, Any]).validate_python(document.get("facts"))
        costs = TypeAdapter(list[PruningCost]).validate_python(listed)
    except ValidationError as error:
        raise UserError(f"Cannot read {path} (costs of pruning): it does not hold what it should. {cure}") from error
    return _StoredCosts(facts, {(cost.pruner, cost.keep): cost for cost in costs})


def _seconds_under(model: VLM, change: Intervention | None) -> Callable[[Sequence[Request]], float]:
    def run(requests: Sequence[Request]) -> float:
        with under(model, change):
            return float(model.evidence(requests).seconds.sum())

    return run


def _device(model: VLM) -> str:
    return str(getattr(getattr(model, "model", None), "device", None))
