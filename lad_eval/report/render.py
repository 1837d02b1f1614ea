"""The rows of runs as tables, in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from lad_eval.errors import UserError, did_you_mean
from lad_eval.metrics import equal
from lad_eval.report.forms import WIDTH_OF_FILES, comma_separated, latex, markdown, terminal
from lad_eval.report.table import EMPTY, SOFT_HYPHEN, Cell, Content, Table, figure, interval, interval_note
from lad_eval.run.folder.rows import COLUMNS, Row
from lad_eval.terminal import counted

if TYPE_CHECKING:
    from rich.text import Text


Format = Literal["rich", "md", "latex", "csv", "json"]
FORMATS: tuple[str, ...] = get_args(Format)

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "Accuracy\n± std",
        "interval": "95 %\ninterval",
        "rstd": "RStd",
        "consistency": f"Con{SOFT_HYPHEN}sis{SOFT_HYPHEN}tency",
        "flip": "Flip",
        "osi": "OSI",
        "ckld": "CKLD",
        "rsd": "RSD",
        "bias-score": "Bias\nscore",
        "d-same": "Differ in\none order",
        "d-cross": "Differ\nacross",
        "delta": "Across\n- in one",
        "unparsable": f"Unpar{SOFT_HYPHEN}sable",
        "passes": "Passes",
        "needs": "Needs",
        "group": "Group",
    }
)
"""Columns of the table of rows by the name that `--columns` takes."""
DEFAULT_COLUMNS = ("accuracy", "interval", "rstd", "consistency", "flip", "osi", "unparsable", "passes")
"""`unparsable` only where a shown row has replies without an answer."""
SET_COLUMNS = ("accuracy", "rstd", "flip", "osi", "passes", "needs", "group")
"""For a named set of methods (`lad_eval.methods.METHOD_SETS`), which read and cost different things."""
_TIED = "† not significantly different from the most accurate method of its run (exact paired test over samples, Holm, 0.05)."
_REPEATS = "`repeats: 2` in the task's definition measures it."
_LIMITED = "* only a part of the task was run (--limit)."


def render(rows: Sequence[Row], form: str, columns: Sequence[str] = ()) -> str:
    """The rows as text in one of `FORMATS`; "rich" without colours, for files.

    Args:
        rows: of runs.
        form: of `FORMATS`; "csv" and "json" have all figures.
        columns: names in `HEADERS`; none: `DEFAULT_COLUMNS`.

    Raises:
        UserError: no such format or column.
    """
    columns = _shown(rows, columns)
    if form == "json":
        return json.dumps([row.as_dict() for row in rows], indent=2, allow_nan=False)
    if form == "csv":
        return comma_separated(Table("", COLUMNS, [list(row.as_dict().values()) for row in rows]))
    if form in ("md", "latex"):
        return "\n\n".join(map(markdown if form == "md" else latex, _tables_by_task(rows, columns)))
    if form == "rich":
        return rich_tables(rows, columns=columns).plain
    raise UserError(f"Unknown format {form!r}. Choose from {', '.join(FORMATS)}.")


def check_columns(columns: Sequence[str]) -> None:
    """Refuses a column that does not exist.

    Raises:
        UserError: it is not a name in `HEADERS`.
    """
    if unknown := [name for name in columns if name not in HEADERS]:
        raise UserError(f"Unknown column {unknown[0]!r}. Choose from {', '.join(HEADERS)}.{did_you_mean(unknown[0], HEADERS)}")


def _shown(rows: Sequence[Row], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns to show."""
    check_columns(columns)
    if columns:
        return tuple(dict.fromkeys(columns))
    return tuple(name for name in DEFAULT_COLUMNS if name != "unparsable" or any(row.unparsable for row in rows))


def rich_tables(rows: Sequence[Row], width: int = WIDTH_OF_FILES, columns: Sequence[str] = ()) -> Text:
    """One block per task and model, for a terminal of `width` characters; `columns` as for `render`."""
    from rich.text import Text

    columns = _shown(rows, columns)
    tables = [
        Table(
            " · ".join([block[0].task, block[0].model, *_calibration(block), _questions_in_words(block)]),
            ["Method", *(HEADERS[name] for name in columns)],
            [_cells(row, block, columns) for row in block],
        )
        for block in _blocks(rows, by_model=True)
    ]
    return Text("\n\n").join(terminal(table, width) for table in _with_notes(tables, rows, columns))


def _tables_by_task(rows: Sequence[Row], columns: Sequence[str]) -> list[Table]:
    """One table per task, of all models; the best of each model is marked."""
    runs = _blocks(rows, by_model=True)
    tables = []
    for block in _blocks(rows, by_model=False):
        transferred = any(row.calibrated_on for row in block)
        origin = ["Calibrated on"] if transferred else []
        cells: list[list[Content]] = [
            [
                row.model,
                *_cells(row, next(run for run in runs if row in run), columns),
                Cell(row.samples, _samples(row)),
                *([row.calibrated_on] if transferred else []),
            ]
            for row in block
        ]
        headers = [HEADERS[name] for name in columns]
        tables.append(Table(block[0].task, ["Model", "Method", *headers, "Samples", *origin], cells))
    return _with_notes(tables, rows, columns)


