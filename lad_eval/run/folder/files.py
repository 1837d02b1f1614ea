"""The folder of one run and its files, each of which is complete or absent."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lad_eval.errors import UserError
from lad_eval.files import documents
from lad_eval.files.documents import write_json
from lad_eval.methods import Condition, stored_name
from lad_eval.run.folder.schema import metrics_problem
from lad_eval.run.folder.spec import RunSpec, digest_of

SPEC = "spec.json"
PLAN = "plan.json"
METRICS = "metrics.json"
TASK = "task.json"
PREDICTIONS = "predictions.parquet"
CONDITIONS = "conditions"
AGAIN = "Run the command that made the run again to rewrite it."

logger = logging.getLogger(__name__)


class ResultsError(UserError):
    """A results folder that cannot be used."""


def slug(name: str) -> str:
    """A model or task name as the name of a folder: `Qwen/Qwen2.5-VL-3B-Instruct` -> `Qwen-Qwen2.5-VL-3B-Instruct`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"


def folder_of(out: Path, spec: RunSpec) -> Path:
    return out / slug(spec.model) / slug(spec.task) / spec.digest


def condition_folder(run: Path, condition: Condition) -> Path:
    """The folder of a run's answers under a condition: the run's own for the unchanged question and model."""
    return run / CONDITIONS / slug(condition.label) if condition.label else run


def ensure_writable(out: Path) -> None:
    """Refuses a results folder that cannot be written to; the folder is not created here.

    Raises:
        ResultsError: nothing can be written there, or in the nearest folder above it that exists.
    """
    try:
        with tempfile.TemporaryFile(dir=next(place for place in (out, *out.absolute().parents) if place.exists())):
            pass
    except OSError as error:
        raise ResultsError(f"Cannot write to the results folder {out}: {error.strerror}. Choose another with --runs.") from error


def claim(folder: Path, spec: RunSpec) -> None:
    """Writes the spec into the folder, or checks that it is there; a damaged `spec.json` in the spec's folder is rewritten.

    Raises:
        ResultsError: it holds the results of another spec.
    """
    path = folder / SPEC
    if path.exists():
        try:
            stored = read_spec(folder)
        except ResultsError as error:
            if folder.name != spec.digest:
                raise
            logger.warning("%s It is rewritten.", str(error).removesuffix(AGAIN).rstrip())
        else:
            if stored != spec.document():
                names = sorted(k for k in {*stored, *spec.document()} if stored.get(k) != spec.document().get(k))
                raise ResultsError(
                    f"{folder} holds the results of another spec (differs in {', '.join(names)}); "
                    "move it away, choose another --runs, or start over with --overwrite always."
                )
            return
    write_json(path, spec.document())


@contextmanager
def removed_if_unused(folder: Path) -> Iterator[None]:
    """If the block fails, removes the run's folder and its conditions' if they hold nothing but the files of a run's start.

    A folder of an earlier run stays.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:  # Ctrl-C too: no empty folder must stay
        with suppress(OSError):
            for condition in (folder / CONDITIONS).glob("*"):
                _remove_unless_used(condition)
            _remove_unless_used(folder / CONDITIONS)
            if folder in missing:
                _remove_unless_used(folder, scaffold=(SPEC, TASK))
            for place in missing[1:]:
                place.rmdir()
        raise


def _remove_unless_used(folder: Path, scaffold: Sequence[str] = ()) -> None:
    """Removes a folder that holds no files except locks and those of `scaffold`."""
    files = list(folder.iterdir()) if folder.is_dir() else []
    if any(file.name not in scaffold and file.suffix != ".lock" for file in files):
        return
    for file in files:
        file.unlink()
    if folder.is_dir():
        folder.rmdir()


def read_run_json(path: Path, what: str = "") -> dict[str, Any]:
    """`documents.read_json` for the files of a run.

    Raises:
        ResultsError: the file is missing, unreadable, not a JSON object, or not what was written.
    """
    return documents.read_json(path, what=what, cure=AGAIN, error=ResultsError)


def read_spec(folder: Path) -> dict[str, Any]:
    """The document in a run's `spec.json`.

    Raises:
        ResultsError: it is missing or damaged.
    """
    document = read_run_json(folder / SPEC, "what was run")
    try:
        RunSpec.model_validate(document)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ResultsError(f"Cannot read {folder / SPEC} (what was run): {where} is not as a run writes it. {AGAIN}") from error
    return document


def read_metrics(folder: Path) -> dict[str, Any]:
    """The document in a run's `metrics.json`, which must be of the same run as `spec.json`.

    Raises:
        ResultsError: either is missing or damaged, or a figure is invalid.
    """
    path = folder / METRICS
    document = read_run_json(path, "the run's figures")
    if problem := metrics_problem(document):
        raise ResultsError(f"Cannot read {path} (the run's figures): {problem}. {AGAIN}")
    if document["run"] != digest_of(read_spec(folder)):
        raise ResultsError(f"{path} and {SPEC} next to it are not of the same run. {AGAIN}")
    return _renewed(document)


def _renewed(document: dict[str, Any]) -> dict[str, Any]:
    """Figures with the methods' names in the current spelling: earlier versions wrote `sofa:sigma=0.3` for `sofa(sigma=0.3)`."""
    methods = {stored_name(name): figures for name, figures in document["methods"].items()}
    if methods.keys() == document["methods"].keys():
        return document
    pairs = document.get("tests", {}).get("accuracy", {})
    tests = {stored_name(first): {stored_name(other): p for other, p in row.items()} for first, row in pairs.items()}
    return {**document, "methods": methods, "tests": {**document.get("tests", {}), "accuracy": tests}}
