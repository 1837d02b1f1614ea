"""The whole order: ask what is missing, make tables and figures, write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.trend import RAMP_R2
from lad_eval.metrics import summarise
from lad_eval.report.html import frame
from lad_eval.report.sheet import Sheet
from lad_eval.run import folder as files
from lad_eval.run.execute import Settings
from lad_eval.run.metadata import checkout
from lad_eval.studies.files import pictures, write_parts, write_text
from lad_eval.studies.pruning.collect import Collected, collected
from lad_eval.studies.pruning.conditions import DECISIONS
from lad_eval.studies.pruning.figures import accuracy_chart, heat_chart, index_charts, middle, most_met
from lad_eval.studies.pruning.tables import accuracy_sheet, answers, bias_tables, cost_sheet, reported_sheet, share
from lad_eval.studies.pruning.task import task_of
from lad_eval.version import __version__

STUDY = "pruning"


@dataclass(frozen=True)
class Written:
    """What the study made: the sheets, and the folder that they lie in."""

    folder: Path
    sheets: tuple[Sheet, ...]


def pruning(settings: Settings, task: str, keeps: Sequence[float], out: Path) -> Written | None:
    """Makes the study for one model.

    Args:
        settings: model, limit, where runs are kept, ...; tasks and methods are the study's.
        task: name of a task, or the path of its file.
        keeps: shares of the visual tokens, as `parse_keeps` gives them.
        out: the folder for what is made; a folder of the model's name is made in it.

    Returns:
        What was written; None in a process that does not lead.

    Raises:
        UserError: see `task_of` and `collected`.
    """
    folder = out / files.slug(settings.model_name)
    made = collected(settings, task_of(task), keeps, folder)
    if made is None:
        return None
    sheets = _sheets(made, keeps, settings)
    write_parts(folder, sheets)
    heading = f"Pruning the visual tokens of {settings.model_name} on {task}"
    across, preface, provenance = _finding(made, keeps), _preface(settings), _provenance(made.run.metrics)
    text = [f"# {heading}", *across, *preface, *(one.markdown() for one in sheets)]
    write_text(folder / "pruning.md", "\n\n".join(text) + "\n")
    html = frame.page(
        "pruning.html",
        title=f"{heading}: tables and figures",
        heading=heading,
        across=across,
        sheets=sheets,
        preface=preface,
        provenance=provenance,
        pictures=pictures,
    )
    write_text(folder / "report.html", html)
    return Written(folder, sheets)


def _sheets(made: Collected, keeps: Sequence[float], settings: Settings) -> tuple[Sheet, ...]:
    heat = heat_chart(made)
    charts = (*index_charts(made), *([] if heat is None else [heat]))
    missing = () if heat is not None else ("the map over the pictures: they are not one square of visual tokens each.",)
    accuracy = accuracy_sheet(made.run, keeps, seed=settings.seed)
    trend = next(iter(made.trends.values())).learned_trend
    visual = 0 if trend is None else sum(most_met(trend))
    sheets = [
        replace(accuracy, charts=(accuracy_chart(made.run, keeps, seed=settings.seed),)),
        Sheet("bias", "How attention and choice depend on a token's index", bias_tables(made), charts, missing=missing),
        cost_sheet(made.costs, made.shape, visual),
    ]
    if (reported := reported_sheet(settings.model_name)) is not None:
        sheets.append(reported)
    return tuple(sheets)


def _finding(made: Collected, keeps: Sequence[float]) -> list[str]:
    """What came out, a sentence each."""
    keep = middle([keep for keep, _ in made.trends])
    lines = []
    for decision in DECISIONS:
        right = {pair: summarise(table).accuracy for pair, table in answers(made.run, keeps, decision).items()}
        lines.append(
            f"{decision}: right {right[None, '']:.1f} % of the time; with {share(keep)} of the visual tokens "
            f"{right[keep, 'none']:.1f} %, with the mean trend taken out {right[keep, 'mean']:.1f} %, the exponential "
            f"{right[keep, 'exp']:.1f} %, by chance {right[keep, 'random']:.1f} %."
        )
    fit = made.trends[keep, "exp"].strengths["attention"]
    where = f"the attention that tokens are ranked by, before layer {FastV.layer},"
    if fit.is_ramp:
        preferred = "late" if fit.sigma > 0 else "early"
        lines.append(f"In {where} {preferred} tokens are preferred (sigma {fit.sigma:.2f}, R2 {fit.r2:.2f}).")
    else:
        lines.append(f"In {where} there is no ramp (R2 {fit.r2:.2f}, below {RAMP_R2}): an exponential has nothing to take out.")
    return lines


def _preface(settings: Settings) -> list[str]:
    lines = []
    if settings.limit is not None:
        lines.append(f"Only the first {settings.limit} samples were asked.")
    if settings.model == "lad-tiny":
        lines.append(
            "lad-tiny is a model organism whose bias and attention are trained in; its figures say nothing of other models."
        )
    return lines


def _provenance(run: Mapping[str, Any]) -> list[str]:
    lines = [f"{key.replace('_', ' ')}: {run.get(key)}" for key in ("dtype", "attention_implementation", "device")]
    return [*lines, f"made with lad_eval {__version__}, {json.dumps(checkout())}"]
