"""Table 5: the subsets of MMIU."""

from __future__ import annotations

from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.measure import mark_notes, measured
from lad_eval.studies.need import Need
from lad_eval.studies.reported import reported_accuracies
from lad_eval.studies.sheet import Cell, Measured, Sheet, Table
from lad_eval.studies.study import Study
from lad_eval.tasks.registry import groups

METHODS = ("vanilla", "pride", "purified-attention", "lad")


def _tasks(family: Family) -> list[str]:
    """MMIU belongs to the paper's own data; a model that is tried on drawn scenes is not asked it."""
    return groups().get("mmiu", []) if family.name == "coco" else []


def _needs(family: Family) -> list[Need]:
    return [Need(task, METHODS) for task in _tasks(family)]


def _sheet(library: Library, family: Family) -> Sheet:
    needs = _needs(family)
    if not needs:
        return Sheet("table5", TABLE5.title, missing=("MMIU: run with --family coco, after `lad-eval data prepare mmiu`.",))
    columns: list[dict[str, Measured]] = []
    answers = [{name: library[need].stored(name) for name in METHODS} for need in needs]
    for column in answers:
        cells = measured(column, seed=library.seed)
        columns.append({name: cell for name, (_, cell) in cells.items()})
    rows: list[tuple[Cell, ...]] = [(name, *(cells[name] for cells in columns)) for name in METHODS]
    headers = ("Method", *(need.task.removeprefix("mmiu_") for need in needs))
    notes = tuple(note for need in needs for note in library[need].notes)
    reported = reported_accuracies([library[need] for need in needs])
    table = Table("Accuracy, with 95 % intervals", headers, tuple(rows), (*mark_notes(answers), *notes), reported=reported)
    return Sheet("table5", TABLE5.title, (table,))


TABLE5 = Study("table5", "MMIU", _needs, _sheet)
