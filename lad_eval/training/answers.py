"""Collects chosen and rejected answers: those of a model under fused and under truncated attention."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.interventions import Intervention
from lad_eval.errors import DamagedError, DataError
from lad_eval.files.log import append, read_log, repair, storage_errors
from lad_eval.tasks.leakage import shown_pictures
from lad_eval.tasks.request import Permutation, Request, Sample
from lad_eval.tasks.sources.base import Trainable
from lad_eval.training.folder import only_process_in
from lad_eval.training.pairs import (
    AnswerPair,
    PairSet,
    balanced,
    check_balance,
    check_pair_count,
    counts_table,
    position_counts,
    quota,
)

if TYPE_CHECKING:
    from lad_eval.models.base import VLM, Changeable
    from lad_eval.tasks.task import Task

_LOG = logging.getLogger(__name__)
ANSWERS = "answers.jsonl"
SAMPLES_AT_ONCE = 8
DEFAULT_LIMIT = 2000

LogProbs = tuple[list[float], list[float]]
"""Float[N] each: a request's candidates under fused and under truncated attention, by position."""


def collect_pairs(
    model: VLM,
    tasks: Sequence[Task],
    folder: Path,
    *,
    wanted: int = 200,
    limit: int = DEFAULT_LIMIT,
    chosen_under: Intervention | None = None,
    unbalanced: bool = False,
) -> PairSet:
    """Pairs of answers to training samples: right under fused attention and wrong under truncated attention.

    Source: arXiv 2603.07048; there a language model corrects the chosen answers, here the gold answer is known. Every sample is
    run under all N cyclic shifts of its images. Its answer is the image with the highest mean log-probability over the shifts, in
    which the bias towards each position counts once for each image; the sample gives a pair under each shift. So the pairs of a
    sample have each position once as the chosen and once as the rejected one, and each (chosen, rejected) position has a quota: a
    position bias is not learned. Samples are run until every quota is filled, at most `limit` of each task. The
    model's answers are stored in the folder, so that a stopped run resumes.

    Args:
        model: to run; it has `under`.
        tasks: whose sources have training samples, all of one number of candidates.
        folder: for answers and pairs; created if it is missing.
        wanted: number of pairs, divided evenly among the N (N - 1) positions and rounded up.
        limit: training samples of each task.
        chosen_under: the attention that gives chosen answers; None: `Capl()`.
        unbalanced: answer each request by itself, by its most probable candidate, as in the paper, and keep all
            pairs, whatever their positions.

    Raises:
        DataError: a task has no training samples or another number of candidates, or the answers give no balanced set.
        UserError: the folder holds answers of another model, task or attention, or cannot be written.
    """
    check_pair_count(wanted)
    _check_candidates(tasks)
    fused, truncated = chosen_under or Capl(), Truncated()
    header = {
        "format": 2,
        "model": dict(model.fingerprint),
        "tasks": [task.fingerprint for task in tasks],
        "chosen": fused.facts,
        "rejected": truncated.facts,
    }
    with only_process_in(folder, ANSWERS):
        return _collected(model, tasks, folder, header, (fused, truncated), wanted, limit, unbalanced=unbalanced)


def _collected(
    model: VLM,
    tasks: Sequence[Task],
    folder: Path,
    header: Mapping[str, Any],
    attentions: tuple[Intervention, Intervention],
    wanted: int,
    limit: int,
    *,
    unbalanced: bool,
) -> PairSet:
    path, n = folder / ANSWERS, tasks[0].candidates
    known = _stored(path, header, n)
    pairs_of = pairs_by_request if unbalanced else pairs_by_sample
    requests = 0
    per_cell = quota(wanted, n)
    candidates: list[AnswerPair] = []
    pairs: tuple[AnswerPair, ...] = ()
    for block in _blocks(tasks, limit):
        missing = [request for _, request in block if request.key not in known]
        if missing:
            rows = _answer_rows(model, missing, attentions)
            append(path, header, rows)
            known |= {row["key"]: (row["fused"], row["truncated"]) for row in rows}
        requests += len(block)
        for start in range(0, len(block), n):
            candidates += pairs_of(block[start : start + n], known)
        pairs = tuple(candidates[:wanted]) if unbalanced else balanced(candidates, per_cell)
        _LOG.info("%d answers, %d of %d pairs", requests, len(pairs), per_cell * n * (n - 1))
        if len(pairs) >= (wanted if unbalanced else per_cell * n * (n - 1)):
            break
    if not unbalanced or not pairs:
        try:
            check_balance(pairs, n)
        except DataError:
            _LOG.info("%d pairs in all:\n%s", len(candidates), counts_table(position_counts(candidates, n)))
            raise
    made = PairSet(pairs, n, header, requests, limit, unbalanced)
    with storage_errors(folder):
        made.save(folder)
    return made


