"""Tables 1, 2, 4, 5, 6 and 8: every method, its cost and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lad_eval.methods import make_method
from lad_eval.methods.readout import layer_range
from lad_eval.metrics import Predictions, compare, position_test
from lad_eval.report.table import Content, Table, figure, p_value
from lad_eval.run.folder.rows import Row, reported_rows
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.lad.family import TaskFamily
from lad_eval.studies.lad.part import StudyData, StudyPart
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import StudyRun
from lad_eval.studies.tables import accuracy_table, difference_cells, interval_cells, mark_notes, measured
from lad_eval.tasks.registry import groups


def _cost_requirements(family: TaskFamily) -> list[Requirement]:
    return []


def _cost_document(data: StudyData) -> StudyDocument:
    if not data.costs:
        return StudyDocument(
            "table2", TABLE2.title, missing=("time and memory are measured on the model: run without --stored.",)
        )
    rows: list[tuple[Content, ...]] = [
        (
            f"N = {cost.candidates}",
            cost.kind,
            figure(1000 * cost.seconds, digits=0),
            figure(cost.ratio, digits=2),
            figure(None if cost.peak_bytes is None else cost.peak_bytes / 2**30, digits=2),
        )
        for cost in data.costs
    ]
    notes = [
        "vanilla: one greedy token by `generate`; with evidence: the pass that all methods with one pass share. Medians over "
        "alternating rounds on new images; preparing the images is included.",
    ]
    if all(cost.peak_bytes is None for cost in data.costs):
        notes.append("Memory is measured on a GPU only; for a CPU see docs/performance.md.")
    headers = ("Images", "Answer", "ms / query", "Time by vanilla", "Peak GiB")
    return StudyDocument("table2", TABLE2.title, (Table(TABLE2.title, headers, rows, notes),))


TABLE2 = StudyPart("table2", "Time and memory", _cost_requirements, _cost_document)


TOP_K = (1, 2, 3, 4, 8)

Variant = tuple[str, str, dict[str, Any]]


def _ablation_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(task, ("vanilla", "lad")) for _, _, task in family.main()]


def _parts(depth: int) -> dict[str, list[Variant]]:
    """The variants of LAD, by the part that they change: (name, method, parameters)."""
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


def _with_passes(table: Table, runs: Sequence[StudyRun]) -> Table:
    """The table with one more column: forward passes per query of each method."""
    passes = [" / ".join(dict.fromkeys(c.passes(str(row[0].value)) for c in runs)) for row in table.cells]
    rows: list[tuple[Content, ...]] = [(*row, text) for row, text in zip(table.cells, passes, strict=True)]
    return replace(table, columns=(*table.columns, "Passes / query"), rows=rows)


def _ablation_document(data: StudyData) -> StudyDocument:
    shown = data.family.main()
    runs = [data.runs[requirement] for requirement in _ablation_requirements(data.family)]
    depths = {run.evidence.n_layers for run in runs}
    depth = max(depths)
    tables = []
    for part, variants in _parts(depth).items():
        answers = [{name: run.decide(make_method(method, **changed)) for name, method, changed in variants} for run in runs]
        tables.append(accuracy_table(part, (part, *(f"{s} N = {n}" for s, n, _ in shown)), answers, seed=data.runs.seed))
    return StudyDocument("table4", TABLE4.title, tuple(tables), remarks=(f"The model has {depth} layers that attend to images.",))


TABLE4 = StudyPart("table4", "Ablation of LAD", _ablation_requirements, _ablation_document)


ACCURACY = "Accuracy, with 95 % intervals"
METHODS = ("vanilla", "sofa", "permutation-average", "lad", "sofa+lad")


def _ceilings_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(task, METHODS) for _, _, task in family.main()]


def _ceilings_document(data: StudyData) -> StudyDocument:
    runs = [data.runs[requirement] for requirement in _ceilings_requirements(data.family)]
    answers = [{name: run.predictions(name) for name in METHODS} for run in runs]
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in data.family.main()))
    table = _with_passes(accuracy_table(ACCURACY, headers, answers, seed=data.runs.seed), runs)
    return StudyDocument("table8", TABLE8.title, (table,))


TABLE8 = StudyPart("table8", "Intervention and permutation averaging", _ceilings_requirements, _ceilings_document)


def reported_figures(run: StudyRun) -> dict[str, Row]:
    """The published figures of this model on this task, by method."""
    return {row.method: row for row in reported_rows(run.run.metrics)}


def reported_accuracies(runs: Sequence[StudyRun], after: int = 0) -> tuple[tuple[Content, ...], ...]:
    """One row per method with a published accuracy on these tasks: one cell per task, and `after` empty cells."""
    reported = [reported_figures(run) for run in runs]
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
    "Detectable: the smallest true difference in accuracy that this many samples detect with power 0.8 (5 %, before correction)."
)


def _main_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(task, MAIN_METHODS) for _, _, task in family.main()]


def _main_document(data: StudyData) -> StudyDocument:
    shown = data.family.main()
    runs = [data.runs[requirement] for requirement in _main_requirements(data.family)]
    answers = [{name: run.predictions(name) for name in MAIN_METHODS} for run in runs]
    headers = ("Method", *(f"{setting} N = {n}" for setting, n, _ in shown))
    table = _with_passes(accuracy_table(ACCURACY, headers, answers, seed=data.runs.seed), runs)
    notes = (*table.notes, _position_note(answers, seed=data.runs.seed))
    table = replace(table, notes=notes, reported=reported_accuracies(runs, after=1))
    missing = [] if len(shown) == 4 else [data.family.lacks("part of N = 4 and 8, random and adversarial")]
    return StudyDocument("table1", TABLE1.title, (table,), missing=tuple(missing))


def _position_note(answers: list[dict[str, Predictions]], *, seed: int) -> str:
    tests = (p_value(position_test(column[PLAIN].grid, seed=seed).p_value).text for column in answers)
    return f'Permutation test of "position does not matter" for {PLAIN}, p by column: {" / ".join(tests)}.'


def _every_figure_document(data: StudyData) -> StudyDocument:
    tables = []
    for setting, n, task in data.family.main():
        run = data.runs[Requirement(task)]
        answers = {name: run.predictions(name) for name in MAIN_METHODS}
        cells = measured(answers, seed=data.runs.seed)
        rows: list[tuple[Content, ...]] = []
        for name, (summary, accuracy) in cells.items():
            _, rstd, consistency = interval_cells(summary)
            everywhere = figure(summary.all_correct, summary.all_correct_low, summary.all_correct_high)
            position = p_value(summary.position_p)
            rows.append((name, accuracy, summary.accuracy_std, rstd, consistency, everywhere, summary.unparsable, position))
        headers = ("Method", "Accuracy", "± std", "RStd", "Consistency", "Right in all orders", "Unparsable", "Position p")
        reported: list[tuple[Content, ...]] = [
            (f"{name} (reported)", row.accuracy, None, row.rstd, row.consistency, None, None, None)
            for name, row in reported_figures(run).items()
        ]
        title = f"{setting}, N = {n} ({summary.samples} samples x {summary.permutations} orders)"
        notes = (*mark_notes([answers]), POSITION_NOTE)
        tables.append(Table(title, headers, tuple(rows), notes, reported=tuple(reported)))
        tables.append(against_plain(f"{setting}, N = {n}: each method minus {PLAIN}", answers, seed=data.runs.seed))
    return StudyDocument("table6", TABLE6.title, tuple(tables))


def against_plain(title: str, answers: dict[str, Predictions], *, seed: int) -> Table:
    """Every method minus the plain answer: paired differences, McNemar's test, the detectable difference."""
    rows: list[tuple[Content, ...]] = [
        (
            pair.first,
            *difference_cells(pair),
            pair.only_first,
            pair.only_second,
            p_value(pair.p_holm),
            pair.detectable,
        )
        for pair in compare(answers, against=PLAIN, seed=seed)
    ]
    headers = ("Method", "Accuracy", "RStd", "Consistency", "Only method", f"Only {PLAIN}", "McNemar p (Holm)", "Detectable")
    return Table(title, headers, tuple(rows), (PAIRED_NOTE,))


