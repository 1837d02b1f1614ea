"""Figure 2: what the logits say of each position, by the position of the right image."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence import Floats, Ints
from lad_eval.methods import make_method
from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Chart, Matrix, Sheet
from lad_eval.studies.study import Study
from lad_eval.tasks.identifiers import identifiers


def _needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", "lad")) for setting, _, task in family.main() if setting == "random"]


def _sheet(library: Library, family: Family) -> Sheet:
    charts = []
    for need in _needs(family):
        collection = library[need]
        rows, n = collection.evaluated, collection.evidence.n_candidates
        attention = make_method("raw-attention").predict_log_proba(rows)
        panels = []
        for title, values in (("logits", rows.log_probs), ("attention", attention)):
            mean = mean_by_position(np.exp(values), rows.gold_position)
            panels.append(Matrix(title, 100 * mean, "position", "right position", identifiers("1..", n)))
        charts.append(
            Chart(f"figure2-n{n}", f"N = {n}", tuple(panels), alt="Columns in the logits, a diagonal in the attention.")
        )
    remark = "Mean probability of each position, and mean share of the attention (raw, its 2 strongest layers), in points."
    return Sheet("figure2", FIGURE2.title, charts=tuple(charts), remarks=(remark,))


def mean_by_position(values: Floats, gold: Ints) -> Floats:
    """Means Float[N, N] of rows Float[n, N], one for each position of the answer; NaN for one that never held it."""
    n = values.shape[1]
    means = np.full((n, n), np.nan)
    for position in np.unique(gold):
        means[position] = values[gold == position].mean(axis=0)
    return means


FIGURE2 = Study("figure2", "Profiles of logits and attention by the right position", _needs, _sheet)