def training_samples(task: Task, limit: int) -> Iterator[Sample]:
    """Samples to train on, none of which shows a picture, or has an id, of the task's evaluated samples.

    Raises:
        DataError: the task's source has none.
    """
    source = task.source
    if not isinstance(source, Trainable):
        raise DataError(f"{task.name} has no training samples: its source {task.spec.source!r} has evaluated ones only.")
    evaluated = list(task.samples("test"))
    ids, pictures = {sample.id for sample in evaluated}, shown_pictures(evaluated)
    for sample in source.training_samples(limit):
        if sample.id not in ids and pictures.isdisjoint(shown_pictures([sample])):
            yield sample


def _check_candidates(tasks: Sequence[Task]) -> None:
    numbers = {task.candidates for task in tasks}
    if len(numbers) > 1:
        raise DataError(f"Pairs are balanced over positions, so tasks must have one number of candidates, not {sorted(numbers)}.")


def _blocks(tasks: Sequence[Task], limit: int) -> Iterator[list[tuple[Task, Request]]]:
    """Requests of some samples of each task in turn, under all N cyclic shifts."""
    streams = {task.name: training_samples(task, limit) for task in tasks}
    while streams:
        block = []
        for task in tasks:
            samples = list(islice(streams.get(task.name, iter(())), SAMPLES_AT_ONCE))
            if not samples:
                streams.pop(task.name, None)
            shifts = Permutation.identity(task.candidates).cyclic_shifts()
            block += [(task, task.request(sample, order)) for sample in samples for order in shifts]
        if block:
            yield block


def _answer_rows(model: VLM, requests: Sequence[Request], attentions: tuple[Intervention, Intervention]) -> list[dict[str, Any]]:
    log_probs = []
    for attention in attentions:
        with cast("Changeable", model).under(attention):
            log_probs.append(model.evidence(requests).log_probs.tolist())
    return [
        {"key": request.key, "fused": chosen, "truncated": rejected}
        for request, chosen, rejected in zip(requests, *log_probs, strict=True)
    ]


def pairs_by_sample(shifts: Sequence[tuple[Task, Request]], known: Mapping[str, LogProbs]) -> list[AnswerPair]:
    """A pair for each shift of a sample; none if the answer is wrong under fused attention or right under truncated attention.

    A position bias that is added to log-probabilities cancels in the mean, since every image is at each position once.
    """
    fused, truncated = (
        int(np.mean([request.permutation.inverse.apply(known[request.key][under]) for _, request in shifts], axis=0).argmax())
        for under in (0, 1)
    )
    pairs = []
    for task, request in shifts:
        positions = request.permutation.position_of(fused), request.permutation.position_of(truncated)
        pairs += _pair(task, request, *positions)
    return pairs


def pairs_by_request(requests: Sequence[tuple[Task, Request]], known: Mapping[str, LogProbs]) -> list[AnswerPair]:
    """A pair for each request that is answered right under fused attention and wrong under truncated attention."""
    pairs = []
    for task, request in requests:
        pairs += _pair(task, request, *(int(np.argmax(log_probs)) for log_probs in known[request.key]))
    return pairs


def _pair(task: Task, request: Request, chosen: int, rejected: int) -> list[AnswerPair]:
    if chosen != request.gold_position or rejected == request.gold_position:
        return []
    return [AnswerPair(task.name, request.sample_id, request.permutation.order, request.key, chosen, rejected)]


def _stored(path: Path, header: Mapping[str, Any], n: int) -> dict[str, LogProbs]:
    if not path.exists():
        return {}

    def header_of(document: dict[str, Any], where: Path) -> dict[str, Any]:
        if document != header:
            other = next((name for name in header if document.get(name) != header[name]), "format")
            raise DataError(f"{where} holds answers of another run (its {other} differs); choose another --out.")
        return document

    def is_row(row: Mapping[str, Any], _: Any) -> bool:
        return isinstance(row.get("key"), str) and all(_are_log_probs(row.get(name), n) for name in ("fused", "truncated"))

    try:
        with storage_errors(path, "read"):
            contents = read_log(path, header_of, is_row)
    except DamagedError as error:
        raise DataError(str(error)) from error
    repair(path, contents)
    return {row["key"]: (row["fused"], row["truncated"]) for row in contents.rows}


def _are_log_probs(values: Any, n: int) -> bool:
    return isinstance(values, list) and len(values) == n and all(isinstance(v, float) and math.isfinite(v) for v in values)
