"""Tables 1 and 6: every method on the main tasks."""

from __future__ import annotations

from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.measure import TIE_NOTE, measured
from lad_eval.studies.need import Need
from lad_eval.studies.reported import reported_accuracies, reported_figures
from lad_eval.studies.sheet import Cell, Measured, Sheet, Table
from lad_eval.studies.study import Study, absent

METHODS = (
    "vanilla",
    "generate",
    "instruction",
    "cot",
    "self-consistency",
    "sofa",
    "pride",
    "raw-attention",
    "purified-attention",
    "lad",
    "lad-paper",
    "lad-unlabelled",
    "permutation-average",
)


def _needs(family: Family) -> list[Need]:
    return [Need(task, METHODS) for _, _, task in family.main()]


def _accuracy(library: Library, family: Family) -> Sheet:
    shown = family.main()
    columns: list[dict[str, Measured]] = []
    passes: dict[str, list[str]] = {name: [] for name in METHODS}
    for need in _needs(family):
        collection = library[need]
        cells = measured({name: collection.stored(name) for name in METHODS}, seed=library.seed)
        columns.append({name: cell for name, (_, cell) in cells.items()})
        for name in METHODS:
            passes[name].append(collection.passes(name))
    rows: list[tuple[Cell, ...]] = [
        (name, *(column[name] for column in columns), " / ".join(dict.fromkeys(passes[name]))) for name in METHODS
    ]
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in shown), "Passes / query")
    reported = reported_accuracies([library[need] for need in _needs(family)], after=1)
    missing = [] if len(shown) == 4 else [absent(family, "part of N = 4 and 8, random and adversarial")]
    table = Table("Accuracy, with 95 % intervals", headers, tuple(rows), (TIE_NOTE,), reported=reported)
    return Sheet("table1", TABLE1.title, (table,), missing=tuple(missing))


def _everything(library: Library, family: Family) -> Sheet:
    tables = []
    for setting, n, task in family.main():
        collection = library[Need(task)]
        cells = measured({name: collection.stored(name) for name in METHODS}, seed=library.seed)
        rows: list[tuple[Cell, ...]] = []
        for name, (found, accuracy) in cells.items():
            rstd = Measured(found.rstd, found.rstd_low, found.rstd_high)
            consistency = Measured(found.consistency, found.consistency_low, found.consistency_high)
            everywhere = Measured(found.all_correct, found.all_correct_low, found.all_correct_high)
            rows.append((name, accuracy, found.accuracy_std, rstd, consistency, everywhere, found.unparsable))
        headers = ("Method", "Accuracy", "± std", "RStd", "Consistency", "Right in all orders", "Unparsable")
        reported: list[tuple[Cell, ...]] = [
            (f"{name} (reported)", row.accuracy, None, row.rstd, row.consistency, None, None)
            for name, row in reported_figures(collection).items()
        ]
        title = f"{setting}, N = {n} ({found.samples} samples x {found.permutations} orders)"
        tables.append(Table(title, headers, tuple(rows), (TIE_NOTE,), reported=tuple(reported)))
    return Sheet("table6", TABLE6.title, tuple(tables))


TABLE1 = Study("table1", "Accuracy of every method", _needs, _accuracy)
TABLE6 = Study("table6", "Every figure of every method", _needs, _everything)
