"""Where a model of ours keeps what it saw, and what it was set to, under the names that VLMEvalKit gives its results."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lad_eval.run.folder import ResultsError, read_json, write_json

STORE = "lad_eval"
_WORK_DIR = "--work-dir"


@dataclass(frozen=True)
class Pointer:
    """What made the answers of one model to one data set.

    Attributes:
        model: the entry or model that was asked.
        method: how its answers were decided.
        params: the method's parameters.
        settings: what else makes the answers, as `entries.made_with` tells it: options, an entry's class and arguments, weights.
        evidence: folder of the stored evidence.
        calibration: file of the learned state; None for a method that learns nothing.
        task: the task's fingerprint.
    """

    model: str
    method: str
    params: Mapping[str, Any]
    settings: Mapping[str, Any]
    evidence: str
    calibration: str | None
    task: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def work_dir() -> Path:
    """The folder that VLMEvalKit writes to: MMEVAL_ROOT, else the command line's --work-dir, else ./outputs, as it decides."""
    if "MMEVAL_ROOT" in os.environ:
        return Path(os.environ["MMEVAL_ROOT"])
    words = sys.argv[1:]
    found = "outputs"
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == _WORK_DIR and equals:
            found = value
        elif flag == _WORK_DIR and i + 1 < len(words):
            found = words[i + 1]
    return Path(found)


def store_folder() -> Path:
    """Where evidence and calibration are kept: `lad_eval` in VLMEvalKit's work folder, laid out as `lad-eval run` does."""
    return work_dir() / STORE


def write_pointer(model: str, dataset: str, pointer: Pointer) -> None:
    """Notes it under VLMEvalKit's names."""
    write_json(_file(model, dataset), pointer.document())


def read_pointer(model: str, dataset: str) -> Pointer | None:
    """What was noted; None if nothing was."""
    path = _file(model, dataset)
    if not path.is_file():
        return None
    try:
        found: Pointer = TypeAdapter(Pointer).validate_python(read_json(path))
    except (ValidationError, ResultsError) as error:
        raise ResultsError(f"{path} is damaged; remove it and run again.") from error
    return found


def _file(model: str, dataset: str) -> Path:
    return store_folder() / "answers" / f"{model}_{dataset}.json".replace("/", "--")
