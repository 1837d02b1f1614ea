"""Stored evidence of a baseline: kept beside its file, found in a folder of runs, and decided again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lad_eval.errors import DataError
from lad_eval.evidence_files import PARQUET
from lad_eval.metrics import Grid
from lad_eval.models.fingerprint import file_digest
from lad_eval.run.asked import Asked
from lad_eval.run.check_baseline import BaselineError, TaskBaseline
from lad_eval.run.check_verdict import Now
from lad_eval.run.decide import decide
from lad_eval.run.figures import predictions_of
from lad_eval.run.folder import PLAN, SPEC, read_json, slug, write_atomically
from lad_eval.run.lineup import line_up
from lad_eval.store import read_evidence
from lad_eval.tasks.identifiers import identifiers
from lad_eval.tasks.plan import plan
from lad_eval.tasks.prompts import question
from lad_eval.tasks.registry import load_spec, load_task

KEPT = (SPEC, PLAN, PARQUET)
"""Files of a run folder that deciding again needs."""


def evidence_folder(baseline: Path) -> Path:
    """Where a baseline's evidence lies: `lad-tiny.evidence` beside `lad-tiny.json`."""
    return baseline.with_name(f"{baseline.stem}.evidence")


def keep_evidence(run: Path, baseline: Path, task: str) -> dict[str, str]:
    """Copies a run's evidence beside a baseline; returns the digests of the files by their names."""
    place = evidence_folder(baseline) / slug(task)
    for name in KEPT:
        content = (run / name).read_bytes()
        write_atomically(place / name, lambda beside, content=content: beside.write_bytes(content))  # type: ignore[misc]
    return {name: file_digest(place / name) for name in KEPT}


def kept_evidence(baseline: Path, task: str, base: TaskBaseline) -> Path:
    """The folder with a task's evidence beside a baseline.

    Raises:
        BaselineError: it is not there, or not what the baseline was made of.
    """
    place = evidence_folder(baseline) / slug(task)
    if not base.evidence:
        raise BaselineError(
            f"{baseline} keeps no evidence of {task}; name a folder of runs with --evidence, or leave --replay out."
        )
    for name, digest in base.evidence.items():
        path = place / name
        if not path.is_file():
            raise BaselineError(f"{path} is missing; restore it, or leave --replay out.")
        if file_digest(path) != digest:
            raise BaselineError(f"{path} is not what {baseline} was made of; restore both from the same commit, or renew them.")
    return place


def run_with_evidence(runs: Path, model: str, task: str, base: TaskBaseline) -> Path:
    """The run of a model on a task under a folder; of several the one with the baseline's fingerprint.

    Raises:
        BaselineError: there is none, or several.
    """
    specs = {path.parent: read_json(path) for path in sorted(runs.rglob(SPEC))} if runs.is_dir() else {}
    found = {place: spec for place, spec in specs.items() if (spec.get("model"), spec.get("task")) == (model, task)}
    if len(found) > 1:
        found = {place: spec for place, spec in found.items() if spec.get("fingerprint") == base.fingerprint}
    if len(found) > 1:
        found = {place: spec for place, spec in found.items() if spec.get("limit") == base.limit}
    if len(found) != 1:
        many = "no run" if not found else f"{len(found)} runs"
        raise BaselineError(f"There is {many} of {model} on {task} in {runs} to replay; name the folder of one with --evidence.")
    return next(iter(found))


def decided_again(folder: Path, methods: Iterable[str], samples: Iterable[str]) -> dict[str, Grid]:
    """The methods' answers to these samples from a run's evidence: no model, no data.

    Raises:
        UserError: the evidence is damaged, lacks what a method needs, or a method does not exist.
    """
    asked, evidence = Asked.from_document(read_json(folder / PLAN)), read_evidence(folder)
    evaluated = evidence.select_keys(asked.evaluated)
    return {
        name: _only(predictions_of(decide(evidence, asked, method), evaluated, asked).grid, samples)
        for name, method in line_up(methods).items()
    }


def _only(grid: Grid, samples: Iterable[str]) -> Grid:
    """The rows of these samples, in their order, as far as there are any."""
    where = {sample: row for row, sample in enumerate(grid.sample_id.tolist())}
    rows = np.asarray([where[sample] for sample in samples if sample in where], dtype=np.int64)
    names = ("sample_id", "gold", "predicted", "chosen", "perm")
    return grid._replace(**{name: getattr(grid, name)[rows] for name in names})


def asked_now(task: str, limit: int | None, *, calibration: bool) -> tuple[Now, str | None]:
    """What a task asks now, and why its data could not be looked at, if so.

    Args:
        task: a name, or the path of a YAML file.
        limit: of the samples.
        calibration: whether calibration samples are asked too.

    Raises:
        UserError: there is no such task, or its definition cannot be used.
    """
    spec = load_spec(task)
    prompt = question(spec.prompt, "{caption}", identifiers(spec.identifiers, spec.candidates))
    try:
        opened = load_task(task)
        planned = plan(opened, limit=limit, calibration=calibration)
    except DataError as error:
        return Now(spec.version, spec.digest, prompt, None, None), str(error)
    requests = digest_of([*planned.evaluated, *planned.calibration])
    return Now(spec.version, spec.digest, prompt, opened.fingerprint["data"], requests), None


def digest_of(keys: Iterable[str]) -> str:
    """Hex digest, 16 characters, of a set of request keys."""
    import hashlib

    return hashlib.sha256("\n".join(sorted({*keys})).encode()).hexdigest()[:16]


def calibrates_any(methods: Iterable[str]) -> bool:
    return any(method.calibrates for method in line_up(methods).values())
