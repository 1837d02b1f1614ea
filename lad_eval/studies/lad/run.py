"""The whole study: which tables and figures, their runs, their documents, the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.report.html.finding import finding_of
from lad_eval.report.html.page import sentences_across
from lad_eval.run.folder import files
from lad_eval.run.progress import progress
from lad_eval.run.settings import Settings
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.lad import STUDY_PARTS
from lad_eval.studies.lad.cost import FILE, measure_costs, read_costs
from lad_eval.studies.lad.family import TaskFamily
from lad_eval.studies.lad.part import StudyData
from lad_eval.studies.output import StudyOutput, StudyReport, notices, provenance, write_study
from lad_eval.studies.requirement import merged
from lad_eval.studies.runs import collect_runs, stored_runs


def select_parts(names: Sequence[str] | None) -> list[str]:
    """Tables and figures by name, in the paper's order; None: all.

    Raises:
        UnknownNameError: there is no such table or figure.
        UserError: none is named.
    """
    if names is not None and not names:
        raise UserError("--only names none; `lad-eval ls studies` lists them.")
    for name in names or ():
        if name not in STUDY_PARTS:
            raise UnknownNameError("study", name, list(STUDY_PARTS))
    return [name for name in STUDY_PARTS if names is None or name in names]


def lad_study(
    settings: Settings, family: TaskFamily, out: Path, *, only: Sequence[str] | None = None, stored: bool = False
) -> StudyOutput | None:
    """Regenerates the paper's tables and figures for one model.

    Args:
        settings: model, limit, where runs are stored, ...; the study chooses the tasks and methods.
        family: the tasks that take the place of the paper's.
        out: the parent of the study's folder, which has the model's name.
        only: names of tables and figures; default: all.
        stored: read finished runs and load no model.

    Returns:
        What was written; None in every process but the main one.

    Raises:
        UserError: a name is wrong, or what `only` names cannot be made. Without `only`, a table whose data is missing is replaced
            by a line that says what is needed, and the others are made.
    """
    names = select_parts(only)
    strict = only is not None
    requirements = merged(requirement for name in names for requirement in STUDY_PARTS[name].requirements(family))
    folder = out / files.slug(settings.model_name)
    if stored:
        runs = stored_runs(requirements, settings)
    else:
        wants_costs = "table2" in names and not (folder / FILE).is_file()
        before = partial(_measure, family=family, settings=settings, folder=folder) if wants_costs else None
        collected = collect_runs(requirements, settings, folder, strict=strict, before=before)
        if collected is None:
            return None
        runs = collected
    data = StudyData(runs, family, read_costs(folder))
    documents = []
    with progress("tables and figures", len(names) + 1, shown=not settings.quiet, unit="steps") as advance:
        for name in names:
            documents.append(_document(name, data, strict=strict))
            advance(1)
        metrics = [runs[requirement].run.metrics for requirement in requirements if runs.has(requirement)]
        output = write_study(_report(tuple(documents), settings, family, metrics), folder)
        advance(1)
    return output


def _measure(model: Any, _: object, *, family: TaskFamily, settings: Settings, folder: Path) -> None:
    measure_costs(model, family, settings.limit, folder)


def _document(name: str, data: StudyData, *, strict: bool) -> StudyDocument:
    """The document of a table or figure, or a document that says why it is missing."""
    part = STUDY_PARTS[name]
    missing = [requirement for requirement in part.requirements(data.family) if not data.runs.has(requirement)]
    needed = [requirement for requirement in missing if not requirement.optional]
    if needed:
        reason = data.runs.why_missing(needed)
        if strict:
            raise UserError(f"{name} cannot be made: {reason}")
        return StudyDocument(name, part.title, missing=(reason,))
    document = part.document(data)
    return replace(document, missing=(*document.missing, data.runs.why_missing(missing))) if missing else document


def _report(
    documents: tuple[StudyDocument, ...], settings: Settings, family: TaskFamily, runs: Sequence[Mapping[str, Any]]
) -> StudyReport:
    return StudyReport(
        "paper",
        f"Position bias of {settings.model_name} on the {family.name} tasks",
        "The paper's tables and figures, for this model.",
        "Logit-Attention Divergence",
        "2605.11591",
        documents,
        findings=_findings(runs, family),
        notices=notices(settings),
        provenance=provenance(runs),
    )


def _findings(runs: Sequence[Mapping[str, Any]], family: TaskFamily) -> list[str]:
    """The findings on the main tasks, as far as they were run."""
    main = [task for _, _, task in family.main()]
    findings = [(run, finding) for run in runs if run["task"] in main and (finding := finding_of(run)) is not None]
    return sentences_across(findings) or [finding.title for _, finding in findings]
