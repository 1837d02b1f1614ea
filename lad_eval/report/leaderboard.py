"""The leaderboard of all finished runs; runs that must not be compared in one column are refused, or marked."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError
from lad_eval.metrics import Significance, significance
from lad_eval.metrics.predictions import Bools
from lad_eval.models.source import display_name
from lad_eval.report.leaderboard_forms import Board, BoardLine, TaskFigures, check_sort, in_order
from lad_eval.run.folder.files import read_spec
from lad_eval.run.folder.rows import reported_rows, rows_of
from lad_eval.run.folder.stored import StoredRun, finished_runs, none_in
from lad_eval.tasks.registry import tasks_in_order

SETUP = ("dtype", "attention implementation", "task version", "task definition", "data")


@dataclass(frozen=True)
class Filters:
    """Globs that select what is shown; without any, everything is."""

    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlacedRun:
    """A finished run and what distinguishes it from others.

    Attributes:
        label: the model's name on the board.
        setup: values of SETUP.
    """

    run: StoredRun
    label: str
    setup: Mapping[str, str]

    @property
    def model(self) -> str:
        return str(self.run.metrics["model"])

    @property
    def task(self) -> str:
        return str(self.run.metrics["task"])

    @property
    def hash(self) -> str:
        return str(self.run.metrics["run"])


def gather_board(
    out: Path,
    filters: Filters | None = None,
    *,
    sort: str = "accuracy",
    allow_mixed: bool = False,
    reported: bool = False,
    studies: bool = False,
) -> Board:
    """The board of every finished run under `out`.

    Args:
        out: the results folder.
        filters: what to show; tests and refusals cover only these.
        sort: see `report.leaderboard_forms.in_order`.
        allow_mixed: show runs of different dtypes, attention implementations or task versions in one column, marked.
        studies: show the runs of studies too.
        reported: add, below the runs, published results of the same models from the tasks' definitions.

    Raises:
        UserError: there is no finished run, a filter matches nothing, the sort is unknown, a file cannot be read, or a column
            would mix runs that must not be compared.
    """
    chosen = filters or Filters()
    wanted = [display_name(glob) for glob in chosen.models]  # all spellings of a folder are the same folder
    runs = [_placed(run) for run in finished_runs(out, studies=studies, with_predictions=True)]
    if not runs:
        raise UserError(none_in(out, studies=studies))
    runs = _with_distinct_labels(sorted(runs, key=lambda placed: (placed.task, placed.label, placed.hash)))
    runs = [placed for placed in runs if _fits(chosen.tasks, placed.task) and _fits(wanted, *_names(placed))]
    methods = {name for placed in runs for name in placed.run.methods if _fits(chosen.methods, name)}
    if not runs or not methods:
        raise UserError(
            f"No finished run in {out} fits {_filters_in_words(chosen)}; `lad-eval leaderboard` without them shows all."
        )
    tasks = tuple(tasks_in_order({placed.task for placed in runs}))
    check_sort(sort, tasks)
    marks = _marks(runs, tasks, allow_mixed=allow_mixed)
    lines = _lines(runs, methods, marks)
    theirs = _reported(runs, methods) if reported else []
    notes = dict.fromkeys(note for placed in runs for note in placed.run.metrics.get("notes") or ())
    letters = dict(sorted({mark for mark in marks.values() if mark[0]}))
    return Board(tasks, (*in_order(lines, tasks, sort), *in_order(theirs, tasks, sort)), letters, tuple(notes))


def _placed(run: StoredRun) -> PlacedRun:
    spec, metrics = read_spec(run.path), run.metrics
    digests, definition = spec.get("digests", {}), spec.get("definition", {})
    setup = (
        str(metrics["dtype"]),
        str(metrics["attention_implementation"]),
        f"version {definition.get('version')}",
        f"definition {_digest(definition)[:6]}",
        f"data {str(digests.get('data'))[:6]}",
    )
    limit, elsewhere = metrics["limit"], _transferred_from(metrics)
    remarks = [f"first {limit}"] if limit is not None else []
    remarks += [f"calibrated on {elsewhere}"] if elsewhere else []
    label = metrics["model"] + (f" ({', '.join(remarks)})" if remarks else "")
    return PlacedRun(run, label, dict(zip(SETUP, setup, strict=True)))


def _digest(definition: Mapping[str, Any]) -> str:
    """Digest of what determines the questions; the label says which task the calibration samples come from."""
    defining = {key: value for key, value in definition.items() if key not in ("name", "version")}
    defining["calibration"] = {key: value for key, value in (defining.get("calibration") or {}).items() if key != "on"}
    return hashlib.sha256(json.dumps(defining, sort_keys=True).encode()).hexdigest()


def _fits(globs: Sequence[str], *names: str) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs for name in names)


def _names(run: PlacedRun) -> list[str]:
    """The names by which a run's model can be selected: its label, its name, and its name with one part of its setup."""
    return [run.label, run.model, *(_tagged(run.model, [run.setup[part]]) for part in SETUP[:3])]


def _filters_in_words(filters: Filters) -> str:
    named = {"--model": filters.models, "--methods": filters.methods, "--tasks": filters.tasks}
    return " ".join(f"{option} {','.join(globs)}" for option, globs in named.items() if globs) or "anything"


