"""One run as a section of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lad_eval.errors import UserError
from lad_eval.report.html.examples import LOGITS, MOST_SAMPLES, Divergences, SampleCard, cards, divergences, flipping, payload
from lad_eval.report.html.figures import (
    Figure,
    FigureGroup,
    attention_figure,
    confusion_figures,
    learned_figures,
    recall_figure,
)
from lad_eval.report.html.finding import finding_of, short_of
from lad_eval.report.html.load import Material
from lad_eval.report.html.measures import recalls_of
from lad_eval.report.html.opening import Opening, marks_note, opening_of
from lad_eval.report.html.pictures import ImageBundle, first_of
from lad_eval.report.html.summary import Headline, SummaryRow, facts, headlines, published, summary_rows
from lad_eval.report.html.text import clean, colours_of, without_paths
from lad_eval.report.table import Table
from lad_eval.tasks.request import Sample

PICTURED = 24


@dataclass(frozen=True)
class Section:
    """Everything that the template shows of one run; `missing_*` say why something is missing, "" if it is not.

    `run` distinguishes runs of one model on one task; "" if there is only one. `short` is the finding for a tab, `unparsable`
    whether some method has replies without an answer.
    """

    id: str
    run: str
    model: str
    task: str
    subtitle: str
    opening: Opening | None
    marks: str
    unparsable: bool
    short: str
    methods: Sequence[tuple[str, str, str]]
    colours: Mapping[str, str]
    headlines: Sequence[Headline]
    divergence: str
    rows: Sequence[SummaryRow]
    published: Table | None
    recall: FigureGroup
    confusion: Sequence[Figure]
    missing_answers: str
    learned: FigureGroup
    attention: FigureGroup
    divergences: Divergences | None
    missing_examples: str
    cards: Sequence[SampleCard]
    notes: Sequence[str]
    remarks: Sequence[str]
    pictured: int
    explorer: dict[str, Any] | None
    explored: str
    facts: Sequence[tuple[str, str]]


def section_of(material: Material, number: int, bundle: ImageBundle, *, pictured: int = PICTURED) -> Section:
    """Builds a run's section.

    Args:
        material: the run.
        number: of the section on its page, from 1.
        bundle: the page's images; those of this run are added.
        pictured: maximum number of samples with images.
    """
    metrics, answers = material.metrics, material.answers
    colours = colours_of([*metrics["methods"], *(answers.methods if answers else ())])
    samples, problem = _samples(material)
    notes = [note for note in (material.lacks.get("task", ""), problem) if note]
    captions = {name: sample.caption for name, sample in samples.items()}
    divergent = None if answers is None else divergences(answers)
    pictures: dict[str, tuple[str, ...]] = {}
    if answers is not None and samples and pictured and material.task is not None and material.task.answer_kind == "images":
        flips = flipping(answers, LOGITS if LOGITS in answers.grids else answers.methods[0])
        everyone = range(len(answers.sample_id))
        wanted = first_of([[] if divergent is None else divergent.samples.tolist(), flips.tolist(), everyone], pictured)
        shown = [samples[answers.sample_id[i]] for i in wanted if answers.sample_id[i] in samples]
        pictures, problem = bundle.add_all(shown)
        if problem:
            notes.append(problem)
    finding, recalls, rows = finding_of(metrics), recalls_of(metrics, answers, colours), summary_rows(material, colours)
    return Section(
        id=f"run-{number}",
        run="",
        model=clean(metrics["model"]),
        task=clean(metrics["task"]),
        subtitle=_subtitle(material),
        opening=None if finding is None else opening_of(material, finding, recalls, colours),
        marks=marks_note(material, rows),
        unparsable=any(row.unparsable not in ("0", "–") for row in rows),
        short="" if finding is None else short_of(metrics, finding),
        methods=[(name, clean(name), colours[name]) for name in colours],
        colours=colours,
        headlines=headlines(material, colours),
        divergence=_gap(material),
        rows=rows,
        published=published(material),
        recall=recall_figure(material, recalls),
        confusion=[] if answers is None else confusion_figures(answers, colours),
        missing_answers=material.lacks.get("answers", ""),
        learned=learned_figures(material),
        attention=attention_figure(material),
        divergences=divergent,
        missing_examples=_no_examples(material, divergent),
        cards=[]
        if answers is None or divergent is None
        else cards(answers, divergent, captions, pictures, bundle.pictures, colours, material.patches),
        notes=[clean(note) for note in notes],
        remarks=[clean(note) for note in metrics.get("notes") or ()],
        pictured=len(pictures),
        explorer=None if answers is None else payload(answers, captions, pictures, divergent, colours),
        explored=_explored(material),
        facts=facts(material),
    )


def _samples(material: Material) -> tuple[dict[str, Sample], str]:
    """Samples of the answers by id, or why there are none."""
    if material.task is None or material.answers is None:
        return {}, ""
    evaluated = set(material.answers.sample_id)
    try:
        return {s.id: s for s in material.task.samples("test", material.metrics.get("limit")) if s.id in evaluated}, ""
    except (UserError, OSError) as error:
        return {}, f"Captions and images are missing: {without_paths(str(error))}"


def _subtitle(material: Material) -> str:
    counts, limit = material.metrics.get("counts", {}), material.metrics.get("limit")
    samples, orders = counts.get("samples", "?"), counts.get("permutations", "?")
    what = "options" if material.spec.get("definition", {}).get("vary") else "images"
    size = f"{samples} samples" if limit is None else f"first {samples} samples"
    return f"{size} × {orders} order{'' if orders == 1 else 's'} · {material.candidates} {what}, chance {_chance(material)} %"


def _chance(material: Material) -> str:
    return f"{100 / material.candidates:.1f}".removesuffix(".0")


def _gap(material: Material) -> str:
    """The difference between attention and logits in points, "" if the run lacks one of them."""
    figures = material.metrics["methods"]
    try:
        gap = figures["purified-attention"]["accuracy"]["value"] - figures["vanilla"]["accuracy"]["value"]
    except (KeyError, TypeError):
        return ""
    return f"{gap:+.1f}"


def _no_examples(material: Material, divergent: Divergences | None) -> str:
    if material.answers is None:
        return material.lacks["answers"]
    if divergent is None:
        return "This run does not have vanilla together with purified-attention or raw-attention; run it again with them."
    return "" if divergent.rows else "There is no question on which the attention is right and the logits are wrong."


def _explored(material: Material) -> str:
    if material.answers is None or len(material.answers.sample_id) <= MOST_SAMPLES:
        return ""
    return f"Listed are the first {MOST_SAMPLES} of {len(material.answers.sample_id)} samples."
