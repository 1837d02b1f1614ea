"""Table 3: does a calibration transfer to another task?"""

from __future__ import annotations

import numpy as np

from lad_eval.methods import make_evidence_method
from lad_eval.metrics import Estimate, Predictions, compare, holm, paired_test, summarise
from lad_eval.report.table import Content, Table, figure, p_value
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.lad.family import SETTINGS, TaskFamily
from lad_eval.studies.lad.part import StudyData, StudyPart
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import StudyRun
from lad_eval.studies.tables import accuracy

METHODS = ("pride", "lad")
NOTES = (
    "Samples that were calibrated on are left out of the evaluation.",
    "Lost: accuracy with the task's own calibration minus that with the other, on the same samples, with its paired 95 % "
    "interval; p of the exact paired test over samples, Holm's correction over the table.",
)


def _tasks(family: TaskFamily) -> list[tuple[int, str, Requirement]]:
    """(N, name, requirement) of every task between which a calibration can be transferred."""
    methods = ("vanilla", *METHODS)
    of_family = [
        (n, f"{family.name} {setting}", Requirement(family.tasks[setting, n], methods))
        for n in (4, 8)
        for setting in SETTINGS
        if family.has(setting, n)
    ]
    other = [
        (n, f"{task.split('_')[0]} {setting}", Requirement(task, methods, optional=True))
        for (setting, n), task in family.transfer.items()
        if n in (4, 8)
    ]
    return [*of_family, *other]


def _transfer_requirements(family: TaskFamily) -> list[Requirement]:
    return [requirement for _, _, requirement in _tasks(family)]


def _transfer_document(data: StudyData) -> StudyDocument:
    tasks = _tasks(data.family)
    tables = []
    for n in sorted({n for n, _, _ in tasks}):
        runs = {name: data.runs[requirement] for m, name, requirement in tasks if m == n and data.runs.has(requirement)}
        tables.append(_table(n, runs, seed=data.runs.seed))
    missing = () if data.family.transfer else (data.family.lacks("transfer from and to another data set"),)
    return StudyDocument("table3", TABLE3.title, tuple(tables), missing=missing)


def _table(n: int, runs: dict[str, StudyRun], *, seed: int) -> Table:
    rows: list[tuple[Content, ...]] = []
    tested: list[float] = []
    lost: list[list[Estimate | None]] = []
    for target_name, target in runs.items():
        vanilla = accuracy(summarise(target.decide(make_evidence_method("vanilla")), seed=seed))
        calibrated_here = {name: _carried(name, target, target) for name in METHODS}
        for source_name, source in runs.items():
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


def _carried(method: str, target: StudyRun, source: StudyRun) -> Predictions:
    """Predictions on the target with the source's calibration; samples that are in both are not evaluated."""
    learned = source.calibration
    rows = target.evaluated
    evaluable = ~np.isin(rows.sample_id, learned.sample_id)
    evaluated = rows.select(np.flatnonzero(evaluable))
    position = make_evidence_method(method).calibrate(learned).predict(evaluated)
    permutation = np.asarray(target.plan_index.permutation_index)[evaluable]
    return Predictions.of(evaluated, position, permutation)


TABLE3 = StudyPart("table3", "Transfer of the calibration", _transfer_requirements, _transfer_document)
