"""Table 2, as a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lad_eval.methods import make_method
from lad_eval.methods.readout import layer_range
from lad_eval.metrics import Predictions, compare, position_test
from lad_eval.report.sheet import Sheet, mark_notes, measured
from lad_eval.report.table import Content, Table, figure, p_value
from lad_eval.run.rows import Row, reported_rows
from lad_eval.studies.lad.library import Collection, Library, Study, absent
from lad_eval.studies.lad.need import Family, Need
from lad_eval.tasks.registry import groups

SIZES = (4, 8, 12)


def _needs(family: Family) -> list[Need]:
    return []


def _sheet(library: Library, family: Family) -> Sheet:
    if not library.costs:
        return Sheet("table2", TABLE2.title, missing=("time and memory are measured on the model: run without --stored.",))
    rows: list[tuple[Content, ...]] = [
        (
            f"N = {cost.candidates}",
            cost.kind,
            figure(1000 * cost.seconds, digits=0),
            figure(cost.ratio, digits=2),
            figure(None if cost.peak_bytes is None else cost.peak_bytes / 2**30, digits=2),
        )
        for cost in library.costs
    ]
    notes = [
        "vanilla: one greedy token by `generate`; with evidence: what every method with one pass decides from. "
        "Medians of rounds on pictures not seen before, taking turns; the preparation of the images is counted in.",
    ]
    if all(cost.peak_bytes is None for cost in library.costs):
        notes.append("Memory is measured on a GPU only; docs/performance.md has the CPU's.")
    headers = ("Images", "Answer", "ms / query", "Time by vanilla", "Peak GiB")
    return Sheet("table2", TABLE2.title, (Table(TABLE2.title, headers, rows, notes),))


TABLE2 = Study("table2", "Time and memory", _needs, _sheet)


TOP_K = (1, 2, 3, 4, 8)

Variant = tuple[str, str, dict[str, Any]]


def _ablation_needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", "lad")) for _, _, task in family.main()]


def _parts(depth: int) -> dict[str, list[Variant]]:
    """What is changed, by part: (name, method, parameters)."""
    first, last = layer_range("upper", depth)
    return {
        "Readout": [
            ("logits (vanilla)", "vanilla", {}),
            ("attention (raw)", "raw-attention", {}),
            ("attention without its prior (purified)", "purified-attention", {}),
            ("logits without the mean bias (PriDe)", "pride", {}),
            ("logits without the expected bias (LAD)", "lad", {}),
        ],
        "Attention prior": [("taken out", "lad", {}), ("left in", "lad", {"attention_prior": "none"})],
        "Layers": [
            ("2 strongest of the upper layers", "lad", {}),
            ("2 strongest of all layers", "lad", {"layers": "all"}),
            ("last 2 layers", "lad", {"layers": (max(0, depth - 2), depth - 1)}),
            ("all layers", "lad", {"layers": "all", "top_k": depth}),
        ],
        "K strongest of the upper layers": [(f"K = {k}", "lad", {"top_k": k}) for k in TOP_K if k <= last - first + 1],
        "Form": [
            ("released code", "lad", {}),
            ("as printed", "lad-paper", {}),
            ("released code, without labels", "lad-unlabelled", {}),
            ("released code, spans without delimiters", "lad", {"span": "image"}),
            ("released code, mean of log attention", "lad", {"attention_mean": "log"}),
            ("released code, bias as a mean of probabilities", "lad", {"bias_mean": "probability"}),
            ("released code, bias mixed as probabilities", "lad", {"mixture": "probability"}),
        ],
    }


def _by_method(title: str, columns: Sequence[str], answers: Sequence[Mapping[str, Predictions]], *, seed: int) -> Table:
    """Accuracies with their marks: a row a method, and for each column the answers that it is `measured` from."""
    cells = [measured(column, seed=seed) for column in answers]
    return Table(title, columns, [(name, *(column[name][1] for column in cells)) for name in answers[0]], mark_notes(answers))


def _with_passes(table: Table, collections: Sequence[Collection]) -> Table:
    """The table with one more column: what an answer of each method costs."""
    passes = [" / ".join(dict.fromkeys(c.passes(str(row[0].value)) for c in collections)) for row in table.cells]
    rows: list[tuple[Content, ...]] = [(*row, text) for row, text in zip(table.cells, passes, strict=True)]
    return replace(table, columns=(*table.columns, "Passes / query"), rows=rows)


def _ablation_sheet(library: Library, family: Family) -> Sheet:
    shown = family.main()
    collections = [library[need] for need in _ablation_needs(family)]
    depths = {collection.evidence.n_layers for collection in collections}
    depth = max(depths)
    tables = []
    for part, variants in _parts(depth).items():
        answers = [
            {name: collection.decided(make_method(method, **changed)) for name, method, changed in variants}
            for collection in collections
        ]
        tables.append(_by_method(part, (part, *(f"{s} N = {n}" for s, n, _ in shown)), answers, seed=library.seed))
    return Sheet("table4", TABLE4.title, tuple(tables), remarks=(f"The model has {depth} layers that attend to images.",))


TABLE4 = Study("table4", "Ablation of LAD", _ablation_needs, _ablation_sheet)


ACCURACY = "Accuracy, with 95 % intervals"
METHODS = ("vanilla", "sofa", "permutation-average", "lad", "sofa+lad")


def _ceilings_needs(family: Family) -> list[Need]:
    return [Need(task, METHODS) for _, _, task in family.main()]


def _ceilings_sheet(library: Library, family: Family) -> Sheet:
    collections = [library[need] for need in _ceilings_needs(family)]
    answers = [{name: collection.stored(name) for name in METHODS} for collection in collections]
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in family.main()))
    table = _with_passes(_by_method(ACCURACY, headers, answers, seed=library.seed), collections)
    return Sheet("table8", TABLE8.title, (table,))


TABLE8 = Study("table8", "Intervention and permutation averaging", _ceilings_needs, _ceilings_sheet)


def reported_figures(collection: Collection) -> dict[str, Row]:
    """Published rows of this model on this task, by method."""
    return {row.method: row for row in reported_rows(collection.run.metrics)}


def reported_accuracies(collections: Sequence[Collection], after: int = 0) -> tuple[tuple[Content, ...], ...]:
    """A row a method that has any published accuracy on these tasks, a cell a task, and `after` empty cells."""
    reported = [reported_figures(collection) for collection in collections]
    names = dict.fromkeys(name for figures in reported for name in figures)
    return tuple(
        (f"{name} (reported)", *(figures[name].accuracy if name in figures else None for figures in reported), *[None] * after)
        for name in names
    )


MAIN_METHODS = (
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


def _main_needs(family: Family) -> list[Need]:
    return [Need(task, MAIN_METHODS) for _, _, task in family.main()]


def _accuracy(library: Library, family: Family) -> Sheet:
    shown = family.main()
    collections = [library[need] for need in _main_needs(family)]
    answers = [{name: collection.stored(name) for name in MAIN_METHODS} for collection in collections]
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in shown))
    table = _with_passes(_by_method(ACCURACY, headers, answers, seed=library.seed), collections)
    notes = (*table.notes, _position_note(answers, seed=library.seed))
    table = replace(table, notes=notes, reported=reported_accuracies(collections, after=1))
    missing = [] if len(shown) == 4 else [absent(family, "part of N = 4 and 8, random and adversarial")]
    return Sheet("table1", TABLE1.title, (table,), missing=tuple(missing))


def _position_note(answers: list[dict[str, Predictions]], *, seed: int) -> str:
    tests = (p_value(position_test(column[PLAIN].grid, seed=seed).p_value).text for column in answers)
    return f'Permutation test of "position does not matter" for {PLAIN}, p by column: {" / ".join(tests)}.'


def _everything(library: Library, family: Family) -> Sheet:
    tables = []
    for setting, n, task in family.main():
        collection = library[Need(task)]
        answers = {name: collection.stored(name) for name in MAIN_METHODS}
        cells = measured(answers, seed=library.seed)
        rows: list[tuple[Content, ...]] = []
        for name, (summary, accuracy) in cells.items():
            rstd = figure(summary.rstd, summary.rstd_low, summary.rstd_high)
            consistency = figure(summary.consistency, summary.consistency_low, summary.consistency_high)
            everywhere = figure(summary.all_correct, summary.all_correct_low, summary.all_correct_high)
            position = p_value(summary.position_p)
            rows.append((name, accuracy, summary.accuracy_std, rstd, consistency, everywhere, summary.unparsable, position))
        headers = ("Method", "Accuracy", "± std", "RStd", "Consistency", "Right in all orders", "Unparsable", "Position p")
        reported: list[tuple[Content, ...]] = [
            (f"{name} (reported)", row.accuracy, None, row.rstd, row.consistency, None, None, None)
            for name, row in reported_figures(collection).items()
        ]
        title = f"{setting}, N = {n} ({summary.samples} samples x {summary.permutations} orders)"
        notes = (*mark_notes([answers]), POSITION_NOTE)
        tables.append(Table(title, headers, tuple(rows), notes, reported=tuple(reported)))
        tables.append(against_plain(f"{setting}, N = {n}: each method minus {PLAIN}", answers, seed=library.seed))
    return Sheet("table6", TABLE6.title, tuple(tables))


def against_plain(title: str, answers: dict[str, Predictions], *, seed: int) -> Table:
    """Every method minus the plain answer: paired differences, McNemar's test, what could be detected."""
    rows: list[tuple[Content, ...]] = [
        (
            pair.first,
            *(figure(*estimate) for estimate in (pair.accuracy, pair.rstd, pair.consistency)),
            pair.only_first,
            pair.only_second,
            p_value(pair.p_holm),
            pair.detectable,
        )
        for pair in compare(answers, against=PLAIN, seed=seed)
    ]
    headers = ("Method", "Accuracy", "RStd", "Consistency", "Only method", f"Only {PLAIN}", "McNemar p (Holm)", "Detectable")
    return Table(title, headers, tuple(rows), (PAIRED_NOTE,))


