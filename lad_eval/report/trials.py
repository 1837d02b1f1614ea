"""Trials: one line for each answer under one displayed order, in the form of Facet-Probe, so that each can score the other's.

Source: arXiv 2606.26079, github.com/yahskapar/facet-probe, beb327e, schema.py and metrics.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence.replies import UNPARSABLE
from lad_eval.evidence.table import Ints
from lad_eval.files.documents import parse
from lad_eval.metrics import flip_rate, osi
from lad_eval.report.table import Content, Table, figure, number
from lad_eval.run.folder.files import ResultsError, read_spec
from lad_eval.run.folder.stored import StoredRun
from lad_eval.tasks.prompts import identifiers

SCHEMA_VERSION = 1
OPTION_ORDER, IMAGE_ORDER = "option_order", "image_set_order"
"""Facets: what other orders move. Where options are images, these move with their letters: an order of options."""
_TRUE, _FALSE = ("true", "1", "yes", "y", "correct"), ("false", "0", "no", "n", "incorrect")


@dataclass(frozen=True)
class Trial:
    """One answer; the parts of a line that figures are computed from.

    Attributes:
        answer: what was chosen, whatever its place; None where the reply has no answer.
        correct: None where it is unknown.
        n_choices: N; 0 where it is unknown.
    """

    facet: str
    dataset: str
    model: str
    item: str
    ordering: int
    answer: str | None
    correct: bool | None
    n_choices: int = 0

    @property
    def group(self) -> tuple[str, str, str]:
        """What figures are computed for: facet, data set and model."""
        return self.facet, self.dataset, self.model


@dataclass(frozen=True)
class TrialFigures:
    """Figures of one facet, data set and model; shares of 1, means over items. Flip and OSI are those of `lad_eval.metrics`.

    Attributes:
        orderings: T, trials of an item; the largest where they differ.
        flip_parsed: share of items with several answers; replies without an answer are left out (Facet-Probe).
        flip: share of items that are not answered alike in all trials: 1 - consistency; a reply without an answer breaks it.
        osi_parsed: entropy of an item's answers over ln max(2, its distinct answers), as Facet-Probe computes it.
        osi: entropy of an item's answers over ln min(N, T), replies without one left out; None if N is unknown.
        accuracy: mean over items of the share of right answers among those known; None if none is known.
        unparsable: trials without an answer.
    """

    group: tuple[str, str, str]
    items: int
    trials: int
    orderings: int
    flip_parsed: float
    flip: float
    osi_parsed: float
    osi: float | None
    accuracy: float | None
    unparsable: int


def trial_lines(run: StoredRun, methods: Sequence[str]) -> list[str]:
    """A run's answers as JSON lines, one per method, sample and displayed order.

    The model's name is followed by the method's, except for vanilla.

    Raises:
        ResultsError: the run's predictions cannot be read, or it holds none of a method.
    """
    table, metrics, vary = run.predictions(), run.metrics, read_spec(run.path)["definition"].get("vary")
    n, images_only = int(metrics["candidates"]), vary == "images"
    lines = []
    for method in methods:
        if method not in run.methods:
            raise ResultsError(f"{run.path} holds no {method!r}, only {', '.join(run.methods)}.")
        for row in table[table["method"] == method].sort_values(["sample_id", "permutation"], kind="stable").to_dict("records"):
            moved = row["image_order"] if images_only else row["order"]
            order = [int(word) for word in moved.split()]
            image_order = [int(word) for word in row["image_order"].split()] if "image_order" in row else None
            answer, gold = (_answer(int(row[name]), n, images_only) for name in ("image", "gold_image"))
            document = {
                "schema_version": SCHEMA_VERSION,
                "facet": IMAGE_ORDER if images_only else OPTION_ORDER,
                "dataset": metrics["task"],
                "model": metrics["model"] if method == "vanilla" else f"{metrics['model']}+{method}",
                "provider": "lad_eval",
                "model_id": metrics["model"],
                "item_id": row["sample_id"],
                "ordering_idx": int(row["permutation"]),
                "permutation": order,
                "ordered_component_ids": [f"{'image' if images_only else 'option'}_{part}" for part in order],
                "answer_normalized": answer,
                "gold_normalized": gold,
                "correct": bool(row["correct"]),
                "score_kind": "mcq_letter" if images_only else "option_content_idx",
                "n_choices": n,
                "prompt_hash": row["key"],
                "latency_sec": None,
                "adapter_metadata": {"method": method, "run": metrics["run"], "image_order": image_order},
            }
            lines.append(json.dumps(document, allow_nan=False))
    return lines


def _answer(option: int, n: int, letters: bool) -> str | None:
    """An option by its letter where it keeps one, else by its index in the data."""
    if option == UNPARSABLE:
        return None
    return identifiers("A..", n)[option] if letters else str(option)


def read_trials(path: Path) -> list[Trial]:
    """The trials of a file of JSON lines, as `trial_lines` or Facet-Probe writes them.

    Raises:
        UserError: it cannot be read, a line is not a trial, or a trial occurs twice; the text names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    trials: dict[tuple[Any, ...], Trial] = {}
    for number_of, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            trial = _trial(parse(line))
        except (ValueError, TypeError, KeyError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise UserError(
                f"{path}, line {number_of}, is not a trial: {reason}; one JSON object per line is expected."
            ) from error
        if trials.setdefault((*trial.group, trial.item, trial.ordering), trial) is not trial:
            raise UserError(f"{path}, line {number_of}: item {trial.item!r} has its ordering {trial.ordering} twice; remove one.")
    if not trials:
        raise UserError(f"{path} holds no trials; `lad-eval export --format trials` writes some.")
    return list(trials.values())


def _trial(row: Any) -> Trial:
    if not isinstance(row, Mapping):
        raise TypeError("it is not a JSON object")
    answer = next((row[name] for name in ("answer_normalized", "answer_letter", "answer") if row.get(name) is not None), None)
    return Trial(
        facet=str(row.get("facet") or ""),
        dataset=str(row.get("dataset") or ""),
        model=str(row.get("model") or ""),
        item=str(row["item_id"]),
        ordering=int(row.get("ordering_idx", 0)),
        answer=None if answer is None else str(answer),
        correct=_truth(row.get("correct")),
        n_choices=int(row.get("n_choices") or 0),
    )


def _truth(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value)
    word = str(value).strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def trial_figures(trials: Iterable[Trial]) -> list[TrialFigures]:
    """Figures by facet, data set and model, sorted."""
    ordered = sorted(trials, key=lambda trial: (*trial.group, trial.item, trial.ordering))
    return [_figures(group, list(members)) for group, members in groupby(ordered, key=lambda trial: trial.group)]


def _figures(group: tuple[str, str, str], trials: Sequence[Trial]) -> TrialFigures:
    items = [list(members) for _, members in groupby(trials, key=lambda trial: trial.item)]
    answers = [[trial.answer for trial in item] for item in items]
    choices = [max(trial.n_choices for trial in item) for item in items]
    numbered = [_numbered(of_one) for of_one in answers]
    known = [[trial.correct for trial in item if trial.correct is not None] for item in items]
    accuracies = [sum(of_one) / len(of_one) for of_one in known if of_one]
    return TrialFigures(
        group=group,
        items=len(items),
        trials=len(trials),
        orderings=max(map(len, items)),
        flip_parsed=_mean([flip_rate(chosen, released=True) / 100 for chosen in numbered]),
        flip=_mean([flip_rate(chosen) / 100 for chosen in numbered]),
        osi_parsed=_mean([osi(chosen, 0, released=True) for chosen in numbered]),
        osi=_mean([osi(chosen, n) for chosen, n in zip(numbered, choices, strict=True)]) if all(choices) else None,
        accuracy=_mean(accuracies) if accuracies else None,
        unparsable=sum(of_one.count(None) for of_one in answers),
    )


def _numbered(answers: Sequence[str | None]) -> Ints:
    """Int[1, T]: an item's answers by number, as the metrics take them."""
    known = list(dict.fromkeys(answer for answer in answers if answer is not None))
    return np.array([[UNPARSABLE if answer is None else known.index(answer) for answer in answers]], dtype=np.int64)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def trials_table(figures: Sequence[TrialFigures]) -> Table:
    """The figures as a table, one row per facet, data set and model."""
    rows: list[list[Content]] = [
        [
            *one.group,
            one.items,
            one.orderings,
            figure(None if one.accuracy is None else 100 * one.accuracy),
            figure(100 * one.flip),
            figure(100 * one.flip_parsed),
            figure(one.osi, digits=3),
            figure(one.osi_parsed, digits=3),
            one.unparsable,
        ]
        for one in figures
    ]
    columns = [
        "Facet",
        "Data",
        "Model",
        "Items",
        "T",
        "Accu\u00adracy",
        "Flip",
        "Flip\nparsed",
        "OSI",
        "OSI\nparsed",
        "Unpar\u00adsable",
    ]
    notes = [
        "Flip, OSI: as `lad-eval run` shows them; a reply without an answer is a flip, and OSI leaves it out. The figures called "
        "parsed are Facet-Probe's. Flip grows with T.",
    ]
    if len(figures) > 1:
        mean = number(100 * _mean([one.flip_parsed for one in figures]), 2)
        notes.append(f"Mean over the rows of flip, parsed: {mean}.")
    return Table("Trials", columns, rows, notes)
