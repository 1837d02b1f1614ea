"""The table of a run's methods, its headline figures, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lad_eval.errors import UserError
from lad_eval.methods import describe_method
from lad_eval.metrics import standings
from lad_eval.pages.charts import interval
from lad_eval.pages.load import Material
from lad_eval.pages.text import clean
from lad_eval.report.rows import reported_rows

Estimate = Mapping[str, Any]


@dataclass(frozen=True)
class SummaryRow:
    """One method; texts as they stand in the table."""

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
    """A figure that the reader should take away."""

    title: str
    value: str
    bounds: str
    about: str
    colour: str


def summary_rows(material: Material, colours: Mapping[str, str]) -> list[SummaryRow]:
    """A row a method, in the order of the run."""
    figures = material.metrics["methods"]
    values = {name: _value(figure, "accuracy") for name, figure in figures.items()}
    answers = material.answers
    standing = {} if answers is None else standings({name: answers.correct(name) for name in answers.methods})
    best = max((value for value in values.values() if value is not None), default=None)
    return [
        SummaryRow(
            method=name,
            name=clean(name),
            about=_about(name),
            colour=colours[name],
            best=values[name] is not None and values[name] == best,
            tied=name in standing and values[name] != best and standing[name].tied,
            accuracy=_points(values[name]),
            deviation=_points(_part(figure, "accuracy", "std")),
            bounds=_bounds(figure, "accuracy"),
            chart=interval(
                values[name],
                _part(figure, "accuracy", "low"),
                _part(figure, "accuracy", "high"),
                label=f"Accuracy of {clean(name)}: {_points(values[name])}, interval {_bounds(figure, 'accuracy') or 'unknown'}",
                colour=colours[name],
                chance=100 / material.candidates,
            ),
            rstd=_points(_value(figure, "rstd")),
            consistency=_points(_value(figure, "consistency")),
            all_correct=_points(_value(figure, "all_correct")),
            position_p=_p_value(_part(figure, "position_test", "p_value")),
            unparsable=str(figure.get("unparsable", "–")),
            passes=_passes(figure.get("forward_passes")),
        )
        for name, figure in figures.items()
    ]


_HEADLINES = (
    ("vanilla", "What the logits say", "the most probable answer, no debiasing"),
    ("purified-attention", "What the attention knows", "the image looked at more than its position explains"),
    ("lad", "After LAD", "logits, less the bias expected under that attention"),
    ("permutation-average", "Asked under every shift", "averaged over all cyclic shifts, the empirical ceiling"),
)


def headlines(material: Material, colours: Mapping[str, str]) -> list[Headline]:
    """Accuracies of those methods of the paper that the run has."""
    figures = material.metrics["methods"]
    return [
        Headline(title, _points(value), _bounds(figures[name], "accuracy"), f"{name}: {about}", colours[name])
        for name, title, about in _HEADLINES
        if name in figures and (value := _value(figures[name], "accuracy")) is not None
    ]


def published(material: Material) -> list[tuple[str, str, str, str]]:
    """Method, accuracy, RStd and consistency of this model as the task's definition reports them from elsewhere."""
    return [
        (clean(row.method), _points(row.accuracy), _points(row.rstd), _points(row.consistency))
        for row in reported_rows(material.metrics)
    ]


def facts(material: Material) -> list[tuple[str, str]]:
    """What was measured and how, as names and texts."""
    metrics, spec = material.metrics, material.spec
    counts, seeds = metrics.get("counts", {}), metrics.get("seeds", {})
    definition, passes = spec.get("definition", {}), metrics.get("forward_passes", {})
    checkout = metrics.get("lad_eval") or {}
    commit = checkout.get("commit")
    limit = metrics.get("limit")
    told: list[tuple[str, object]] = [
        ("Model", metrics["model"]),
        ("Weights", spec.get("fingerprint", {}).get("weights") or spec.get("fingerprint", {}).get("revision")),
        ("Task", f"{metrics['task']}, version {definition.get('version', '?')}, {definition.get('setting', '?')}"),
        ("Asked", f"{counts.get('samples', '?')} samples × {counts.get('permutations', '?')} displayed orders"),
        ("Part of the task", None if limit is None else f"only the first {limit} samples were asked (--limit)"),
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
    return [(name, clean(text)) for name, text in told if text not in (None, "")]


def _calibration(metrics: Mapping[str, Any]) -> str:
    count = metrics.get("counts", {}).get("calibration_samples", 0)
    origin = metrics.get("calibration") or {}
    whose = f" of {origin.get('task')}" if origin.get("transferred") else ""
    return f"{count} samples{whose}, none of them evaluated" if count else "none"


def accuracy_of(metrics: Mapping[str, Any], method: str) -> str:
    """Accuracy with its interval, for a table of several runs; a dash where the run has none."""
    figure = metrics["methods"].get(method)
    value = None if figure is None else _value(figure, "accuracy")
    return "–" if figure is None or value is None else f"{_points(value)} {_bounds(figure, 'accuracy')}".strip()


def _about(name: str) -> str:
    try:
        return describe_method(name)
    except UserError:
        return ""


def _value(figure: Mapping[str, Any], name: str) -> float | None:
    return _part(figure, name, "value")


def _part(figure: Mapping[str, Any], name: str, part: str) -> float | None:
    value = (figure.get(name) or {}).get(part)
    return float(value) if isinstance(value, int | float) else None


def _p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _bounds(figure: Mapping[str, Any], name: str) -> str:
    low, high = _part(figure, name, "low"), _part(figure, name, "high")
    return "" if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def _passes(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
