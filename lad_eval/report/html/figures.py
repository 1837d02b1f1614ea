"""The figures of one run: each is a chart with a note and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.table import Floats
from lad_eval.methods import Method
from lad_eval.metrics import confusion, row_shares
from lad_eval.report.html import measures
from lad_eval.report.html.charts import ChartLine, bars, heatmap, lines
from lad_eval.report.html.finding import BASE
from lad_eval.report.html.load import Material, MethodAnswers
from lad_eval.report.html.measures import recall_table
from lad_eval.report.html.positions import Recall, multiple
from lad_eval.report.html.text import clean, of_position, position_names
from lad_eval.report.table import Table

MOST_LINES = 6
"""The most lines of one chart; more would overlap."""


@dataclass(frozen=True)
class Figure:
    """A chart; with `method` the page can hide it together with that method, `wide` gives it the full width."""

    title: str
    chart: Markup
    table: Table
    note: str = ""
    method: str | None = None
    colour: str = ""
    wide: bool = False


@dataclass(frozen=True)
class FigureGroup:
    """Figures that belong together, or the reasons why there are none."""

    figures: Sequence[Figure] = ()
    missing: Sequence[str] = field(default_factory=tuple)


def recall_figure(material: Material, recalls: Mapping[str, Recall]) -> FigureGroup:
    """Share of right answers by the right image's position: one line per method, or one small chart per method if there are "
    "many.
    """
    N = material.candidates
    if not recalls:
        return FigureGroup(missing=["metrics.json has no recall by position."])
    table = recall_table(list(recalls.values()))
    if len(recalls) > MOST_LINES:
        return FigureGroup([Figure("Recall by position", _multiples(material, recalls), table, wide=True)])
    chart = lines(
        [ChartLine(one.name, one.values, one.colour, name) for name, one in recalls.items()],
        position_names(N),
        x_title="position of the right image",
        y_title="recall, %",
        label="Share of right answers by the position of the right image, a line for each method; the table has the numbers.",
        chance=100 / N,
    )
    return FigureGroup([Figure("Recall by position", chart, table)])


def _multiples(material: Material, recalls: Mapping[str, Recall]) -> Markup:
    against = recalls.get(BASE)
    small = [
        Markup('<div class="multiple" data-method="{}"><p><span class="dot {}" aria-hidden="true"></span>{}</p>{}</div>').format(
            name,
            one.colour,
            one.name,
            multiple(
                one,
                None if name == BASE else against,
                chance=100 / material.candidates,
                label=f"Share of right answers by the position of the right image, {one.name}; the table has the numbers.",
            ),
        )
        for name, one in recalls.items()
    ]
    return Markup('<div class="multiples">{}</div>').format(Markup("").join(small))


def confusion_figures(answers: MethodAnswers, colours: Mapping[str, str]) -> list[Figure]:
    """One matrix per method: right position against answered position."""
    return [_confusion(answers, name, colours[name]) for name in answers.methods]


def _confusion(answers: MethodAnswers, method: str, colour: str) -> Figure:
    N = answers.n_candidates
    counts = confusion(answers.shown.gold, answers.grids[method].predicted, N)
    shares, silent = shares_by_position(answers, method)
    names = position_names(N)
    columns = [*names, "none"] if silent else list(names)
    chart = heatmap(
        shares[:, : len(columns)],
        names,
        columns,
        row_title="right image at",
        column_title="answered position",
        label=f"Confusion of positions, {clean(method)}: of the questions whose right image stood at each position, the share "
        "answered with each position, in percent; the table has the counts.",
        diagonal=True,
    )
    right = np.trace(counts[:, :N]) / max(counts.sum(), 1)
    rows = [[name, *map(str, row[: len(columns)])] for name, row in zip(names, counts.tolist(), strict=True)]
    note = f"{100 * right:.1f} % right" + (f", {int(counts[:, N].sum())} without an answer" if silent else "")
    return Figure(clean(method), chart, Table("", ["Right at", *columns], rows), note, method, colour)


def shares_by_position(answers: MethodAnswers, method: str) -> tuple[Floats, bool]:
    """Float[N, N + 1], answered position (last: none) by the right image's position, in percent; and whether any had none."""
    counts = confusion(answers.shown.gold, answers.grids[method].predicted, answers.n_candidates)
    return row_shares(counts), bool(counts[:, -1].any())


def attention_figure(material: Material) -> FigureGroup:
    """The right image's share of the attention by layer, a line for each position of it."""
    evidence = material.evidence_of[""]
    if isinstance(evidence, str):
        return FigureGroup(missing=[clean(evidence)])
    evaluated = evidence.evaluated
    if evaluated.attention is None:
        return FigureGroup(missing=["This run's evidence has no attention."])
    shares = 100 * measures.gold_attention(evaluated)
    N, L = shares.shape
    names = position_names(N)
    layers = [str(layer) for layer in range(L)]
    lad = _lad(material)
    read = None if lad is None else measures.layers_read(lad, L)
    chart = _attention_chart(shares, layers, read)
    rows = [[layer, *shares[:, i].tolist()] for i, layer in enumerate(layers)]
    table = Table("", ["Layer", *(f"right image at {name}" for name in names)], rows)
    each = "line" if N <= MOST_LINES else "row"
    note = (
        f"Mean over {len(evaluated)} passes of the right image's share of the attention to all images; a {each} for each "
        f"position."
    )
    if N > MOST_LINES:
        note += f" Chance is {100 / N:.1f} %." + ("" if read is None else f" LAD reads layers {read[0]} to {read[1]}.")
    figures = [Figure("Attention to the right image, by layer", chart, table, note)]
    if lad is not None and (chosen := measures.layers_chosen(lad, evaluated)) is not None:
        figures.append(_read_figure(chosen, layers))
    return FigureGroup(figures)


