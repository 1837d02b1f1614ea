"""The folder of one run, and how its files come and go: each is whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError
from lad_eval.methods.condition import Condition
from lad_eval.run.spec import RunSpec

SPEC = "spec.json"
PLAN = "plan.json"
METRICS = "metrics.json"
TASK = "task.json"
PREDICTIONS = "predictions.parquet"
CONDITIONS = "conditions"


class ResultsError(UserError):
    """A results folder that cannot be used as asked."""


def slug(name: str) -> str:
    """A model or task name as the name of a folder: `Qwen/Qwen2.5-VL-3B-Instruct` -> `Qwen-Qwen2.5-VL-3B-Instruct`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"


def folder_of(out: Path, spec: RunSpec) -> Path:
    return out / slug(spec.model) / slug(spec.task) / spec.digest


def condition_folder(run: Path, condition: Condition) -> Path:
    """Where a run keeps its answers under a condition: its own folder for the question and the model as they are."""
    return run / CONDITIONS / slug(condition.label) if condition.label else run


def ensure_writable(out: Path) -> None:
    """Makes the results folder.

    Raises:
        ResultsError: nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ResultsError(f"Cannot write to the results folder {out}: {error.strerror}. Choose another with --runs.") from error


def claim(folder: Path, spec: RunSpec) -> None:
    """Makes the folder this spec's, or sees that it is.

    Raises:
        ResultsError: it holds the results of another spec.
    """
    path = folder / SPEC
    if path.exists():
        stored = read_json(path)
        if stored != spec.document():
            names = sorted(k for k in {*stored, *spec.document()} if stored.get(k) != spec.document().get(k))
            raise ResultsError(
                f"{folder} holds the results of another spec (differs in {', '.join(names)}); "
                "move it away, choose another --runs, or start anew with --overwrite always."
            )
        return
    write_json(path, spec.document())


def clear(folder: Path) -> None:
    """Removes what a run writes beside its evidence, `spec.json` last, so that an interruption leaves a run and not debris."""
    for path in folder.glob("replies.*.jsonl"):
        path.unlink()
    if (folder / CONDITIONS).is_dir():
        shutil.rmtree(folder / CONDITIONS)
    for name in (METRICS, PREDICTIONS, PLAN, TASK, SPEC):
        (folder / name).unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a new file beside `path`, which then takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ResultsError: the file is missing, unreadable or no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ResultsError(f"Cannot read {path}: {reason}.") from error
    if not isinstance(document, dict):
        raise ResultsError(f"Cannot read {path}: it is no JSON object.")
    return document