TABLE1 = Study("table1", "Accuracy of every method", _main_needs, _accuracy)
TABLE6 = Study("table6", "Every figure of every method", _main_needs, _everything)


MMIU_METHODS = ("vanilla", "pride", "purified-attention", "lad")


def _tasks(family: Family) -> list[str]:
    """MMIU belongs to the paper's own data; a model that is tried on drawn scenes is not asked it."""
    return groups().get("mmiu", []) if family.name == "coco" else []


def _mmiu_needs(family: Family) -> list[Need]:
    return [Need(task, MMIU_METHODS) for task in _tasks(family)]


def _mmiu_sheet(library: Library, family: Family) -> Sheet:
    needs = _mmiu_needs(family)
    if not needs:
        return Sheet("table5", TABLE5.title, missing=("MMIU: run with --family coco, after `lad-eval data prepare mmiu`.",))
    collections = [library[need] for need in needs]
    answers = [{name: collection.stored(name) for name in MMIU_METHODS} for collection in collections]
    headers = ("Method", *(need.task.removeprefix("mmiu_") for need in needs))
    table = _by_method(ACCURACY, headers, answers, seed=library.seed)
    notes = (*table.notes, *(note for collection in collections for note in collection.notes))
    table = replace(table, notes=notes, reported=reported_accuracies(collections))
    return Sheet("table5", TABLE5.title, (table,))


TABLE5 = Study("table5", "MMIU", _mmiu_needs, _mmiu_sheet)
