"""Keys of the model and of its untrained control, and what is measured on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from lad_eval.attention.keys import stage_names
from lad_eval.errors import UserError
from lad_eval.extras import install_command
from lad_eval.files.documents import read_json, write_json
from lad_eval.models.base import RunsPrompts
from lad_eval.models.registry import check_model
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.execute import load
from lad_eval.run.folder import files
from lad_eval.run.progress import progress
from lad_eval.run.settings import Settings
from lad_eval.studies.key_space.capture import Captured, capture, capture_facts, choose_layers, digest_of
from lad_eval.studies.key_space.measurements import CONTROL, MODEL, Entry, Measured, entries, missing, read, store
from lad_eval.tasks.registry import load_task, resolve
from lad_eval.tasks.request import Request

FEWEST_SAMPLES = 4
"""Halves of the samples are compared, and pairs of one sample left out."""
MEASURED, STUDY_FILE = "measured", "study.json"
"""The folder of measurements, and the file in each of its folders that says what was measured."""
_VERSION = 1


@dataclass(frozen=True)
class Collected:
    """The data behind the tables and figures.

    Attributes:
        tasks: names; the first one is measured, the second one is another data set.
        models: the model and its control.
        samples: of the first task.
        stages: by layer, what its keys before rotary positions are called; "none" where there are none.
        facts: dtype, attention implementation and device, as runs store them.
    """

    tasks: tuple[str, ...]
    models: tuple[Measured, ...]
    samples: int
    stages: dict[int, str]
    facts: dict[str, str]


@dataclass(frozen=True)
class Scope:
    """What is wanted of the study.

    Attributes:
        layers: as `choose_layers` takes them.
        points: of a modality, in the pictures; 0: no pictures.
        heads: each key-value head alone, too.
    """

    layers: str | None
    points: int
    heads: bool = False


def check_installed() -> None:
    """Checks that scikit-learn is installed.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("sklearn") is None:
        raise UserError(f"study key-space needs scikit-learn, which is not installed: `{install_command('studies')}`.")


def collect(settings: Settings, scope: Scope, folder: Path) -> Collected | None:
    """Captures and measures what is missing.

    Args:
        settings: model, tasks, limit, seed, ...
        scope: what is wanted.
        folder: of the study; keys and measurements are kept in it.

    Returns:
        None in every process but the main one, which does all the work.

    Raises:
        UserError: a task, a layer or the model is unknown, the samples are too few, a stored file is damaged, or scikit-learn is
            missing.
    """
    if not DistributedContext.from_environment().is_main_process:
        return None
    check_installed()
    check_model(settings.model, adapter=settings.adapter, revision=settings.revision)
    names = _tasks(settings)
    requests = [_requests(name, settings) for name in names]
    files.ensure_writable(folder)
    model = load(settings)
    if not isinstance(model, RunsPrompts):
        raise UserError(f"{settings.model_name} cannot be studied: its keys cannot be recorded; name a model of transformers.")
    chosen = choose_layers(model.model, scope.layers)
    options = _options(settings, names, scope)
    captures = [capture_facts(model, wanted, chosen, settings.seed) for wanted in requests]
    place = folder / MEASURED / digest_of({"version": _VERSION, "options": options, "captures": captures})
    study = {
        "options": options,
        "samples": len(requests[0]),
        "stages": {str(layer): name for layer, name in stage_names(model.model, chosen).items()},
        "facts": _facts(model),
    }
    write_json(place / STUDY_FILE, study)
    wanted = _entries(study, scope)
    captured = {}
    if missing(place, MODEL, wanted):
        captured[MODEL] = _capture(model, requests, chosen, settings, folder)
    if missing(place, CONTROL, wanted):
        # One model at a time is on the device.
        control = _control(model, settings, model.model.device)
        captured[CONTROL] = _capture(control, requests, chosen, settings, folder)
    for weights, keys in captured.items():
        _measure(place, weights, missing(place, weights, wanted), keys, shown=not settings.quiet)
    return _collected(place, study, scope)


def stored(settings: Settings, scope: Scope, folder: Path) -> Collected | None:
    """What an earlier call measured with the same options; loads no model.

    Returns:
        None in every process but the main one.

    Raises:
        UserError: nothing fits, several do, something is missing, or a file is damaged.
    """
    if not DistributedContext.from_environment().is_main_process:
        return None
    names = _tasks(settings)
    options = _options(settings, names, scope)
    cure = "Delete its folder and run without --stored."
    read_of = {path.parent: read_json(path, cure=cure) for path in sorted((folder / MEASURED).glob(f"*/{STUDY_FILE}"))}
    fitting = [place for place, study in read_of.items() if study.get("options") == options]
    if not fitting:
        raise UserError(
            f"No measurements of {settings.model_name} on {', '.join(names)} with these samples, layers and seed in {folder}; "
            "run without --stored."
        )
    if len(fitting) > 1:
        raise UserError(
            f"Several measurements of {settings.model_name} on {', '.join(names)} could be meant, e.g. {fitting[0]} and "
            f"{fitting[1]}; run without --stored, or move one away."
        )
    place, study = fitting[0], read_of[fitting[0]]
    wanted = _entries(study, scope)
    lacking = [entry for weights in (MODEL, CONTROL) for entry in missing(place, weights, wanted)]
    if lacking:
        raise UserError(
            f"{place} lacks {len(lacking)} of the {2 * len(wanted)} measurements that this page shows, e.g. "
            f"{lacking[0].name}; run without --stored."
        )
    return _collected(place, study, scope)


def _tasks(settings: Settings) -> list[str]:
    names = resolve(settings.tasks)
    if len(names) > 2:
        raise UserError(
            f"study key-space measures one task and takes one other as a control; {len(names)} are named: {', '.join(names)}."
        )
    return names


def _options(settings: Settings, tasks: Sequence[str], scope: Scope) -> dict[str, Any]:
    """What a user names, by which stored measurements are found without the model."""
    return {
        "model": settings.model_name,
        "tasks": list(tasks),
        "limit": settings.limit,
        "layers": None if scope.layers is None else scope.layers.replace(" ", ""),
        "seed": settings.seed,
    }


def _entries(study: Mapping[str, Any], scope: Scope) -> list[Entry]:
    stages = {int(layer): name for layer, name in study["stages"].items()}
    return entries(stages, scope.points, heads=scope.heads, seed=study["options"]["seed"])


def _measure(place: Path, weights: str, wanted: Sequence[Entry], captured: Sequence[Captured], *, shown: bool) -> None:
    keys, elsewhere = captured[0], captured[1] if len(captured) > 1 else None
    with progress(f"measurements of {weights}", len(wanted), shown=shown, unit="steps") as advance:
        for entry in wanted:
            store(place, weights, entry, entry.measure(keys, elsewhere))
            advance(1)


def _collected(place: Path, study: Mapping[str, Any], scope: Scope) -> Collected:
    wanted = _entries(study, scope)
    return Collected(
        tuple(study["options"]["tasks"]),
        tuple(read(place, weights, wanted) for weights in (MODEL, CONTROL)),
        study["samples"],
        {int(layer): name for layer, name in study["stages"].items()},
        study["facts"],
    )


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
