"""The study from beginning to end: its runs, its measurements, its documents, the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.models.base import VLM, RunsPrompts
from lad_eval.models.source import display_name, local_folder, source_of
from lad_eval.run.collect import under
from lad_eval.run.folder import files
from lad_eval.run.settings import Settings
from lad_eval.studies.capl.between import measure_between
from lad_eval.studies.capl.conditions import PLAIN, TRUNCATED, StudyConditions, Weights, parse_fused, parse_rival
from lad_eval.studies.capl.data import TaskData, attention_requests, read_data
from lad_eval.studies.capl.figures import between_charts, direction_chart, positions_chart
from lad_eval.studies.capl.reported import reported_document
from lad_eval.studies.capl.tables import (
    accuracy_tables,
    between_matrices,
    between_table,
    directions,
    needing_pairs,
    needs_table,
    positions_table,
)
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.output import StudyOutput, StudyReport, notices, provenance, write_study
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import RunIndex, collect_runs, stored_runs
from lad_eval.tasks.registry import resolve

STUDY = "capl"


def capl_study(settings: Settings, attention: str | None, rival: str, out: Path, *, stored: bool = False) -> StudyOutput | None:
    """Makes the study for one model, and for its adapter if there is one.

    Args:
        settings: model, adapter, tasks, limit, where runs are stored, ...; the methods are the study's. Attention
            between images is measured on the first task.
        attention: of the fused rows, as `parse_fused` takes it.
        rival: as `parse_rival` takes it.
        out: the parent of the study's folder, which has the model's name.
        stored: read finished runs and load no model.

    Returns:
        What was written; None in every process but the main one.

    Raises:
        UserError: a name is wrong, the model cannot be run under an intervention, or there is no stored run.
    """
    settings = _base_and_adapter(settings)
    fused = parse_fused(attention, _trained_under(settings.adapter))
    conditions = StudyConditions(fused, parse_rival(rival, fused), settings.adapter is not None)
    requirements = [Requirement(task, conditions.methods) for task in resolve(settings.tasks)]
    folder = out / files.slug(settings.model_name)
    models: dict[Weights, Settings] = {"base": replace(settings, adapter=None)}
    if settings.adapter is not None:
        models["trained"] = settings
    indexes: dict[Weights, RunIndex] = {}
    for weights, chosen in models.items():
        if stored:
            indexes[weights] = _stored(requirements, chosen)
            continue
        collected = _collect(requirements, chosen, weights, conditions, folder)
        if collected is None:
            return None
        indexes[weights] = collected
    tasks = read_data(indexes, requirements, conditions, settings, folder)
    names = ", ".join(data.task for data in tasks)
    report = StudyReport(
        STUDY,
        f"Attention between images in {settings.model_name} on {names}",
        "What a model gains where its images see each other, what it loses where they do not, and what an adapter trained on the "
        "difference changes.",
        "CAPL",
        "2603.07048",
        _documents(tasks, display_name(settings.model, None, settings.revision)),
        findings=[line for data in tasks for line in _findings(data)],
        notices=notices(settings),
        provenance=provenance([index[requirement].run.metrics for index in indexes.values() for requirement in requirements]),
    )
    return write_study(report, folder)


def _base_and_adapter(settings: Settings) -> Settings:
    """The settings with the base as the model, where the folder of an adapter was named as the model."""
    source = source_of(settings.model, adapter=settings.adapter, revision=settings.revision)
    if settings.adapter is not None or source.adapter is None:
        return settings
    if source.adapter == source.folder:
        raise UserError(
            f"{settings.model} holds a base and its adapter in one folder, and the study compares both: name the base with "
            "--model and the adapter's own folder with --adapter."
        )
    return replace(settings, model=source.base, revision=source.revision, adapter=str(source.adapter))


def _trained_under(adapter: str | None) -> dict[str, object] | None:
    """What the adapter's folder says of the attention of its training; nothing of an adapter that is on the hub."""
    from lad_eval.models.fingerprint import adapter_attention

    folder = None if adapter is None else local_folder(adapter)
    return None if folder is None else adapter_attention(folder)


