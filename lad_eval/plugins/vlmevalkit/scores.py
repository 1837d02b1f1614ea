"""Metrics of a VLMEvalKit prediction file, with our evidence next to it."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lad_eval.errors import EvidenceError, UserError
from lad_eval.files.atomic import write_atomically
from lad_eval.files.documents import read_json, write_json
from lad_eval.methods.replying import parse_reply
from lad_eval.metrics import UNPARSABLE, Predictions, summarise
from lad_eval.models.vlmeval.kit import kit
from lad_eval.run.folder.files import ResultsError
from lad_eval.tasks.request import Request

if TYPE_CHECKING:
    import pandas as pd


STORE = "lad_eval"
_WORK_DIR = "--work-dir"


@dataclass(frozen=True)
class Pointer:
    """How the answers of one model to one data set were made.

    Attributes:
        model: the entry or model that was run.
        method: how its answers were decided.
        params: the method's parameters.
        settings: what else determines the answers, from `entries.answer_settings`: options, an entry's class and arguments,
            weights.
        evidence: folder of the stored evidence; empty where the model writes its replies.
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
    folder = "outputs"
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == _WORK_DIR and equals:
            folder = value
        elif flag == _WORK_DIR and i + 1 < len(words):
            folder = words[i + 1]
    return Path(folder)


def store_folder() -> Path:
    """Where evidence and calibration are kept: `lad_eval` in VLMEvalKit's work folder, laid out as `lad-eval run` does."""
    return work_dir() / STORE


def write_pointer(model: str, dataset: str, pointer: Pointer) -> None:
    """Stores it under VLMEvalKit's names."""
    write_json(_file(model, dataset), pointer.document())


def read_pointer(model: str, dataset: str) -> Pointer | None:
    """What was stored; None if nothing was."""
    path = _file(model, dataset)
    if not path.is_file():
        return None
    try:
        pointer: Pointer = TypeAdapter(Pointer).validate_python(read_json(path))
    except (ValidationError, UserError) as error:
        raise ResultsError(f"{path} is damaged; remove it and run again.") from error
    return pointer


def _file(model: str, dataset: str) -> Path:
    return store_folder() / "answers" / f"{model}_{dataset}.json".replace("/", "--")


TABLES = (".xlsx", ".tsv", ".json")
_PLACES = 4
_WHOLE = re.compile(r"\d+\.0")


@dataclass(frozen=True)
class Score:
    """The result of scoring a prediction file.

    Attributes:
        table: one row: Overall (accuracy), Accuracy std, RStd, Consistency, Recall@<identifier> for every position, all in points
            (0 to 100), then the numbers Unparsable, Samples and Orders. A metric that is undefined has no column.
        keys: of the requests that it was computed from.
        warnings: what a reader must know, one line each.
    """

    table: pd.DataFrame
    keys: tuple[str, ...]
    warnings: tuple[str, ...]


def score(requests: Mapping[str, Request], permutation: Mapping[str, int], eval_file: str | Path) -> Score:
    """The metrics of a prediction file.

    Args:
        requests: index -> request, of all rows of the data set.
        permutation: index -> number of the displayed order.
        eval_file: where VLMEvalKit put the predictions; xlsx, tsv or json.

    Raises:
        ResultsError: the file cannot be read, or answers none of the requests.
    """
    import pandas as pd

    replies = read_replies(eval_file)
    with_reply = {index: request for index, request in requests.items() if index in replies}
    if not with_reply:
        raise ResultsError(
            f"{eval_file} answers other questions: the task, its data or lad_eval has changed since; remove it and run again."
        )
    T = len({*permutation.values()})
    counts: dict[str, int] = {}
    for request in with_reply.values():
        counts[request.sample_id] = counts.get(request.sample_id, 0) + 1
    whole = {index: r for index, r in with_reply.items() if counts[r.sample_id] == T}
    warnings = []
    if cut := len(with_reply) - len(whole):
        warnings.append(
            f"{cut} of {len(with_reply)} answers are left out: their samples were not run in all {T} orders. "
            f"A --limit counts rows; use a multiple of {T}."
        )
    if not whole:
        raise ResultsError(f"No sample was run in all {T} orders; use a --limit of {T} or more.")
    evaluated = list(whole.values())
    positions = [parse_reply(replies[index], request.identifiers) for index, request in whole.items()]
    summary = summarise(
        Predictions(
            np.asarray([r.sample_id for r in evaluated]),
            np.asarray([permutation[index] for index in whole]),
            np.asarray([r.gold_position for r in evaluated]),
            np.asarray([UNPARSABLE if position is None else position for position in positions]),
            np.asarray([r.permutation.order for r in evaluated]),
        )
    )
    several = summary.permutations > 1
    figures: dict[str, float] = {
        "Overall": summary.accuracy,
        "Accuracy std": summary.accuracy_std if several else math.nan,
        "RStd": summary.rstd,
        "Consistency": summary.consistency if several else math.nan,
        **{f"Recall@{name}": value for name, value in zip(evaluated[0].identifiers, summary.recall, strict=True)},
    }
    row: dict[str, float | int] = {name: round(float(value), _PLACES) for name, value in figures.items() if not math.isnan(value)}
    row |= {"Unparsable": int(summary.unparsable), "Samples": int(summary.samples), "Orders": int(summary.permutations)}
    return Score(pd.DataFrame([row]), tuple(r.key for r in evaluated), tuple(warnings))


