"""Figures 1 and 8: where the right image stands against where the answer points, also under other identifiers."""

from __future__ import annotations

from lad_eval.evidence import Floats
from lad_eval.metrics import Predictions, confusion, row_shares
from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.need import IDENTIFIERS, Need
from lad_eval.studies.sheet import Chart, Matrix, Sheet
from lad_eval.studies.study import Study, absent
from lad_eval.tasks.identifiers import identifiers

METHODS = ("vanilla", "pride", "lad")
SIZES = (4, 8)


def _needs(family: Family) -> list[Need]:
    return [Need(family.tasks["random", n], METHODS) for n in SIZES if family.has("random", n)]


def _needs_of_styles(family: Family) -> list[Need]:
    task = family.tasks["random", 4]
    return [Need(task, METHODS), *(Need(task, METHODS, identifiers=style) for style in IDENTIFIERS if style != "1..")]


def _shares(predictions: Predictions) -> Floats:
    """Share of answers at each position, in points, Float[N, N]: row the right position, column the answered one.

    Unparsable replies are in no column, so that a row may sum to less than 100; a position that never held the answer has NaN.
    """
    N = predictions.perm.shape[1]
    return row_shares(confusion(predictions.gold_position, predictions.predicted, N))[:, :N]


def _row(library: Library, need: Need, ticks: tuple[str, ...], name: str, title: str) -> Chart:
    panels = tuple(
        Matrix(method, _shares(library[need].stored(method)), "answered", "right position", ticks) for method in METHODS
    )
    return Chart(name, title, panels, alt="A fair model has a dark diagonal; a biased one has dark columns.")


def _by_size(library: Library, family: Family) -> Sheet:
    charts = []
    for need in _needs(family):
        n = library[need].evidence.n_candidates
        charts.append(_row(library, need, identifiers("1..", n), f"figure1-n{n}", f"N = {n}"))
    missing = tuple(absent(family, f"N = {n}") for n in SIZES if not family.has("random", n))
    return Sheet(
        "figure1", FIGURE1.title, charts=tuple(charts), remarks=("Share of answers in points, by row.",), missing=missing
    )


def _by_style(library: Library, family: Family) -> Sheet:
    charts = []
    for need, (style, word) in zip(_needs_of_styles(family), IDENTIFIERS.items(), strict=True):
        charts.append(_row(library, need, identifiers(style, 4), f"figure8-{word}", f"Identifiers: {word}"))
    remark = "Share of answers in points, by row; the same questions, the candidates named otherwise."
    return Sheet("figure8", FIGURE8.title, charts=tuple(charts), remarks=(remark,))


FIGURE1 = Study("figure1", "Confusion matrices", _needs, _by_size)
FIGURE8 = Study("figure8", "Confusion matrices under other identifiers", _needs_of_styles, _by_style)