def _stored(requirements: Sequence[Requirement], settings: Settings) -> RunIndex:
    for requirement in requirements:
        requirement.load_task()  # an unknown task is named as such
    runs = stored_runs(requirements, settings)
    missing = [requirement for requirement in requirements if not runs.has(requirement)]
    if missing:
        raise UserError(f"The study cannot be made from stored runs of {settings.model_name}: {runs.why_missing(missing)}")
    return runs


def _collect(
    requirements: Sequence[Requirement], settings: Settings, weights: Weights, conditions: StudyConditions, folder: Path
) -> RunIndex | None:
    task = requirements[0].load_task()
    requests = attention_requests(task, settings.samples_of(task))

    def check(model: VLM, _: RunIndex) -> None:
        if conditions.rival is None:
            return
        try:
            with under(model, conditions.rival):
                model.evidence(requests[:1])
        except UserError as error:
            raise UserError(
                f"The rival {conditions.rival.label} cannot be run: {error} Name another with --rival, or none."
            ) from error

    def measure(model: VLM, _: RunIndex) -> None:
        if isinstance(model, RunsPrompts):
            measure_between(model, weights, task.name, requests, conditions.fused, folder)

    return collect_runs(requirements, settings, folder, before=check, after=measure)


def _documents(tasks: Sequence[TaskData], base: str) -> tuple[StudyDocument, ...]:
    accuracy = tuple(table for data in tasks for table in accuracy_tables(data))
    main = tasks[0]
    documents = [
        StudyDocument("accuracy", "What attention between images is worth", accuracy, remarks=_remarks(main)),
        StudyDocument("needs", "Answers that need other images", tuple(needs_table(data) for data in tasks)),
        StudyDocument(
            "positions",
            "Where the answers stand",
            tuple(positions_table(data) for data in tasks),
            tuple(positions_chart(data) for data in tasks),
        ),
        between_document(main),
    ]
    if (reported := reported_document(base, tasks)) is not None:
        documents.append(reported)
    return tuple(documents)


def _remarks(data: TaskData) -> tuple[str, ...]:
    lines = ["Truncated attention hides images from each other in all layers; it measures how much a model uses other images."]
    if data.conditions.rival is not None:
        lines.append(
            f"{data.conditions.rival.label} is a rival without training: it keeps images apart where fused attention opens them."
        )
    if data.conditions.trained:
        lines.append(
            "Trained: with the adapter. Without fused attention it is run under another attention than it was trained under."
        )
    return tuple(lines)


def between_document(data: TaskData) -> StudyDocument:
    """Tables and pictures of the attention between images, or why there are none."""
    title = "Attention between images, layer by layer"
    if set(data.between) != set(data.conditions.weights):
        reason = "attention between images is measured on a model of transformers: run without --stored."
        return StudyDocument("between", title, missing=(reason,))
    remark = "One scale for all pictures, up to the highest share that goes to another image; an image's own tokens exceed it."
    return StudyDocument("between", title, (between_table(data),), (direction_chart(data), *between_charts(data)), (remark,))


def _findings(data: TaskData) -> list[str]:
    """What came out, one sentence each."""
    row, fused, rival = data.conditions.row, data.conditions.fused.label, data.conditions.rival
    right = {condition: f"{summary.accuracy:.1f} %" for condition, summary in data.summaries.items()}
    line = (
        f"{data.task}: right {right[row('base', PLAIN)]} of the time, with fused attention {right[row('base', fused)]}, with "
        f"truncated attention {right[row('base', TRUNCATED)]}"
    )
    line += "" if rival is None else f", with {rival.label} {right[row('base', rival.label)]}"
    if data.conditions.trained:
        line += f"; trained {right[row('trained', PLAIN)]}, trained and fused {right[row('trained', fused)]}"
    lines = [f"{line} (chance {100 / data.candidates:.3g} %)."]
    seen, unseen = needing_pairs(data)[0]
    other = data.share(data.differing(seen, unseen))
    lines.append(f"{other.value:.1f} % of its answers with fused attention need other images: truncated attention changes them.")
    if data.between:
        matrices = between_matrices(data)
        layers = sorted(matrices["fused"])[:: data.conditions.fused.every]
        plain, opened = (
            sum(directions(matrices[name][layer])[2] for layer in layers) / len(layers) for name in ("base", "fused")
        )
        lines.append(
            f"In fused layers an image's tokens give {opened:.1f} % of their attention to later images (before: {plain:.1f} %)."
        )
    return lines
