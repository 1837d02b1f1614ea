"""The table of a run's methods, its headline figures, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lad_eval.errors import UserError
from lad_eval.methods import describe_method
from lad_eval.metrics import equal
from lad_eval.report.html.charts import interval
from lad_eval.report.html.load import Material
from lad_eval.report.html.text import bounds, clean, part_of, value_of
from lad_eval.report.table import Cell, Table, figure, number, p_value
from lad_eval.run.folder.rows import reported_rows, rows_of


@dataclass(frozen=True)
class SummaryRow:
    """The figures of one method as texts; `best` and `tied` are those of the terminal's table."""

    method: str
    name: str
    about: str
    colour: str
    best: bool
    tied: bool
    accuracy: str
    deviation: str
    bounds: str
    chart: Markup
    rstd: str
    consistency: str
    all_correct: str
    position_p: str
    unparsable: str
    passes: str


@dataclass(frozen=True)
class Headline:
    """A headline figure."""

    title: str
    value: str
    bounds: str
    about: str
    colour: str


def summary_rows(material: Material, colours: Mapping[str, str]) -> list[SummaryRow]:
    """One row per method, in the order of the run."""
    figures = material.metrics["methods"]
    rows = {row.method: row for row in rows_of(material.metrics)}
    best = best_of(material.metrics)
    return [
        SummaryRow(
            method=name,
            name=clean(name),
            about=_about(name),
            colour=colours[name],
            best=name in best,
            tied=name not in best and rows[name].tied,
            accuracy=number(value_of(figure, "accuracy")),
            deviation=number(part_of(figure, "accuracy", "std")),
            bounds=bounds(figure, "accuracy"),
            chart=interval(
                value_of(figure, "accuracy"),
                part_of(figure, "accuracy", "low"),
                part_of(figure, "accuracy", "high"),
                label=f"Accuracy of {clean(name)}: {number(value_of(figure, 'accuracy'))}, "
                f"interval {bounds(figure, 'accuracy') or 'unknown'}",
                colour=colours[name],
                chance=100 / material.candidates,
            ),
            rstd=number(value_of(figure, "rstd")),
            consistency=number(value_of(figure, "consistency")),
            all_correct=number(value_of(figure, "all_correct")),
            position_p=p_value(part_of(figure, "position_test", "p_value")).text,
            unparsable=str(figure.get("unparsable", "–")),
            passes=_passes(figure.get("forward_passes")),
        )
        for name, figure in figures.items()
    ]


def best_of(metrics: Mapping[str, Any]) -> set[str]:
    """The methods with exactly the highest accuracy; none if a run has a single method."""
    known = {name: value for name, figure in metrics["methods"].items() if (value := value_of(figure, "accuracy")) is not None}
    return {name for name, value in known.items() if equal(value, max(known.values()))} if len(metrics["methods"]) > 1 else set()


_HEADLINES = (
    ("vanilla", "What the logits say", "the most probable answer, no debiasing"),
    ("purified-attention", "What the attention knows", "the image with more attention than its position explains"),
    ("lad", "After LAD", "logits, minus the bias expected under that attention"),
    ("permutation-average", "Averaged over every shift", "all cyclic shifts evaluated, the empirical ceiling"),
)


def headlines(material: Material, colours: Mapping[str, str]) -> list[Headline]:
    """Accuracies of the paper's methods, as far as the run has them."""
    figures = material.metrics["methods"]
    return [
        Headline(title, number(value), bounds(figures[name], "accuracy"), f"{name}: {about}", colours[name])
        for name, title, about in _HEADLINES
        if name in figures and (value := value_of(figures[name], "accuracy")) is not None
    ]


def published(material: Material) -> Table | None:
    """Published results of this model from the task's definition; None if there are none."""
    rows = [(clean(row.method), row.accuracy, row.rstd, row.consistency) for row in reported_rows(material.metrics)]
    return Table("", ("Method", "Accuracy", "RStd", "Consistency"), rows) if rows else None


def facts(material: Material) -> list[tuple[str, str]]:
    """What was measured and how, as pairs of name and text."""
    metrics, spec = material.metrics, material.spec
    counts, seeds = metrics.get("counts", {}), metrics.get("seeds", {})
    definition, passes = spec.get("definition", {}), metrics.get("forward_passes", {})
    checkout = metrics.get("lad_eval") or {}
    commit = checkout.get("commit")
    limit = metrics.get("limit")
    rows: list[tuple[str, object]] = [
        ("Model", metrics["model"]),
        ("Weights", spec.get("fingerprint", {}).get("weights") or spec.get("fingerprint", {}).get("revision")),
        ("Task", f"{metrics['task']}, version {definition.get('version', '?')}, {definition.get('setting', '?')}"),
        ("Evaluated", f"{counts.get('samples', '?')} samples × {counts.get('permutations', '?')} displayed orders"),
        ("Part of the task", None if limit is None else f"only the first {limit} samples were run (--limit)"),
        ("Candidates", metrics["candidates"]),
        ("Calibration", _calibration(metrics)),
        ("Decoder passes", f"{passes.get('all', '?')} in all, {passes.get('calibration', '?')} of them for calibration"),
        ("Precision and attention", f"{metrics.get('dtype')}, {metrics.get('attention_implementation')}"),
        ("Device", metrics.get("device")),
        ("Seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())),
        ("Commit", None if commit is None else f"{commit[:12]}{' with local changes' if checkout.get('dirty') else ''}"),
        ("Versions", ", ".join(f"{name} {text}" for name, text in metrics.get("versions", {}).items() if text)),
        ("Task digests", ", ".join(f"{k} {v}" for k, v in spec.get("digests", {}).items() if k != "task")),
        ("Run", metrics["run"]),
    ]
    return [(name, clean(text)) for name, text in rows if text not in (None, "")]


def _calibration(metrics: Mapping[str, Any]) -> str:
    count = metrics.get("counts", {}).get("calibration_samples", 0)
    origin = metrics.get("calibration") or {}
    whose = f" of {origin.get('task')}" if origin.get("transferred") else ""
    return f"{count} samples{whose}, none of them evaluated" if count else "none"


def accuracy_cells(metrics: Mapping[str, Any], methods: Iterable[str]) -> list[Cell]:
    """One cell per method in one of several runs, with the marks of its run's table; a dash if the run lacks the method."""
    rows, best = {row.method: row for row in rows_of(metrics)}, best_of(metrics)
    figures = {name: metrics["methods"].get(name, {}) for name in methods}
    return [
        figure(
            value_of(figures_of, "accuracy"),
            part_of(figures_of, "accuracy", "low"),
            part_of(figures_of, "accuracy", "high"),
            best=name in best,
            tied=name in rows and name not in best and rows[name].tied,
        )
        for name, figures_of in figures.items()
    ]


def _about(name: str) -> str:
    try:
        return describe_method(name)
    except UserError:
        return ""


def _passes(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
