"""Table 7 and figure 3: what the attention knows and the logits do not say."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence import Evidence, Floats
from lad_eval.methods import make_method
from lad_eval.metrics import Predictions, compare, holm, paired_test, summarise
from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.measure import accuracy
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Cell, Chart, Cloud, Measured, PValue, Sheet, Table
from lad_eval.studies.study import Study

SHARES = ("Both right", "Only attention", "Only logits", "Neither")


def _needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", "lad")) for _, _, task in family.main()]


def _table(library: Library, family: Family) -> Sheet:
    found: list[tuple[Cell, ...]] = []
    tests: list[float] = []
    for (setting, n, _), need in zip(family.main(), _needs(family), strict=True):
        collection = library[need]
        logits = collection.decided(make_method("vanilla"))
        attention = collection.decided(make_method("purified-attention"))
        (pair,) = compare({"attention": attention, "logits": logits}, against="logits", seed=library.seed)
        shares = _shares(attention, logits)
        cells = (accuracy(summarise(table, seed=library.seed)) for table in (logits, attention))
        tests.append(paired_test(attention.grid.correct, logits.grid.correct))
        found.append((f"{setting} N = {n}", *cells, Measured(*pair.accuracy), pair.detectable, *shares))
    rows = [(*row[:4], PValue(float(p)), *row[4:]) for row, p in zip(found, holm(tests), strict=True)]
    headers = ("Task", "Logits", "Attention", "Divergence", "p (Holm)", "Detectable", *SHARES)
    notes = (
        "Logits: vanilla; attention: purified attention. Divergence: the second minus the first, with its paired 95 % interval.",
        "p: exact paired test over samples that both are equally accurate, Holm's correction over the tasks. "
        "Detectable: the smallest true difference that so many samples find with chance 0.8.",
        "The last four columns: share of answers, in points.",
    )
    return Sheet("table7", TABLE7.title, (Table(TABLE7.title, headers, tuple(rows), notes),))


def _shares(attention: Predictions, logits: Predictions) -> tuple[float, float, float, float]:
    a, b = attention.predicted == attention.gold_position, logits.predicted == logits.gold_position
    both, only_a, only_b, none = (100 * float(x.mean()) for x in (a & b, a & ~b, b & ~a, ~a & ~b))
    return both, only_a, only_b, none


def _figure(library: Library, family: Family) -> Sheet:
    panels = []
    for (setting, n, _), need in zip(family.main(), _needs(family), strict=True):
        collection = library[need]
        method = make_method("purified-attention", temperature=1.0).calibrate(collection.calibration)
        rows = collection.evaluated
        x, y = _of_gold(np.exp(rows.log_probs), rows), _of_gold(np.exp(method.predict_log_proba(rows)), rows)
        panels.append(Cloud(f"{setting} N = {n}", x, y, "probability of the right position", "attention to the right image"))
    chart = Chart(
        "figure3",
        FIGURE3.title,
        tuple(panels),
        alt="Above the diagonal the attention favours the right image more than the logits do.",
    )
    remark = "Attention: purified (temperature 1), as a share of all images; each answer is a point."
    return Sheet("figure3", FIGURE3.title, charts=(chart,), remarks=(remark,))


def _of_gold(values: Floats, rows: Evidence) -> Floats:
    chosen: Floats = values[np.arange(len(rows)), rows.gold_position]
    return chosen


TABLE7 = Study("table7", "Logit-attention divergence", _needs, _table)
FIGURE3 = Study("figure3", "Attention against logits", _needs, _figure)
