"""Figure 5: accuracy against the number of images."""

from __future__ import annotations

import numpy as np

from lad_eval.metrics import summarise
from lad_eval.studies.family import SETTINGS, Family
from lad_eval.studies.library import Library
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Chart, Line, Lines, Sheet
from lad_eval.studies.study import Study

METHODS = ("vanilla", "pride", "purified-attention", "lad")


def _needs(family: Family) -> list[Need]:
    return [Need(family.tasks[setting, n], METHODS) for setting in SETTINGS for n in family.sizes(setting)]


def _sheet(library: Library, family: Family) -> Sheet:
    panels = []
    for setting in SETTINGS:
        sizes = np.asarray(family.sizes(setting), dtype=np.float64)
        found = {
            name: [summarise(library[Need(family.tasks[setting, int(n)])].stored(name), seed=library.seed) for n in sizes]
            for name in METHODS
        }
        lines = tuple(
            Line(
                name,
                sizes,
                np.asarray([f.accuracy for f in series]),
                np.asarray([f.accuracy_low for f in series]),
                np.asarray([f.accuracy_high for f in series]),
            )
            for name, series in found.items()
        )
        panels.append(Lines(setting, lines, "images N", "accuracy (points)", chance=(sizes, 100 / sizes)))
    chart = Chart("figure5", FIGURE5.title, tuple(panels), alt="Accuracy by the number of images, one line a method.")
    return Sheet("figure5", FIGURE5.title, charts=(chart,), remarks=("Bands: 95 % intervals.",))


FIGURE5 = Study("figure5", "Accuracy against the number of images", _needs, _sheet)
