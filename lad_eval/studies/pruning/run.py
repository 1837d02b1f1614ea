"""The whole study: its run, its measurements, its documents, the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.trend import ATTENTION, RAMP_R2
from lad_eval.errors import UserError
from lad_eval.models.base import VLM
from lad_eval.run.folder import files
from lad_eval.run.settings import Settings
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.output import StudyOutput, StudyReport, notices, provenance, write_study
from lad_eval.studies.pruning.conditions import DECISIONS, UNPRUNED, PruningCondition, method_names
from lad_eval.studies.pruning.data import PrunerData, PruningData, read_data
from lad_eval.studies.pruning.figures import accuracy_chart, heat_chart, index_chart, layers_chart
from lad_eval.studies.pruning.measurements import calibration_requests, fit_layers, measure_costs
from lad_eval.studies.pruning.reported import reported_document
from lad_eval.studies.pruning.tables import accuracy_document, bias_document, cost_document, named_after, share
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import RunIndex, collect_runs, stored_runs

STUDY = "pruning"


def pruning_study(
    settings: Settings,
    task: str,
    keeps: tuple[float, ...],
    pruners: Sequence[DebiasedPruner],
    out: Path,
    *,
    stored: bool = False,
) -> StudyOutput | None:
    """Runs the study for one model.

    Args:
        settings: model, limit, where runs are stored, ...; tasks and methods are the study's.
        task: name of a task, or the path of its file.
        keeps: shares of the visual tokens, as `parse_keeps` gives them.
        pruners: as `parse_pruners` gives them.
        out: the parent of the study's folder, which has the model's name.
        stored: read a finished run and load no model.

    Returns:
        What was written; None in every process but the main one.

    Raises:
        UserError: see `Requirement.load_task` and `collect_runs`; or there is no stored run.
    """
    folder = out / files.slug(settings.model_name)
    requirement = Requirement(task, tuple(method_names(pruners, keeps)))

    def measure(model: VLM, _: RunIndex) -> None:
        loaded = requirement.load_task()
        for pruner in pruners:
            fit_layers(model, pruner, calibration_requests(loaded, settings.samples_of(loaded), pruner), folder)
        measure_costs(model, loaded, pruners, keeps, folder)

    if stored:
        requirement.load_task()  # an unknown task is named as such
        runs = stored_runs([requirement], settings)
        if not runs.has(requirement):
            raise UserError(f"The study cannot be made from stored runs: {runs.why_missing([requirement])}")
    else:
        collected = collect_runs([requirement], settings, folder, after=measure)
        if collected is None:
            return None
        runs = collected
    data = read_data(runs, requirement, pruners, keeps, settings, folder)
    names = ", ".join(pruner.label for pruner in pruners)
    report = StudyReport(
        STUDY,
        f"Pruning the visual tokens of {settings.model_name} on {task}",
        f"Visual tokens are pruned by {names}; the trend of attention over their index is removed as in the paper.",
        "arXiv 2508.17807",
        "2508.17807",
        _documents(data, settings.model_name),
        findings=[line for one in data.pruners for line in _findings(one, several=len(data.pruners) > 1)],
        notices=notices(settings),
        provenance=provenance([runs[requirement].run.metrics]),
    )
    return write_study(report, folder)


def _documents(data: PruningData, model: str) -> tuple[StudyDocument, ...]:
    documents: list[StudyDocument] = []
    for one in data.pruners:
        heat = heat_chart(one)
        charts = (index_chart(one), *([layers_chart(one)] if one.layers else []), *([] if heat is None else [heat]))
        bias = bias_document(one)
        missing = () if heat is not None else ("the map over the pictures: they are not one square of visual tokens each.",)
        both = [
            replace(accuracy_document(one), charts=(accuracy_chart(one),)),
            replace(bias, charts=charts, missing=(*bias.missing, *missing)),
        ]
        documents += both if len(data.pruners) == 1 else [named_after(document, one.pruner.label) for document in both]
    documents.append(cost_document(data.costs))
    if (reported := reported_document(model, data.pruners)) is not None:
        documents.append(reported)
    return tuple(documents)


def _findings(data: PrunerData, *, several: bool) -> list[str]:
    """The findings, one sentence each."""
    keep = data.middle
    prefix = f"{data.pruner.label}, " if several else ""
    lines = []
    for decision in DECISIONS:
        summaries = data.summaries(decision)
        none, mean, exp, random = (
            f"{summaries[PruningCondition(keep, ranking)].accuracy:.1f} %" for ranking in ("none", "mean", "exp", "random")
        )
        lines.append(
            f"{prefix}{decision}: right {summaries[UNPRUNED].accuracy:.1f} % of the time; with {share(keep)} of the visual "
            f"tokens {none}, with the mean trend taken out {mean}, the exponential {exp}, and with "
            f"tokens kept at random {random}."
        )
    fit = data.trends[PruningCondition(keep, "exp")].strengths[ATTENTION.label]
    where = f"In the attention that {data.pruner.label} ranks tokens by, before layer {data.pruner.layer},"
    if fit.is_ramp:
        preferred = "late" if fit.sigma > 0 else "early"
        lines.append(f"{where} {preferred} tokens are preferred (sigma {fit.sigma:.2f}, R2 {fit.r2:.2f}).")
    else:
        lines.append(f"{where} there is no ramp (R2 {fit.r2:.2f}, below {RAMP_R2}): an exponential has nothing to take out.")
    return lines
