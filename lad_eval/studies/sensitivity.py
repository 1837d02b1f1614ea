"""Figure 6: how many calibration samples LAD needs, and how sharp its posterior should be."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence import Evidence
from lad_eval.methods import make_method
from lad_eval.metrics import accuracy, summarise
from lad_eval.studies.family import SETTINGS, Family
from lad_eval.studies.library import Collection, Library
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Chart, Line, Lines, Sheet
from lad_eval.studies.study import Study

METHODS = ("pride", "purified-attention", "lad", "lad-unlabelled")
POOL = 20
SAMPLES = (1, 2, 3, 5, 8, 12, 20)
DRAWS = 20
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)


def _needs(family: Family) -> list[Need]:
    return [Need(family.tasks[setting, 4], ("vanilla", *METHODS), calibration_samples=POOL) for setting in SETTINGS]


def _sheet(library: Library, family: Family) -> Sheet:
    by_size = tuple(
        Lines(
            setting,
            tuple(_curve(library[need], name, library.seed) for name in METHODS),
            "calibration samples",
            "accuracy (points)",
            log_x=True,
        )
        for setting, need in zip(SETTINGS, _needs(family), strict=True)
    )
    by_temperature = Lines(
        "temperature",
        tuple(
            _temperatures(library[need], setting, library.seed) for setting, need in zip(SETTINGS, _needs(family), strict=True)
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
        found = [
            _accuracy(collection, method, _part(collection, generator.choice(pool, size, replace=False))) for _ in range(draws)
        ]
        means.append(float(np.mean(found)))
        lows.append(float(np.quantile(found, 0.05)))
        highs.append(float(np.quantile(found, 0.95)))
    return Line(method, np.asarray(SAMPLES, dtype=np.float64), np.asarray(means), np.asarray(lows), np.asarray(highs))


def _part(collection: Collection, samples: np.ndarray[tuple[int, ...], np.dtype[np.str_]]) -> Evidence:
    rows = collection.calibration
    return rows.select(np.flatnonzero(np.isin(rows.sample_id, samples)))


def _accuracy(collection: Collection, method: str, calibration: Evidence) -> float:
    rows = collection.evaluated
    return accuracy(make_method(method).calibrate(calibration).predict(rows) == rows.gold_position)


def _temperatures(collection: Collection, name: str, seed: int) -> Line:
    found = [summarise(collection.decided(make_method("lad", temperature=tau)), seed=seed) for tau in TEMPERATURES]
    return Line(
        name,
        np.asarray(TEMPERATURES),
        np.asarray([f.accuracy for f in found]),
        np.asarray([f.accuracy_low for f in found]),
        np.asarray([f.accuracy_high for f in found]),
    )


FIGURE6 = Study("figure6", "Calibration size and temperature", _needs, _sheet)
