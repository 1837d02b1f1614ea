"""Keys of the model and of its untrained control, and what is measured on both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from lad_eval.attention.keys import STAGES, Stage
from lad_eval.errors import UserError
from lad_eval.models.base import RunsPrompts
from lad_eval.models.registry import check_model
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.execute import Settings, load
from lad_eval.run.folder import files
from lad_eval.studies.key_space.capture import Captured, capture, choose_layers
from lad_eval.studies.key_space.measure import Gap, Link, Map, measure_gap, measure_link, measure_map
from lad_eval.tasks.registry import load_task, resolve
from lad_eval.tasks.request import Request

FEWEST_SAMPLES = 4
"""Halves of the samples are compared, and pairs of one sample left out."""
MODEL, CONTROL = "model", "random weights"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """What was measured on one model.

    Attributes:
        weights: MODEL or CONTROL.
        keys: of the first task.
        gaps: by (layer, stage).
        links: by layer.
        maps: of every layer, at its first stage.
    """

    weights: str
    keys: Captured
    gaps: dict[tuple[int, Stage], Gap]
    links: dict[int, Link]
    maps: tuple[Map, ...]


@dataclass(frozen=True)
class Collected:
    """The data behind the tables and figures.

    Attributes:
        tasks: names; the first one is measured, the second one is another data set.
        models: the model and its control.
        samples: of the first task.
        facts: dtype, attention implementation and device, as runs store them.
    """

    tasks: tuple[str, ...]
    models: tuple[Measured, ...]
    samples: int
    facts: dict[str, str]


def check_installed() -> None:
    """Checks that scikit-learn is installed.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("sklearn") is None:
        raise UserError("study key-space needs scikit-learn, which is not installed: `pip install 'lad-eval[studies]'`.")


def collect(settings: Settings, layers: str | None, points: int, folder: Path) -> Collected | None:
    """Captures what is missing, and measures.

    Args:
        settings: model, tasks, limit, seed, ...
        layers: as `choose_layers` takes them.
        points: per modality, in the t-SNE plots.
        folder: of the study; keys are kept in it.

    Returns:
        None in every process but the main one, which does all the work.

    Raises:
        UserError: a task, a layer or the model is unknown, the samples are too few, or scikit-learn is missing.
    """
    context = DistributedContext.from_environment()
    if not context.is_main_process:
        return None
    check_installed()
    check_model(settings.model, adapter=settings.adapter, revision=settings.revision)
    names = resolve(settings.tasks)
    requests = [_requests(name, settings) for name in names[:2]]
    files.ensure_writable(folder)
    model = load(settings)
    if not isinstance(model, RunsPrompts):
        raise UserError(f"{settings.model_name} cannot be studied: its keys cannot be recorded; name a model of transformers.")
    chosen = choose_layers(model.model, layers)
    device = model.model.device
    facts = _facts(model)
    captured = [(MODEL, _capture(model, requests, chosen, settings, folder))]
    # One model at a time is on the device.
    control = _control(model, settings, device)
    captured.append((CONTROL, _capture(control, requests, chosen, settings, folder)))
    measured = tuple(_measure(weights, keys, points, settings.seed) for weights, keys in captured)
    return Collected(tuple(names[:2]), measured, len(requests[0]), facts)


def _requests(name: str, settings: Settings) -> list[Request]:
    task = load_task(name)
    samples = list(islice(task.samples("test", settings.samples_of(task)), settings.samples_of(task)))
    if len(samples) < FEWEST_SAMPLES:
        raise UserError(f"study key-space compares halves of the samples: it needs at least {FEWEST_SAMPLES}; raise --limit.")
    return [task.request(sample, task.orders[0]) for sample in samples]


def _capture(
    model: RunsPrompts, requests: Sequence[Sequence[Request]], layers: Sequence[int], settings: Settings, folder: Path
) -> list[Captured]:
    place, shown = folder / "keys", not settings.quiet
    return [capture(model, wanted, layers, place, seed=settings.seed, shown=shown) for wanted in requests]


def _control(model: RunsPrompts, settings: Settings, device: object) -> RunsPrompts:
    """The same architecture with random weights; the model itself leaves the device."""
    from lad_eval.models.huggingface import HuggingFaceVLM
    from lad_eval.models.random.untrained import untrained

    seed = settings.seed + 1  # another than that of a model that is random itself
    made = untrained(model.model.to("cpu"), seed, device)
    return HuggingFaceVLM(
        made,
        model.processor,
        name=f"{model.name} with random weights",
        weights=f"untrained, seed {seed}",
        batch_size=settings.batch_size,
        image_preparation=settings.image_preparation,
        date=settings.date,
    )


def _facts(model: RunsPrompts) -> dict[str, str]:
    return {
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "attention_implementation": str(getattr(model.model.config, "_attn_implementation", "")),
        "device": str(model.model.device),
    }


def _measure(weights: str, captured: Sequence[Captured], points: int, seed: int) -> Measured:
    keys, elsewhere = captured[0], captured[1] if len(captured) > 1 else None
    present = [(layer, stage) for layer in keys.layers for stage in STAGES if keys.has(layer, stage)]
    logger.info("Measuring %d sets of keys of %s.", len(present), weights)
    gaps = {(layer, stage): measure_gap(keys, layer, stage, seed, elsewhere) for layer, stage in present}
    first = {layer: next(stage for stage in STAGES if keys.has(layer, stage)) for layer in keys.layers}
    maps = tuple(measure_map(keys, layer, stage, points, seed) for layer, stage in first.items()) if points else ()
    return Measured(weights, keys, gaps, {layer: measure_link(keys, layer) for layer in keys.layers}, maps)