TABLE1 = StudyPart("table1", "Accuracy of every method", _main_requirements, _main_document)
TABLE6 = StudyPart("table6", "Every figure of every method", _main_requirements, _every_figure_document)


MMIU_METHODS = ("vanilla", "pride", "purified-attention", "lad")


def _tasks(family: TaskFamily) -> list[str]:
    """The MMIU tasks belong to the paper's own data; they are skipped when a model is evaluated on rendered scenes."""
    return groups().get("mmiu", []) if family.name == "coco" else []


def _mmiu_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(task, MMIU_METHODS) for task in _tasks(family)]


def _mmiu_document(data: StudyData) -> StudyDocument:
    requirements = _mmiu_requirements(data.family)
    if not requirements:
        return StudyDocument(
            "table5", TABLE5.title, missing=("MMIU: run with --family coco, after `lad-eval data prepare mmiu`.",)
        )
    runs = [data.runs[requirement] for requirement in requirements]
    answers = [{name: run.predictions(name) for name in MMIU_METHODS} for run in runs]
    headers = ("Method", *(requirement.task.removeprefix("mmiu_") for requirement in requirements))
    table = accuracy_table(ACCURACY, headers, answers, seed=data.runs.seed)
    notes = (*table.notes, *(note for run in runs for note in run.notes))
    table = replace(table, notes=notes, reported=reported_accuracies(runs))
    return StudyDocument("table5", TABLE5.title, (table,))


TABLE5 = StudyPart("table5", "MMIU", _mmiu_requirements, _mmiu_document)
