"""Stored evidence of a baseline: stored next to its file or in a folder of runs, and decided again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from lad_eval.errors import DataError
from lad_eval.files.atomic import write_atomically
from lad_eval.files.documents import named
from lad_eval.methods import resolve_methods
from lad_eval.metrics import Grid, Predictions
from lad_eval.models.fingerprint import file_digest
from lad_eval.regression.baseline import BaselineError, TaskBaseline
from lad_eval.regression.result import Now
from lad_eval.run.condition_results import read_condition_results
from lad_eval.run.condition_runs import condition_runs_of
from lad_eval.run.folder.files import METRICS, PREDICTIONS, SPEC, TASK, read_spec, slug
from lad_eval.tasks.prompts import identifiers, question
from lad_eval.tasks.registry import load_spec, load_task


def evidence_folder(baseline: Path) -> Path:
    """Folder of a baseline's evidence: `lad-tiny.evidence` next to `lad-tiny.json`."""
    return baseline.with_name(f"{baseline.stem}.evidence")


def keep_evidence(run: Path, baseline: Path, task: str) -> dict[str, str]:
    """Copies what a replay needs from a run to the folder next to a baseline; returns digests by file name.

    Files of an earlier baseline of the task that this one does not have are removed. The data's path is not copied: it belongs to
    the machine that made the run.
    """
    place = evidence_folder(baseline) / slug(task)
    names = [name for name in _files(run) if Path(name).name not in (METRICS, PREDICTIONS, TASK)]
    for name in names:
        write_atomically(place / name, partial(shutil.copyfile, run / name))
    for stale in {*_files(place)} - {*names}:
        (place / stale).unlink()
    return {name: file_digest(place / name) for name in names}


def _files(folder: Path) -> list[str]:
    """Files under a folder, as sorted relative paths with slashes, without hidden ones such as locks."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def kept_evidence(baseline: Path, task: str, base: TaskBaseline) -> Path:
    """The folder with a task's evidence next to a baseline.

    Raises:
        BaselineError: it is missing, or not the evidence that the baseline was made from.
    """
    place = evidence_folder(baseline) / slug(task)
    if not base.evidence:
        raise BaselineError(
            f"{baseline} has no evidence of {task}; name a folder of runs with --evidence, or leave --replay out."
        )
    for name, digest in base.evidence.items():
        path = place / name
        if not path.is_file():
            raise BaselineError(f"{path} is missing; restore it, or leave --replay out.")
        if file_digest(path) != digest:
            raise BaselineError(
                f"{path} is not what {baseline} was made from; restore both from the same commit, or write them again."
            )
    return place


def run_with_evidence(runs: Path, model: str, task: str, base: TaskBaseline) -> Path:
    """The run of a model on a task under a folder; if there are several, the one with the baseline's fingerprint.

    Raises:
        BaselineError: there is none, or several.
    """
    specs = {path.parent: read_spec(path.parent) for path in named(runs, SPEC)} if runs.is_dir() else {}
    matching = {place: spec for place, spec in specs.items() if (spec.get("model"), spec.get("task")) == (model, task)}
    if len(matching) > 1:
        matching = {place: spec for place, spec in matching.items() if spec.get("fingerprint") == base.fingerprint}
    if len(matching) > 1:
        matching = {place: spec for place, spec in matching.items() if spec.get("limit") == base.limit}
    if len(matching) != 1:
        many = "no run" if not matching else f"{len(matching)} runs"
        raise BaselineError(f"There is {many} of {model} on {task} in {runs} to replay; name the folder of one with --evidence.")
    return next(iter(matching))


def decided_again(folder: Path, methods: Iterable[str], samples: Iterable[str]) -> dict[str, Grid]:
    """The methods' answers to these samples from a run's evidence, without model and data.

    Raises:
        UserError: the evidence is damaged, lacks what a method needs, or a method does not exist.
    """
    wanted, lined = list(samples), resolve_methods(methods)
    conditions = {method.condition for method in lined.values()}
    condition_runs = {c: read_condition_results(folder, c, [m for m in lined.values() if m.condition == c]) for c in conditions}
    grids = {}
    for name, method in lined.items():
        results = condition_runs[method.condition]
        decision = results.decide(method)
        answers = Predictions.of(decision.rows, decision.answers.position, results.plan_index.permutation_index)
        grids[name] = answers.grid.only(wanted)
    return grids


def questions_now(task: str, limit: int | None, methods: Iterable[str]) -> tuple[Now, str | None]:
    """The present questions of a task for some methods, and why its data could not be read, if so.

    Args:
        task: a name, or the path of a YAML file.
        limit: of the samples.
        methods: their prompt variants, orders and calibration determine the requests.

    Raises:
        UserError: there is no such task or method, or the definition cannot be used.
    """
    spec, lined = load_spec(task), resolve_methods(methods)
    prompt = question(spec.prompt, "{caption}", identifiers(spec.identifiers, spec.candidates))
    try:
        opened = load_task(task)
        condition_runs = condition_runs_of(opened, lined, Path(), limit)
    except DataError as error:
        return Now(spec.version, spec.digest, prompt, None, None), str(error)
    requests = digest_of(
        f"{condition_run.condition.label}:{request.key}"
        for condition_run in condition_runs
        for request in condition_run.plan.requests
    )
    return Now(spec.version, spec.digest, prompt, opened.fingerprint["data"], requests), None


def digest_of(keys: Iterable[str]) -> str:
    """Hex digest, 16 characters, of a set of texts."""
    return hashlib.sha256("\n".join(sorted({*keys})).encode()).hexdigest()[:16]