def _with_distinct_labels(runs: Sequence[PlacedRun]) -> list[PlacedRun]:
    """Distinguishes runs with the same label and task: by the differences of their setup, else by their hashes."""
    groups: dict[str, list[PlacedRun]] = defaultdict(list)
    for run in runs:
        groups[run.label].append(run)
    labelled: dict[int, PlacedRun] = {}
    for group in groups.values():
        if len({run.task for run in group}) < len(group):
            varying = [part for part in SETUP[:3] if len({run.setup[part] for run in group}) > 1]
            group = [replace(f, label=_tagged(f.label, [f.setup[part] for part in varying])) for f in group]
        places = [(run.task, run.label) for run in group]
        for run, place in zip(group, places, strict=True):
            alike = places.count(place) > 1
            labelled[id(run.run)] = replace(run, label=_tagged(run.label, [run.hash[:6]])) if alike else run
    return [labelled[id(run.run)] for run in runs]


def _tagged(label: str, tags: Sequence[str]) -> str:
    return f"{label} [{', '.join(tags)}]" if tags else label


def _marks(runs: Sequence[PlacedRun], tasks: Sequence[str], *, allow_mixed: bool) -> dict[str, tuple[str, str]]:
    """Letter and its meaning by run hash, if a column is mixed; else ("", "")."""
    texts: dict[str, str] = {}
    for task in tasks:
        column = [placed for placed in runs if placed.task == task]
        mixed = [part for part in SETUP if len({placed.setup[part] for placed in column}) > 1]
        if mixed and not allow_mixed:
            values = "; ".join(f"{part}: {', '.join(sorted({placed.setup[part] for placed in column}))}" for part in mixed)
            raise UserError(
                f"{task} was run in ways that must not be compared in one column ({values}); choose with --model or --tasks, or "
                f"show them together, marked, with --allow-mixed."
            )
        texts.update({placed.hash: ", ".join(placed.setup[part] for part in mixed) for placed in column})
    letters = {text: _letter(place) for place, text in enumerate(sorted({text for text in texts.values() if text}))}
    return {run: (letters.get(text, ""), text) for run, text in texts.items()}


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"{_letter(place // 26 - 1)}{chr(ord('a') + place % 26)}"


def _lines(runs: Sequence[PlacedRun], methods: set[str], marks: Mapping[str, tuple[str, str]]) -> list[BoardLine]:
    tested = _tested(runs, methods)
    cells: dict[tuple[str, str], dict[str, TaskFigures]] = defaultdict(dict)
    for placed in runs:
        for row in rows_of(placed.run.metrics):
            if row.method in methods:
                cells[placed.label, row.method][placed.task] = TaskFigures(
                    accuracy=row.accuracy,
                    rstd=row.rstd,
                    consistency=row.consistency,
                    accuracy_low=row.accuracy_low,
                    accuracy_high=row.accuracy_high,
                    samples=row.samples,
                    permutations=row.permutations,
                    unparsable=row.unparsable,
                    passes=row.forward_passes,
                    position_p=placed.run.metrics["methods"][row.method].get("position_test", {}).get("p_value"),
                    significance=tested.get((placed.hash, row.method)),
                    setup=placed.setup,
                    mark=marks[placed.hash][0],
                    run=placed.hash,
                )
    of = {placed.label: placed for placed in runs}
    return [
        BoardLine(
            label,
            method,
            by_task,
            name=of[label].model,
            limit=of[label].run.metrics["limit"],
            calibrated_on=_transferred_from(of[label].run.metrics),
        )
        for (label, method), by_task in cells.items()
    ]


def _transferred_from(metrics: Mapping[str, Any]) -> str | None:
    calibration = metrics.get("calibration") or {}
    return str(calibration["task"]) if calibration.get("transferred") else None


def _tested(runs: Sequence[PlacedRun], methods: set[str]) -> dict[tuple[str, str], Significance]:
    """Significance by run hash and method, against the best of those with equal setup, task, samples and orders."""
    groups: dict[Any, dict[tuple[str, str], Bools]] = defaultdict(dict)
    for placed in runs:
        shown = methods.intersection(placed.run.methods)
        for method, (questions, correct) in _outcomes(placed.run, shown).items():
            groups[placed.task, tuple(placed.setup.values()), questions][placed.hash, method] = correct
    found_out: dict[tuple[str, str], Significance] = {}
    for group in groups.values():
        if len(group) > 1:
            found_out.update(significance(group))
    return found_out


def _outcomes(run: StoredRun, methods: set[str]) -> dict[str, tuple[Any, Bools]]:
    """By method: the questions, which must be equal for two to be paired, and Bool[S, T], in the order of the run's methods."""
    grids = {name: run.predictions_of(name).grid for name in run.methods if name in methods}
    return {
        name: ((tuple(grid.sample_id.tolist()), grid.perm.tobytes(), grid.gold.tobytes()), grid.correct)
        for name, grid in grids.items()
    }


def _reported(runs: Sequence[PlacedRun], methods: set[str]) -> list[BoardLine]:
    cells: dict[tuple[str, str], dict[str, TaskFigures]] = defaultdict(dict)
    for placed in runs:
        for row in reported_rows(placed.run.metrics):
            if row.method in methods:
                cells[row.model, row.method][row.task] = TaskFigures(row.accuracy, row.rstd, row.consistency)
    return [BoardLine(model, method, by_task, reported=True) for (model, method), by_task in cells.items()]