def _attention_chart(shares: Floats, layers: Sequence[str], read: tuple[int, int] | None) -> Markup:
    """Float[N, L] in percent: one line per position, or a matrix where lines would overlap."""
    N, L = shares.shape
    names = position_names(N)
    label = (
        "The right image's share of the attention to all images by decoder layer and by its position; the table has the numbers."
    )
    if N > MOST_LINES:
        return heatmap(
            shares,
            names,
            layers,
            row_title="right image at",
            column_title="decoder layer",
            label=label,
            most=max(float(np.nanmax(shares)), 1.0) if np.isfinite(shares).any() else 100.0,
            cell=(max(9.0, min(40.0, 420.0 / L)), 24.0),
        )
    return lines(
        [ChartLine(f"at {name}", row.tolist(), of_position(i)) for i, (name, row) in enumerate(zip(names, shares, strict=True))],
        layers,
        x_title="decoder layer",
        y_title="share of attention, %",
        label=label,
        chance=100 / N,
        band=read,
        band_name="layers that LAD reads",
    )


def _read_figure(chosen: Floats, layers: Sequence[str]) -> Figure:
    percents = (100 * chosen).tolist()
    chart = bars(
        percents,
        layers,
        x_title="decoder layer",
        label="Share of passes in which LAD reads each layer.",
    )
    note = "Share of passes, in percent, in which the layer is one of the K with the most attention to the images."
    rows = [[layer, f"{value:.1f}"] for layer, value in zip(layers, percents, strict=True)]
    return Figure("Layers that LAD reads", chart, Table("", ["Layer", "% of passes"], rows), note)


def _lad(material: Material) -> Method | None:
    """LAD with the run's parameters; None if the run did not evaluate it."""
    figure = material.metrics["methods"].get("lad")
    if figure is None:
        return None
    try:
        return measures.made("lad", figure.get("parameters", {}))
    except UserError:
        return None


def learned_figures(material: Material) -> FigureGroup:
    """Bias matrices and priors of every method that learned one; equal ones are shown once."""
    figures: list[Figure] = []
    missing: list[str] = []
    seen: set[tuple[str, bytes]] = set()
    for name, figure in material.metrics["methods"].items():
        if not figure.get("calibration_passes"):
            continue
        try:
            learned = _learned(material, name, figure.get("parameters", {}))
        except UserError as error:
            missing.append(f"{clean(name)}: {clean(error)}")
            continue
        for kind, array, drawn in (
            ("bias", learned.bias, _bias),
            ("prior", learned.prior, _prior),
            ("attention prior", learned.attention_prior, _attention_prior),
        ):
            if array is not None and (kind, array.tobytes()) not in seen:
                seen.add((kind, array.tobytes()))
                figures.append(drawn(clean(name), learned, 100 * array))
    if not figures and not missing:
        missing.append("No method of this run calibrates.")
    return FigureGroup(figures, list(dict.fromkeys(missing)))


def _learned(material: Material, name: str, parameters: Mapping[str, Any]) -> measures.Learned:
    method = measures.made(name, parameters)
    evidence = material.evidence_of.get(method.condition.label, "This run has no evidence for it.")
    if isinstance(evidence, str):
        raise EvidenceError(evidence)
    if evidence.calibration is None:
        raise EvidenceError("This run has no calibration for it.")
    return measures.learn(method, evidence.calibration)


def _bias(method: str, learned: measures.Learned, percents: Floats) -> Figure:
    names = position_names(len(percents))
    chart = heatmap(
        percents,
        names,
        names,
        row_title="right image at",
        column_title="position",
        label=f"Bias matrix of {method}: the pull of each position, by the position of the right image.",
        diagonal=True,
        digits=0,
    )
    gain = "" if learned.gain is None else f" Gain g = {learned.gain:.3g}, already taken out of the outlined cells."
    rows = [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(names, percents.tolist(), strict=True)]
    note = f"P_bias(position | right image), in percent.{gain}"
    return Figure(f"Bias matrix B · {method}", chart, Table("", ["Right at", *names], rows), note)


def _prior(method: str, learned: measures.Learned, percents: Floats) -> Figure:
    names = position_names(len(percents))
    chart = bars(
        percents.tolist(),
        names,
        x_title="position",
        label=f"Prior of positions that {method} learned, in percent.",
        chance=100 / len(percents),
    )
    rows = [[name, f"{value:.2f}"] for name, value in zip(names, percents.tolist(), strict=True)]
    note = "What each position gets whatever image it holds, in percent."
    return Figure(f"Prior of positions · {method}", chart, Table("", ["Position", "%"], rows), note)


def _attention_prior(method: str, learned: measures.Learned, percents: Floats) -> Figure:
    L, N = percents.shape
    names, layers = position_names(N), [str(layer) for layer in range(L)]
    most = float(percents.max())
    height = 22.0 if L <= 14 else max(8.0, 300.0 / L)
    chart = heatmap(
        percents,
        layers,
        names,
        row_title="layer",
        column_title="position",
        label=f"Attention prior of {method}: mean attention to each position in each layer.",
        most=most,
        cell=(max(16.0, min(44.0, 264.0 / N)), height),
        digits=1,
    )
    read = "" if learned.layers is None else f" The method reads layers {learned.layers[0]} to {learned.layers[1]}."
    rows = [[layer, *(f"{value:.2f}" for value in row)] for layer, row in zip(layers, percents.tolist(), strict=True)]
    note = f"Mean share of all attention that goes to each position, in percent; strongest colour: {most:.1f} %.{read}"
    return Figure(f"Attention prior · {method}", chart, Table("", ["Layer", *names], rows), note)