def _with_notes(tables: Sequence[Table], rows: Sequence[Row], columns: Sequence[str]) -> list[Table]:
    """Adds to the last table, once each, the limits, uninformative intervals, what is not known, and the runs' own notes."""
    tasks_by_note: dict[str, dict[str, None]] = {}
    for block in _blocks(rows, by_model=True):
        samples = [row.samples for row in block if row.samples is not None]
        ends = [(row.accuracy_low, row.accuracy_high) for row in block if row.accuracy_low is not None]
        remark = interval_note(min(samples), ends) if samples else None
        for note in (*filter(None, [remark]), *(note for row in block for note in row.notes)):
            tasks_by_note.setdefault(note, {})[block[0].task] = None
    marks = [*([_TIED] if any(row.tied for row in rows) else []), *([_LIMITED] if any(row.limited for row in rows) else [])]
    once = list(dict.fromkeys(row.method for row in rows if row.d_same is None and row.d_cross is not None))
    if once and not {"d-same", "delta"}.isdisjoint(columns):
        marks.append(
            f"{', '.join(once)}: each order was answered once, so how much answers differ within one is not known; {_REPEATS}"
        )
    notes = [*marks, *(f"{', '.join(tasks)}: {note}" for note, tasks in tasks_by_note.items())]
    return [*tables[:-1], *(replace(table, notes=notes) for table in tables[-1:])]


def _calibration(block: Sequence[Row]) -> list[str]:
    return [f"calibrated on {block[0].calibrated_on}"] if block[0].calibrated_on else []


def _blocks(rows: Sequence[Row], *, by_model: bool) -> list[list[Row]]:
    """Rows grouped by task (and model, and origin of calibration), in order of first appearance."""
    tasks = {row.task: place for place, row in reversed(list(enumerate(rows)))}
    models = {_who(row): place for place, row in reversed(list(enumerate(rows)))}

    def block_of(row: Row) -> tuple[int, int]:
        return tasks[row.task], models[_who(row)] if by_model else 0

    return [list(block) for _, block in groupby(sorted(rows, key=block_of), key=block_of)]


def _who(row: Row) -> tuple[str, str | None]:
    return row.model, row.calibrated_on


def _cells(row: Row, run: Sequence[Row], columns: Sequence[str]) -> list[Content]:
    """The cells of a row; the most accurate of a run is marked, unless it is the only one."""
    best = max((other.accuracy for other in run if other.accuracy is not None), default=None)
    deviation = "" if row.accuracy_std is None else f" ± {row.accuracy_std:.1f}"
    accuracy = figure(row.accuracy)
    passes = row.forward_passes
    cells: dict[str, Content] = {
        "accuracy": replace(
            accuracy,
            text=f"{accuracy.text}{deviation}",
            best=len(run) > 1 and best is not None and row.accuracy is not None and equal(row.accuracy, best),
            tied=row.tied,
        ),
        "interval": Cell(None, interval(row.accuracy_low, row.accuracy_high) or EMPTY),
        "rstd": row.rstd,
        "consistency": row.consistency,
        "flip": row.flip,
        "osi": figure(row.osi, digits=2),
        "ckld": figure(row.ckld, digits=3),
        "rsd": figure(row.rsd, digits=2),
        "bias-score": figure(row.bias_score, digits=2),
        "d-same": row.d_same,
        "d-cross": row.d_cross,
        "delta": row.delta,
        "unparsable": row.unparsable,
        "passes": Cell(passes, EMPTY if passes is None else f"{passes:{'.0f' if passes >= 1000 else '.3g'}}"),
        "needs": row.needs,
        "group": row.group,
    }
    return [row.method, *(cells[name] for name in columns)]


def _samples(row: Row) -> str:
    if row.samples is None:
        return EMPTY
    return f"{row.samples}{'*' if row.limited else ''} x {row.permutations}"


def _questions_in_words(block: Sequence[Row]) -> str:
    """Samples and orders that the block's rows were measured on; rows of different sizes are described separately."""
    if all(row.samples is None for row in block):
        return "published elsewhere"
    return ", ".join(dict.fromkeys(map(_samples_in_words, block)))


def _samples_in_words(row: Row) -> str:
    if row.samples is None or row.permutations is None:
        return EMPTY
    noun = "sample" if row.samples == 1 else "samples"
    return f"{row.samples}{'*' if row.limited else ''} {noun} x {counted(row.permutations, 'order')}"
