"""Figures 1 and 8: where the right image stands against where the answer points, also under other identifiers."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods import make_method
from lad_eval.metrics import Predictions, compare, confusion, holm, paired_test, row_shares, summarise
from lad_eval.metrics import accuracy as share_correct
from lad_eval.report.sheet import Chart, Cloud, Line, Lines, Matrix, Sheet, accuracy
from lad_eval.report.table import Content, Table, figure, p_value
from lad_eval.studies.lad.library import Collection, Library, Study, absent
from lad_eval.studies.lad.need import IDENTIFIERS, SETTINGS, Family, Need
from lad_eval.tasks.prompts import identifiers

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


SHARES = ("Both right", "Only attention", "Only logits", "Neither")


def _divergence_needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", "lad")) for _, _, task in family.main()]


def _table(library: Library, family: Family) -> Sheet:
    rows_untested: list[tuple[Content, ...]] = []
    tests: list[float] = []
    for (setting, n, _), need in zip(family.main(), _divergence_needs(family), strict=True):
        collection = library[need]
        logits = collection.decided(make_method("vanilla"))
        attention = collection.decided(make_method("purified-attention"))
        (pair,) = compare({"attention": attention, "logits": logits}, against="logits", seed=library.seed)
        shares = _divergence_shares(attention, logits)
        cells = (accuracy(summarise(table, seed=library.seed)) for table in (logits, attention))
        tests.append(paired_test(attention.grid.correct, logits.grid.correct))
        rows_untested.append((f"{setting} N = {n}", *cells, figure(*pair.accuracy), pair.detectable, *shares))
    rows = [(*row[:4], p_value(float(p)), *row[4:]) for row, p in zip(rows_untested, holm(tests), strict=True)]
    headers = ("Task", "Logits", "Attention", "Divergence", "p (Holm)", "Detectable", *SHARES)
    notes = (
        "Logits: vanilla; attention: purified attention. Divergence: the second minus the first, with its paired 95 % interval.",
        "p: exact paired test over samples that both are equally accurate, Holm's correction over the tasks. "
        "Detectable: the smallest true difference that so many samples find with chance 0.8.",
        "The last four columns: share of answers, in points.",
    )
    return Sheet("table7", TABLE7.title, (Table(TABLE7.title, headers, tuple(rows), notes),))


def _divergence_shares(attention: Predictions, logits: Predictions) -> tuple[float, float, float, float]:
    a, b = attention.predicted == attention.gold_position, logits.predicted == logits.gold_position
    both, only_a, only_b, none = (100 * float(x.mean()) for x in (a & b, a & ~b, b & ~a, ~a & ~b))
    return both, only_a, only_b, none


def _figure(library: Library, family: Family) -> Sheet:
    panels = []
    for (setting, n, _), need in zip(family.main(), _divergence_needs(family), strict=True):
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


TABLE7 = Study("table7", "Logit-attention divergence", _divergence_needs, _table)
FIGURE3 = Study("figure3", "Attention against logits", _divergence_needs, _figure)


def _profiles_needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", "lad")) for setting, _, task in family.main() if setting == "random"]


def _sheet(library: Library, family: Family) -> Sheet:
    charts = []
    for need in _profiles_needs(family):
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


FIGURE2 = Study("figure2", "Profiles of logits and attention by the right position", _profiles_needs, _sheet)


SENSITIVITY_METHODS = ("pride", "purified-attention", "lad", "lad-unlabelled")
POOL = 20
SAMPLES = (1, 2, 3, 5, 8, 12, 20)
DRAWS = 20
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)


def _sensitivity_needs(family: Family) -> list[Need]:
    return [Need(family.tasks[setting, 4], ("vanilla", *SENSITIVITY_METHODS), calibration_samples=POOL) for setting in SETTINGS]


def _sensitivity_sheet(library: Library, family: Family) -> Sheet:
    by_size = tuple(
        Lines(
            setting,
            tuple(_curve(library[need], name, library.seed) for name in SENSITIVITY_METHODS),
            "calibration samples",
            "accuracy (points)",
            log_x=True,
        )
        for setting, need in zip(SETTINGS, _sensitivity_needs(family), strict=True)
    )
    by_temperature = Lines(
        "temperature",
        tuple(
            _temperatures(library[need], setting, library.seed)
            for setting, need in zip(SETTINGS, _sensitivity_needs(family), strict=True)
        ),
        "temperature τ",
        "accuracy of LAD (points)",
        log_x=True,
    )
    remarks = (
        f"Calibration samples: mean of {DRAWS} random draws from {POOL}; the band holds nine draws in ten "
        "(it shows the luck of the draw, not the sampling of the test).",
        "Temperature: all else as by default; band: 95 % interval.",
    )
    charts = (
        Chart("figure6-calibration", "Calibration samples", by_size, alt="Accuracy by the number of calibration samples."),
        Chart("figure6-temperature", "Temperature", (by_temperature,), alt="Accuracy of LAD by its temperature."),
    )
    return Sheet("figure6", FIGURE6.title, charts=charts, remarks=remarks)


def _curve(collection: Collection, method: str, seed: int) -> Line:
    generator = np.random.default_rng(seed)
    pool = np.unique(collection.calibration.sample_id)
    means, lows, highs = [], [], []
    for size in SAMPLES:
        draws = 1 if size == len(pool) else DRAWS
        accuracies = [
            _accuracy(collection, method, _part(collection, generator.choice(pool, size, replace=False))) for _ in range(draws)
        ]
        means.append(float(np.mean(accuracies)))
        lows.append(float(np.quantile(accuracies, 0.05)))
        highs.append(float(np.quantile(accuracies, 0.95)))
    return Line(method, np.asarray(SAMPLES, dtype=np.float64), np.asarray(means), np.asarray(lows), np.asarray(highs))


def _part(collection: Collection, samples: np.ndarray[tuple[int, ...], np.dtype[np.str_]]) -> Evidence:
    rows = collection.calibration
    return rows.select(np.flatnonzero(np.isin(rows.sample_id, samples)))


def _accuracy(collection: Collection, method: str, calibration: Evidence) -> float:
    rows = collection.evaluated
    return share_correct(make_method(method).calibrate(calibration).predict(rows) == rows.gold_position)


def _temperatures(collection: Collection, name: str, seed: int) -> Line:
    summaries = [summarise(collection.decided(make_method("lad", temperature=tau)), seed=seed) for tau in TEMPERATURES]
    return Line(
        name,
        np.asarray(TEMPERATURES),
        np.asarray([f.accuracy for f in summaries]),
        np.asarray([f.accuracy_low for f in summaries]),
        np.asarray([f.accuracy_high for f in summaries]),
    )


FIGURE6 = Study("figure6", "Calibration size and temperature", _sensitivity_needs, _sensitivity_sheet)


SIZES_METHODS = ("vanilla", "pride", "purified-attention", "lad")


def _sizes_needs(family: Family) -> list[Need]:
    return [Need(family.tasks[setting, n], SIZES_METHODS) for setting in SETTINGS for n in family.sizes(setting)]


def _sizes_sheet(library: Library, family: Family) -> Sheet:
    panels = []
    for setting in SETTINGS:
        sizes = np.asarray(family.sizes(setting), dtype=np.float64)
        by_method = {
            name: [summarise(library[Need(family.tasks[setting, int(n)])].stored(name), seed=library.seed) for n in sizes]
            for name in SIZES_METHODS
        }
        lines = tuple(
            Line(
                name,
                sizes,
                np.asarray([f.accuracy for f in series]),
                np.asarray([f.accuracy_low for f in series]),
                np.asarray([f.accuracy_high for f in series]),
            )
            for name, series in by_method.items()
        )
        panels.append(Lines(setting, lines, "images N", "accuracy (points)", chance=(sizes, 100 / sizes)))
    chart = Chart("figure5", FIGURE5.title, tuple(panels), alt="Accuracy by the number of images, one line a method.")
    return Sheet("figure5", FIGURE5.title, charts=(chart,), remarks=("Bands: 95 % intervals.",))


FIGURE5 = Study("figure5", "Accuracy against the number of images", _sizes_needs, _sizes_sheet)
