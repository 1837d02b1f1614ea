"""Table 3: does a calibration carry over to another task?"""

from __future__ import annotations

import numpy as np

from lad_eval.methods import make_method
from lad_eval.metrics import Predictions, summarise
from lad_eval.studies.family import SETTINGS, Family
from lad_eval.studies.library import Collection, Library
from lad_eval.studies.measure import accuracy
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Cell, Sheet, Table
from lad_eval.studies.study import Study, absent

METHODS = ("pride", "lad")


def _tasks(family: Family) -> list[tuple[int, str, str]]:
    """(N, name, task) of everything that can lend and borrow, by N."""
    own = [
        (n, f"{family.name} {setting}", family.tasks[setting, n])
        for n in (4, 8)
        for setting in SETTINGS
        if family.has(setting, n)
    ]
    other = [(n, f"{task.split('_')[0]} {setting}", task) for (setting, n), task in family.transfer.items() if n in (4, 8)]
    return [*own, *other]


def _needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", *METHODS)) for _, _, task in _tasks(family)]


def _sheet(library: Library, family: Family) -> Sheet:
    tables = []
    tasks = [(n, name, Need(task)) for n, name, task in _tasks(family)]
    for n in sorted({n for n, _, _ in tasks}):
        rows: list[tuple[Cell, ...]] = []
        alike = [(name, library[need]) for m, name, need in tasks if m == n and library.has(need)]
        for target_name, target in alike:
            vanilla = accuracy(summarise(target.decided(make_method("vanilla")), seed=library.seed))
            for source_name, source in alike:
                cells = [accuracy(summarise(_carried(name, target, source), seed=library.seed)) for name in METHODS]
                rows.append((target_name, source_name + (" (own)" if source is target else ""), vanilla, *cells))
        headers = ("Evaluated on", "Calibrated on", "vanilla", *METHODS)
        tables.append(
            Table(f"N = {n}", headers, tuple(rows), ("Samples that were calibrated on are left out of the evaluation.",))
        )
    missing = () if family.transfer else (absent(family, "transfer from and to another data set"),)
    return Sheet("table3", TABLE3.title, tuple(tables), missing=missing)


def _carried(method: str, target: Collection, source: Collection) -> Predictions:
    """Answers on the target with the source's calibration; samples in both are not evaluated."""
    learned = source.calibration
    rows = target.evaluated
    kept = ~np.isin(rows.sample_id, learned.sample_id)
    evaluated = rows.select(np.flatnonzero(kept))
    position = make_method(method).calibrate(learned).predict(evaluated)
    permutation = np.asarray(target.asked.permutation_index)[kept]
    return Predictions(evaluated.sample_id, permutation, evaluated.gold_position, position, evaluated.perm)


TABLE3 = Study("table3", "Transfer of the calibration", _needs, _sheet)
