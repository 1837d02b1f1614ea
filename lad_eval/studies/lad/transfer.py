"""Table 3: does a calibration carry over to another task?"""

from __future__ import annotations

import numpy as np

from lad_eval.methods import make_method
from lad_eval.metrics import Estimate, Predictions, compare, holm, paired_test, summarise
from lad_eval.report.sheet import Sheet, accuracy
from lad_eval.report.table import Content, Table, figure, p_value
from lad_eval.studies.lad.library import Collection, Library, Study, absent
from lad_eval.studies.lad.need import SETTINGS, Family, Need

METHODS = ("pride", "lad")
NOTES = (
    "Samples that were calibrated on are left out of the evaluation.",
    "Lost: accuracy with the task's own calibration minus that with the other, on the same samples, with its paired 95 % "
    "interval; p of the exact paired test over samples, Holm's correction over the table.",
)


def _tasks(family: Family) -> list[tuple[int, str, Need]]:
    """(N, name, need) of everything that can lend and borrow."""
    methods = ("vanilla", *METHODS)
    of_family = [
        (n, f"{family.name} {setting}", Need(family.tasks[setting, n], methods))
        for n in (4, 8)
        for setting in SETTINGS
        if family.has(setting, n)
    ]
    other = [
        (n, f"{task.split('_')[0]} {setting}", Need(task, methods, optional=True))
        for (setting, n), task in family.transfer.items()
        if n in (4, 8)
    ]
    return [*of_family, *other]


def _needs(family: Family) -> list[Need]:
    return [need for _, _, need in _tasks(family)]


def _sheet(library: Library, family: Family) -> Sheet:
    tasks = _tasks(family)
    tables = []
    for n in sorted({n for n, _, _ in tasks}):
        alike = {name: library[need] for m, name, need in tasks if m == n and library.has(need)}
        tables.append(_table(n, alike, seed=library.seed))
    missing = () if family.transfer else (absent(family, "transfer from and to another data set"),)
    return Sheet("table3", TABLE3.title, tuple(tables), missing=missing)


def _table(n: int, alike: dict[str, Collection], *, seed: int) -> Table:
    rows: list[tuple[Content, ...]] = []
    tested: list[float] = []
    lost: list[list[Estimate | None]] = []
    for target_name, target in alike.items():
        vanilla = accuracy(summarise(target.decided(make_method("vanilla")), seed=seed))
        calibrated_here = {name: _carried(name, target, target) for name in METHODS}
        for source_name, source in alike.items():
            answers = calibrated_here if source is target else {name: _carried(name, target, source) for name in METHODS}
            cells = [accuracy(summarise(answers[name], seed=seed)) for name in METHODS]
            rows.append((target_name, source_name + (" (own)" if source is target else ""), vanilla, *cells))
            lost.append([])
            for name in METHODS:
                if source is target:
                    lost[-1].append(None)
                    continue
                pair = {"own": calibrated_here[name].only(answers[name].sample_id), "other": answers[name]}
                lost[-1].append(compare(pair, seed=seed)[0].accuracy)
                tested.append(paired_test(pair["own"].grid.correct, pair["other"].grid.correct))
    corrected = iter(holm(tested))
    for i, estimates in enumerate(lost):
        for estimate in estimates:
            shown = (None, None) if estimate is None else (figure(*estimate), p_value(float(next(corrected))))
            rows[i] = (*rows[i], *shown)
    headers = (
        "Evaluated on",
        "Calibrated on",
        "vanilla",
        *METHODS,
        *(part for m in METHODS for part in (f"{m} lost", f"{m} p (Holm)")),
    )
    return Table(f"N = {n}", headers, tuple(rows), NOTES)


def _carried(method: str, target: Collection, source: Collection) -> Predictions:
    """Answers on the target with the source's calibration; samples in both are not evaluated."""
    learned = source.calibration
    rows = target.evaluated
    evaluable = ~np.isin(rows.sample_id, learned.sample_id)
    evaluated = rows.select(np.flatnonzero(evaluable))
    position = make_method(method).calibrate(learned).predict(evaluated)
    permutation = np.asarray(target.asked.permutation_index)[evaluable]
    return Predictions.of(evaluated, position, permutation)


TABLE3 = Study("table3", "Transfer of the calibration", _needs, _sheet)