def read_replies(eval_file: str | Path) -> dict[str, str]:
    """Index -> reply, as close to what was written as the file allows.

    Raises:
        ResultsError: the file cannot be read or is not a prediction file.
    """
    import pandas as pd

    path = Path(eval_file)
    if path.suffix not in TABLES:
        # VLMEvalKit falls back to a pickle where it cannot write a table, and its `load` would unpickle it.
        raise ResultsError(f"{path} is not a table ({', '.join(TABLES)}); remove it and run again.")
    try:
        table = pd.DataFrame(kit("vlmeval.smp").load(str(path)))
        return dict(zip(map(str, table["index"]), map(as_written, table["prediction"]), strict=True))
    except Exception as error:  # a damaged spreadsheet may fail in any way
        reason = " ".join(str(error).split()).rstrip(".")
        raise ResultsError(f"Cannot read the predictions in {path}: {reason}. Remove it and run again.") from error


def as_written(cell: Any) -> str:
    """A cell as the text it was written from: tables turn "2" into 2.0, and "" into an empty cell."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    text = str(cell)
    return text.removesuffix(".0") if _WHOLE.fullmatch(text) else text


def write_scores(eval_file: str | Path, dataset: str, measured: Score) -> None:
    """VLMEvalKit's score table, and, for our models, the evidence of the rows and how it was made.

    Raises:
        UserError: a file cannot be written.
    """
    smp = kit("vlmeval.smp")
    smp.dump(measured.table, smp.get_intermediate_file_path(str(eval_file), "_acc"))
    path = Path(eval_file)
    model = path.stem.removesuffix(f"_{dataset}")
    pointer = read_pointer(model, dataset)
    if pointer is not None and pointer.evidence:
        _write_evidence(path, measured.keys, pointer)


def _write_evidence(path: Path, keys: tuple[str, ...], pointer: Pointer) -> None:
    from lad_eval.evidence.files import EvidenceHeader, write_parquet
    from lad_eval.evidence.store import read_evidence

    try:
        rows = read_evidence(pointer.evidence).select_keys(keys)
    except EvidenceError as error:
        raise ResultsError(
            f"Some answers in {path} were not made as the others were: weights, packages or settings have changed since. "
            "Remove it and run again."
        ) from error
    header = EvidenceHeader(rows.fingerprint, pointer.task, rows.n_candidates, rows.n_layers)
    write_atomically(path.with_name(f"{path.stem}_evidence.parquet"), lambda temporary: write_parquet(temporary, rows, header))
    state = Path(pointer.calibration) if pointer.calibration else None
    if state is not None and state.is_file():
        content = _sound(state, pointer.method, path)
        write_atomically(path.with_name(f"{path.stem}_calibration.safetensors"), lambda temporary: temporary.write_bytes(content))
    document = json.loads(json.dumps({**pointer.document(), "fingerprint": rows.fingerprint}, default=str))
    try:
        write_json(path.with_name(f"{path.stem}_lad_eval.json"), document)
    except OSError as error:
        raise UserError(f"Cannot write next to {path}: {error.strerror or error}.") from error


def _sound(state: Path, method: str, predictions: Path) -> bytes:
    """The file of a learned state, which must be undamaged."""
    from lad_eval.methods import make_method

    learner = make_method(method).learner
    try:
        type(learner).load(state)
    except UserError as error:
        raise ResultsError(f"{state} is damaged; remove it and {predictions}, and run again.") from error
    return state.read_bytes()
