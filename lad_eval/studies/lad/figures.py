"""The figures, and table 7: answers and attention by position, by calibration size and by number of images."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods import make_evidence_method
from lad_eval.metrics import Predictions, compare, confusion, holm, paired_test, row_shares, summarise
from lad_eval.metrics import accuracy as share_correct
from lad_eval.report.panels import Chart, DensityPlot, HeatMap, LinePlot, Series
from lad_eval.report.table import Content, Table, figure, p_value
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.lad.family import SETTINGS, TaskFamily
from lad_eval.studies.lad.part import StudyData, StudyPart
from lad_eval.studies.requirement import IDENTIFIERS, Requirement
from lad_eval.studies.runs import StudyRun
from lad_eval.studies.tables import accuracy, accuracy_series
from lad_eval.tasks.prompts import identifiers

METHODS = ("vanilla", "pride", "lad")
SIZES = (4, 8)


def _confusion_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(family.tasks["random", n], METHODS) for n in SIZES if family.has("random", n)]


def _style_requirements(family: TaskFamily) -> list[Requirement]:
    task = family.tasks["random", 4]
    return [
        Requirement(task, METHODS),
        *(Requirement(task, METHODS, identifiers=style) for style in IDENTIFIERS if style != "1.."),
    ]


def confusion_shares(predictions: Predictions) -> Floats:
    """Share of answers at each position, in points, Float[N, N]: row the right position, column the answered one.

    Unparsable replies are in no column, so that a row may sum to less than 100; a position that was never the right one has NaN.
    """
    N = predictions.perm.shape[1]
    return row_shares(confusion(predictions.gold_position, predictions.predicted, N))[:, :N]


def _confusions(run: StudyRun, ticks: tuple[str, ...], name: str, title: str) -> Chart:
    panels = tuple(
        HeatMap(method, confusion_shares(run.predictions(method)), "answered", "right position", ticks) for method in METHODS
    )
    return Chart(name, title, panels, alt="A fair model has a dark diagonal; a biased one has dark columns.")


def _by_size(data: StudyData) -> StudyDocument:
    charts = []
    for requirement in _confusion_requirements(data.family):
        n = data.runs[requirement].evidence.n_candidates
        charts.append(_confusions(data.runs[requirement], identifiers("1..", n), f"figure1-n{n}", f"N = {n}"))
    missing = tuple(data.family.lacks(f"N = {n}") for n in SIZES if not data.family.has("random", n))
    return StudyDocument(
        "figure1", FIGURE1.title, charts=tuple(charts), remarks=("Share of answers in points, by row.",), missing=missing
    )


def _by_style(data: StudyData) -> StudyDocument:
    charts = []
    for requirement, (style, word) in zip(_style_requirements(data.family), IDENTIFIERS.items(), strict=True):
        charts.append(_confusions(data.runs[requirement], identifiers(style, 4), f"figure8-{word}", f"Identifiers: {word}"))
    remark = "Share of answers in points, by row; the same questions with other names for the candidates."
    return StudyDocument("figure8", FIGURE8.title, charts=tuple(charts), remarks=(remark,))


FIGURE1 = StudyPart("figure1", "Confusion matrices", _confusion_requirements, _by_size)
FIGURE8 = StudyPart("figure8", "Confusion matrices under other identifiers", _style_requirements, _by_style)


SHARES = ("Both right", "Only attention", "Only logits", "Neither")


def _divergence_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(task, ("vanilla", "lad")) for _, _, task in family.main()]


def _divergence_table(data: StudyData) -> StudyDocument:
    rows_untested: list[tuple[Content, ...]] = []
    tests: list[float] = []
    for (setting, n, _), requirement in zip(data.family.main(), _divergence_requirements(data.family), strict=True):
        run = data.runs[requirement]
        logits = run.decide(make_evidence_method("vanilla"))
        attention = run.decide(make_evidence_method("purified-attention"))
        (pair,) = compare({"attention": attention, "logits": logits}, against="logits", seed=data.runs.seed)
        shares = _divergence_shares(attention, logits)
        cells = (accuracy(summarise(table, seed=data.runs.seed)) for table in (logits, attention))
        tests.append(paired_test(attention.grid.correct, logits.grid.correct))
        rows_untested.append((f"{setting} N = {n}", *cells, figure(*pair.accuracy), pair.detectable, *shares))
    rows = [(*row[:4], p_value(float(p)), *row[4:]) for row, p in zip(rows_untested, holm(tests), strict=True)]
    headers = ("Task", "Logits", "Attention", "Divergence", "p (Holm)", "Detectable", *SHARES)
    notes = (
        "Logits: vanilla; attention: purified attention. Divergence: the second minus the first, with its paired 95 % interval.",
        "p: exact paired test over samples of equal accuracy, Holm's correction over the tasks. "
        "Detectable: the smallest true difference that this many samples detect with power 0.8.",
        "The last four columns: share of answers, in points.",
    )
    return StudyDocument("table7", TABLE7.title, (Table(TABLE7.title, headers, tuple(rows), notes),))


def _divergence_shares(attention: Predictions, logits: Predictions) -> tuple[float, float, float, float]:
    a, b = attention.predicted == attention.gold_position, logits.predicted == logits.gold_position
    both, only_a, only_b, none = (100 * float(x.mean()) for x in (a & b, a & ~b, b & ~a, ~a & ~b))
    return both, only_a, only_b, none


def _divergence_figure(data: StudyData) -> StudyDocument:
    panels = []
    for (setting, n, _), requirement in zip(data.family.main(), _divergence_requirements(data.family), strict=True):
        run = data.runs[requirement]
        method = make_evidence_method("purified-attention", temperature=1.0).calibrate(run.calibration)
        rows = run.evaluated
        x, y = _of_gold(np.exp(rows.log_probs), rows), _of_gold(np.exp(method.predict_log_proba(rows)), rows)
        panels.append(
            DensityPlot(f"{setting} N = {n}", x, y, "probability of the right position", "attention to the right image")
        )
    chart = Chart(
        "figure3",
        FIGURE3.title,
        tuple(panels),
        alt="Above the diagonal the attention favours the right image more than the logits do.",
    )
    remark = "Attention: purified (temperature 1), as a share of all images; each answer is a point."
    return StudyDocument("figure3", FIGURE3.title, charts=(chart,), remarks=(remark,))


def _of_gold(values: Floats, rows: Evidence) -> Floats:
    chosen: Floats = values[np.arange(len(rows)), rows.gold_position]
    return chosen


TABLE7 = StudyPart("table7", "Logit-attention divergence", _divergence_requirements, _divergence_table)
FIGURE3 = StudyPart("figure3", "Attention against logits", _divergence_requirements, _divergence_figure)


def _profile_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(task, ("vanilla", "lad")) for setting, _, task in family.main() if setting == "random"]


def _profile_document(data: StudyData) -> StudyDocument:
    charts = []
    for requirement in _profile_requirements(data.family):
        run = data.runs[requirement]
        rows, n = run.evaluated, run.evidence.n_candidates
        attention = make_evidence_method("raw-attention").predict_log_proba(rows)
        panels = []
        for title, values in (("logits", rows.log_probs), ("attention", attention)):
            mean = mean_by_position(np.exp(values), rows.gold_position)
            panels.append(HeatMap(title, 100 * mean, "position", "right position", identifiers("1..", n)))
        charts.append(
            Chart(f"figure2-n{n}", f"N = {n}", tuple(panels), alt="Columns in the logits, a diagonal in the attention.")
        )
    remark = "Mean probability of each position, and mean share of the attention (raw, its 2 strongest layers), in points."
    return StudyDocument("figure2", FIGURE2.title, charts=tuple(charts), remarks=(remark,))


def mean_by_position(values: Floats, gold: Ints) -> Floats:
    """Means Float[N, N] of rows Float[n, N], one for each position of the answer; NaN where the answer never stood."""
    n = values.shape[1]
    means = np.full((n, n), np.nan)
    for position in np.unique(gold):
        means[position] = values[gold == position].mean(axis=0)
    return means


FIGURE2 = StudyPart("figure2", "Profiles of logits and attention by the right position", _profile_requirements, _profile_document)


SENSITIVITY_METHODS = ("pride", "purified-attention", "lad", "lad-unlabelled")
POOL = 20
SAMPLES = (1, 2, 3, 5, 8, 12, 20)
REPETITIONS = 20
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)


def _sensitivity_requirements(family: TaskFamily) -> list[Requirement]:
    return [
        Requirement(family.tasks[setting, 4], ("vanilla", *SENSITIVITY_METHODS), calibration_samples=POOL) for setting in SETTINGS
    ]


def _sensitivity_document(data: StudyData) -> StudyDocument:
    by_size = tuple(
        LinePlot(
            setting,
            tuple(_curve(data.runs[requirement], name, data.runs.seed) for name in SENSITIVITY_METHODS),
            "calibration samples",
            "accuracy (points)",
            log_x=True,
        )
        for setting, requirement in zip(SETTINGS, _sensitivity_requirements(data.family), strict=True)
    )
    by_temperature = LinePlot(
        "temperature",
        tuple(
            _temperatures(data.runs[requirement], setting, data.runs.seed)
            for setting, requirement in zip(SETTINGS, _sensitivity_requirements(data.family), strict=True)
        ),
        "temperature τ",
        "accuracy of LAD (points)",
        log_x=True,
    )
    remarks = (
        f"Calibration samples: mean of {REPETITIONS} random choices from {POOL}; the band holds nine choices in ten "
        "(it shows how much the choice matters, not the sampling error of the test).",
        "Temperature: everything else as by default; band: 95 % interval.",
    )
    charts = (
        Chart("figure6-calibration", "Calibration samples", by_size, alt="Accuracy by the number of calibration samples."),
        Chart("figure6-temperature", "Temperature", (by_temperature,), alt="Accuracy of LAD by its temperature."),
    )
    return StudyDocument("figure6", FIGURE6.title, charts=charts, remarks=remarks)


def _curve(run: StudyRun, method: str, seed: int) -> Series:
    generator = np.random.default_rng(seed)
    pool = np.unique(run.calibration.sample_id)
    means, lows, highs = [], [], []
    for size in SAMPLES:
        repetitions = 1 if size == len(pool) else REPETITIONS
        accuracies = [
            _accuracy(run, method, _rows_of(run, generator.choice(pool, size, replace=False))) for _ in range(repetitions)
        ]
        means.append(float(np.mean(accuracies)))
        lows.append(float(np.quantile(accuracies, 0.05)))
        highs.append(float(np.quantile(accuracies, 0.95)))
    return Series(method, np.asarray(SAMPLES, dtype=np.float64), np.asarray(means), np.asarray(lows), np.asarray(highs))


def _rows_of(run: StudyRun, samples: np.ndarray[tuple[int, ...], np.dtype[np.str_]]) -> Evidence:
    rows = run.calibration
    return rows.select(np.flatnonzero(np.isin(rows.sample_id, samples)))


def _accuracy(run: StudyRun, method: str, calibration: Evidence) -> float:
    rows = run.evaluated
    return share_correct(make_evidence_method(method).calibrate(calibration).predict(rows) == rows.gold_position)


def _temperatures(run: StudyRun, name: str, seed: int) -> Series:
    summaries = [summarise(run.decide(make_evidence_method("lad", temperature=tau)), seed=seed) for tau in TEMPERATURES]
    return accuracy_series(name, TEMPERATURES, summaries)


FIGURE6 = StudyPart("figure6", "Calibration size and temperature", _sensitivity_requirements, _sensitivity_document)


SIZES_METHODS = ("vanilla", "pride", "purified-attention", "lad")


def _sizes_requirements(family: TaskFamily) -> list[Requirement]:
    return [Requirement(family.tasks[setting, n], SIZES_METHODS) for setting in SETTINGS for n in family.sizes(setting)]


def _sizes_document(data: StudyData) -> StudyDocument:
    panels = []
    for setting in SETTINGS:
        sizes = data.family.sizes(setting)
        runs = [data.runs[Requirement(data.family.tasks[setting, n])] for n in sizes]
        lines = tuple(
            accuracy_series(name, sizes, [summarise(run.predictions(name), seed=data.runs.seed) for run in runs])
            for name in SIZES_METHODS
        )
        n = np.asarray(sizes, dtype=np.float64)
        panels.append(LinePlot(setting, lines, "images N", "accuracy (points)", chance=(n, 100 / n)))
    chart = Chart("figure5", FIGURE5.title, tuple(panels), alt="Accuracy by the number of images, one line per method.")
    return StudyDocument("figure5", FIGURE5.title, charts=(chart,), remarks=("Bands: 95 % intervals.",))


FIGURE5 = StudyPart("figure5", "Accuracy against the number of images", _sizes_requirements, _sizes_document)
