"""Tables 1 and 6: every method on the main tasks, and how each compares with the plain answer."""

from __future__ import annotations

from lad_eval.metrics import Predictions, compare, position_test
from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.measure import mark_notes, measured
from lad_eval.studies.need import Need
from lad_eval.studies.render import plain
from lad_eval.studies.reported import reported_accuracies, reported_figures
from lad_eval.studies.sheet import Cell, Measured, PValue, Sheet, Table
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
PLAIN = "vanilla"
POSITION_NOTE = 'Position p: permutation test over samples of "position does not matter".'
PAIRED_NOTE = (
    "Differences with paired 95 % intervals; below 0 in RStd is less bias. Only method, only vanilla: samples that only "
    "one of the two gets right in all orders, and McNemar's exact test of them, Holm's correction over the table. "
    "Detectable: the smallest true difference in accuracy that so many samples find with chance 0.8 (5 %, before correction)."
)


def _needs(family: Family) -> list[Need]:
    return [Need(task, METHODS) for _, _, task in family.main()]


def _accuracy(library: Library, family: Family) -> Sheet:
    shown = family.main()
    columns: list[dict[str, Measured]] = []
    answers: list[dict[str, Predictions]] = []
    passes: dict[str, list[str]] = {name: [] for name in METHODS}
    for need in _needs(family):
        collection = library[need]
        answers.append({name: collection.stored(name) for name in METHODS})
        cells = measured(answers[-1], seed=library.seed)
        columns.append({name: cell for name, (_, cell) in cells.items()})
        for name in METHODS:
            passes[name].append(collection.passes(name))
    rows: list[tuple[Cell, ...]] = [
        (name, *(column[name] for column in columns), " / ".join(dict.fromkeys(passes[name]))) for name in METHODS
    ]
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in shown), "Passes / query")
    reported = reported_accuracies([library[need] for need in _needs(family)], after=1)
    missing = [] if len(shown) == 4 else [absent(family, "part of N = 4 and 8, random and adversarial")]
    notes = (*mark_notes(answers), _position_note(answers, seed=library.seed))
    table = Table("Accuracy, with 95 % intervals", headers, tuple(rows), notes, reported=reported)
    return Sheet("table1", TABLE1.title, (table,), missing=tuple(missing))


def _position_note(answers: list[dict[str, Predictions]], *, seed: int) -> str:
    tests = (plain(PValue(position_test(column[PLAIN].grid, seed=seed).p_value), 0) for column in answers)
    return f'Permutation test of "position does not matter" for {PLAIN}, p by column: {" / ".join(tests)}.'


def _everything(library: Library, family: Family) -> Sheet:
    tables = []
    for setting, n, task in family.main():
        collection = library[Need(task)]
        answers = {name: collection.stored(name) for name in METHODS}
        cells = measured(answers, seed=library.seed)
        rows: list[tuple[Cell, ...]] = []
        for name, (found, accuracy) in cells.items():
            rstd = Measured(found.rstd, found.rstd_low, found.rstd_high)
            consistency = Measured(found.consistency, found.consistency_low, found.consistency_high)
            everywhere = Measured(found.all_correct, found.all_correct_low, found.all_correct_high)
            position = PValue(found.position_p)
            rows.append((name, accuracy, found.accuracy_std, rstd, consistency, everywhere, found.unparsable, position))
        headers = ("Method", "Accuracy", "± std", "RStd", "Consistency", "Right in all orders", "Unparsable", "Position p")
        reported: list[tuple[Cell, ...]] = [
            (f"{name} (reported)", row.accuracy, None, row.rstd, row.consistency, None, None, None)
            for name, row in reported_figures(collection).items()
        ]
        title = f"{setting}, N = {n} ({found.samples} samples x {found.permutations} orders)"
        notes = (*mark_notes([answers]), POSITION_NOTE)
        tables.append(Table(title, headers, tuple(rows), notes, reported=tuple(reported)))
        tables.append(against_plain(f"{setting}, N = {n}: each method minus {PLAIN}", answers, seed=library.seed))
    return Sheet("table6", TABLE6.title, tuple(tables))


def against_plain(title: str, answers: dict[str, Predictions], *, seed: int) -> Table:
    """Every method minus the plain answer: paired differences, McNemar's test, what could be detected."""
    rows: list[tuple[Cell, ...]] = [
        (
            pair.first,
            *(Measured(*figure) for figure in (pair.accuracy, pair.rstd, pair.consistency)),
            pair.only_first,
            pair.only_second,
            PValue(pair.p_holm),
            pair.detectable,
        )
        for pair in compare(answers, against=PLAIN, seed=seed)
    ]
    headers = ("Method", "Accuracy", "RStd", "Consistency", "Only method", f"Only {PLAIN}", "McNemar p (Holm)", "Detectable")
    return Table(title, headers, tuple(rows), (PAIRED_NOTE,))


TABLE1 = Study("table1", "Accuracy of every method", _needs, _accuracy)
TABLE6 = Study("table6", "Every figure of every method", _needs, _everything)
