"""The paper's figures next to ours, where the model is one of the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lad_eval.metrics import compare
from lad_eval.report.table import Content, Table, figure
from lad_eval.run.folder.rows import is_same_model
from lad_eval.studies.capl.conditions import PLAIN, CaplCondition
from lad_eval.studies.capl.data import TaskData
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.tables import difference_cells


@dataclass(frozen=True)
class ReportedModel:
    """What the paper reports of a model, accuracy in points by data set.

    Attributes:
        base: of the model as it is.
        fused: with fused attention alone, where it is reported.
        trained: trained, under fused attention.
    """

    base: dict[str, float]
    fused: dict[str, float]
    trained: dict[str, float]


_SETS = ("BLINK", "MUIRBench", "NLVR2", "QBench2", "MIBench", "MIRB")


def _model(base: Sequence[float], trained: Sequence[float], fused: Sequence[float]) -> ReportedModel:
    return ReportedModel(*(dict(zip(_SETS, values, strict=False)) for values in (base, fused, trained)))


# Source: arXiv 2603.07048, by a third party's summary. 56.55 on MIRB stands there for two models.
REPORTED = {
    "Qwen2.5-VL-7B": _model((54.60, 58.42, 79.85, 71.1, 72.42, 52.73), (57.76, 62.00, 80.05, 72.4, 71.06, 56.55), (55.34, 58.96)),
    "InternVL2.5-8B": _model(
        (54.81, 48.54, 90.42, 75.5, 63.42, 54.18), (55.76, 52.12, 90.13, 75.3, 65.11, 56.55), (55.02, 49.07)
    ),
    "GLM-4.1V-9B": _model((58.17, 57.84, 84.98, 74.4, 70.86, 59.96), (61.33, 60.57, 84.87, 73.6, 71.70, 60.06), (58.23, 58.07)),
}


def reported_model(name: str) -> str | None:
    """The paper's name of a model; None if it is none of the paper's.

    Args:
        name: as tables show it; of a model with an adapter, the base's.
    """
    return next((theirs for theirs in REPORTED if any(is_same_model(ours, theirs) for ours in _spellings(name))), None)


def _spellings(name: str) -> tuple[str, ...]:
    """With the endings of released checkpoints, such as GLM-4.1V-9B-Thinking, and InternVL's way to write a dot."""
    stem = name.replace("InternVL2_5", "InternVL2.5")
    return stem, stem.removesuffix("-Thinking"), stem.removesuffix("-Base")


def reported_document(name: str, tasks: Sequence[TaskData]) -> StudyDocument | None:
    """What the paper reports of the model, and what we measured; None for another model.

    Args:
        name: of the base.
        tasks: what was measured.
    """
    theirs = reported_model(name)
    if theirs is None:
        return None
    reported = REPORTED[theirs]
    rows: list[tuple[Content, ...]] = []
    for data_set, base in reported.base.items():
        fused, trained = reported.fused.get(data_set), reported.trained[data_set]
        gain = None if fused is None else figure(fused - base, digits=2)
        values = (figure(value, digits=2) for value in (base, fused, trained))
        rows.append((data_set, *values, gain, figure(trained - base, digits=2)))
    for data in tasks:
        row, label = data.conditions.row, data.conditions.fused.label
        base_row, wanted = row("base", PLAIN), [row("base", label), *([row("trained", label)] if data.conditions.trained else [])]
        accuracies = [figure(data.summaries[one].accuracy) for one in (base_row, *wanted)]
        gains = [_gain(data, one, base_row) for one in wanted]
        missing: list[Content] = [] if data.conditions.trained else [None]
        rows.append((f"{data.task} (ours)", *accuracies, *missing, *gains, *missing))
    notes = (
        f"{theirs}: arXiv 2603.07048, as a third party's summary gives its figures. Ours are of other tasks: compare gains, not "
        "levels. docs/vlmevalkit.md has the paper's data sets.",
    )
    headers = ("Data set", "Base", "Fused", "Trained, fused", "Gain, fused", "Gain, trained and fused")
    return StudyDocument("reported", "What the paper reports of this model, and ours", (Table("Accuracy", headers, rows, notes),))


def _gain(data: TaskData, first: CaplCondition, base: CaplCondition) -> Content:
    (pair,) = compare({"first": data.predictions[first], "base": data.predictions[base]}, against="base", seed=data.seed)
    return difference_cells(pair)[0]
