"""Table 8: LAD against an intervention on the attention and against averaging over displayed orders."""

from __future__ import annotations

from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.measure import mark_notes, measured
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Cell, Sheet, Table
from lad_eval.studies.study import Study

METHODS = ("vanilla", "sofa", "permutation-average", "lad", "sofa+lad")


def _needs(family: Family) -> list[Need]:
    return [Need(task, METHODS) for _, _, task in family.main()]


def _sheet(library: Library, family: Family) -> Sheet:
    needs = _needs(family)
    answers = [{name: library[need].stored(name) for name in METHODS} for need in needs]
    found = [measured(column, seed=library.seed) for column in answers]
    rows: list[tuple[Cell, ...]] = []
    for name in METHODS:
        passes = dict.fromkeys(library[need].passes(name) for need in needs)
        rows.append((name, *(column[name][1] for column in found), " / ".join(passes)))
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in family.main()), "Passes / query")
    table = Table("Accuracy, with 95 % intervals", headers, tuple(rows), mark_notes(answers))
    return Sheet("table8", TABLE8.title, (table,))


TABLE8 = Study("table8", "Intervention and permutation averaging", _needs, _sheet)
