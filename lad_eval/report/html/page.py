"""The page: sections into one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from lad_eval.errors import UserError
from lad_eval.files.atomic import sweep, write_atomically
from lad_eval.report.html.finding import RunFinding, said
from lad_eval.report.html.frame import page
from lad_eval.report.html.load import load_material
from lad_eval.report.html.pictures import MOST_BYTES, ImageBundle
from lad_eval.report.html.section import PICTURED, Section, section_of
from lad_eval.report.html.summary import accuracy_cells
from lad_eval.report.html.text import SPACE, clean, share_text, value_of
from lad_eval.report.table import Table
from lad_eval.run.folder.files import ResultsError
from lad_eval.run.folder.stored import StoredRun

MetricsAndFinding = tuple[Mapping[str, Any], RunFinding]

MOST_MODELS = 6


def sentences_across(runs: Sequence[MetricsAndFinding]) -> list[str]:
    """One sentence per model that has more than one run; more than `MOST_MODELS` models share one.

    Args:
        runs: `metrics.json` and the finding of each.
    """
    models = list(dict.fromkeys(str(metrics["model"]) for metrics, _ in runs))
    if len(runs) < 2:
        return []
    if len(models) == 1:
        return [_sentence(runs, "")]
    if len(models) > MOST_MODELS:
        return [_sentence(runs, f"{len(models)} models")]
    return [_sentence([run for run in runs if str(run[0]["model"]) == model], clean(model)) for model in models]


def _sentence(runs: Sequence[MetricsAndFinding], who: str) -> str:
    """A sentence on the runs that have both methods; if none has both, on the one that they have."""
    pairs = [(metrics, f.base, f.other, f.helps) for metrics, f in runs if f.base is not None and f.other is not None]
    if not pairs:
        alone = _range([_accuracy(metrics, f.base or f.other) for metrics, f in runs])
        return f"{_start(who, len(runs), len(runs))}right {alone} of the time."
    names = list(dict.fromkeys(other for _, _, other, _ in pairs))
    what = f"with {said(names[0])}" if len(names) == 1 else "with another method"
    before = _range([_accuracy(metrics, base) for metrics, base, _, _ in pairs])
    after = _range([_accuracy(metrics, other) for metrics, _, other, _ in pairs])
    judged = _judged([helps for *_, helps in pairs])
    return f"{_start(who, len(pairs), len(runs))}right {before} of the time; {what} {after}{judged}."


def _start(who: str, some: int, runs: int) -> str:
    count = "" if runs == 1 else f"{runs} runs" if some == runs else f"{some} of {runs} runs"
    return ", ".join(part for part in (who, count) if part) + ": "


def _judged(helped: Sequence[bool | None]) -> str:
    """Number of runs with a significant gain; empty if a run stored no tests."""
    if any(helps is None for helps in helped):
        return ""
    if len(helped) == 1:
        return ", significantly more" if helped[0] else ", not significantly more"
    return f", significantly more in {sum(map(bool, helped))} of {len(helped)}"


def _accuracy(metrics: Mapping[str, Any], name: str | None) -> float:
    value = None if name is None else value_of(metrics["methods"][name], "accuracy")
    assert value is not None  # the methods of a finding have an accuracy
    return value


def _range(values: Sequence[float]) -> str:
    low, high = share_text(min(values)), share_text(max(values))
    return low if low == high else f"{low.removesuffix(f'{SPACE}%')} to {high}"


@dataclass(frozen=True)
class WrittenReport:
    """Result of `write_report`: `size` in bytes; `pictured` of `samples` are shown with their images."""

    path: Path
    runs: int
    samples: int
    pictured: int
    size: int


def write_report(
    runs: Sequence[StoredRun],
    out: Path,
    *,
    definitions: Mapping[str, Path] | None = None,
    pictured: int = PICTURED,
    advance: Callable[[int], None] = lambda done: None,
) -> WrittenReport:
    """Writes one self-contained HTML file of finished runs; the same runs give the same bytes.

    Args:
        runs: in the order of the page.
        out: the file; replaced when the page is complete.
        definitions: YAML files by task name, for tasks that do not come with the package.
        pictured: maximum number of samples per run that are shown with images.
        advance: called with 1 after each run.

    Raises:
        UserError: there is no run, a run cannot be read, or the file cannot be written.
    """
    if not runs:
        raise UserError("There are no runs to report on.")
    bundle, sections = ImageBundle(), []
    for number, run in enumerate(runs, start=1):
        bundle.most = MOST_BYTES * number // len(runs)
        sections.append(section_of(load_material(run, definitions), number, bundle, pictured=pictured))
        advance(1)
    sections = _with_distinct_names(sections, [str(run.metrics["run"])[:6] for run in runs])
    content = render(sections, [run.metrics for run in runs], bundle).encode("utf-8", "replace")
    try:
        sweep(out.parent, out.name)
        write_atomically(out, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise ResultsError(f"Cannot write {out}: {error.strerror}. Choose another file with --out.") from error
    samples = sum(len(s.explorer["sample"]) if s.explorer else 0 for s in sections)
    return WrittenReport(out, len(runs), samples, sum(section.pictured for section in sections), len(content))


def render(sections: Sequence[Section], metrics: Sequence[Mapping[str, Any]], bundle: ImageBundle) -> str:
    """The page as text.

    Args:
        sections: one per run.
        metrics: `metrics.json` of each.
        bundle: the images that the sections refer to.
    """
    inline = {card.picture for s in sections for c in s.cards for card in c.candidates if card.picture}
    data = {
        "runs": {section.id: section.explorer for section in sections if section.explorer is not None},
        # Images that are already in the page are referred to.
        "pictures": {name: uri for name, uri in bundle.pictures.items() if name not in inline},
    }
    models = list(dict.fromkeys(section.model for section in sections))
    return page(
        "report.html",
        script="script.js",
        title=_title(sections, models),
        heading=f"Position bias of {models[0]}" if len(models) == 1 else f"Position bias of {len(models)} models",
        across=sentences_across([(m, s.opening.finding) for m, s in zip(metrics, sections, strict=True) if s.opening]),
        one_model=len(models) == 1,
        data=htmlsafe_json_dumps(data, separators=(",", ":"), allow_nan=False),
        sections=sections,
        overview=_overview(sections, metrics, one_model=len(models) == 1) if len(sections) > 1 else None,
    )


def _with_distinct_names(sections: Sequence[Section], hashes: Sequence[str]) -> list[Section]:
    places = [(section.model, section.task) for section in sections]
    pairs = zip(sections, places, hashes, strict=True)
    return [replace(s, run=clean(name)) if places.count(place) > 1 else s for s, place, name in pairs]


def _title(sections: Sequence[Section], models: Sequence[str]) -> str:
    """Title of the browser tab: the finding of a single run, otherwise the models."""
    who = models[0] if len(models) == 1 else f"{len(models)} models"
    if len(sections) == 1 and sections[0].opening is not None:
        return f"{who}: {sections[0].opening.finding.title}"
    return f"Position bias of {who}"


def _overview(sections: Sequence[Section], metrics: Sequence[Mapping[str, Any]], *, one_model: bool) -> Table:
    """Accuracy by method (rows) and run (columns)."""
    methods = list(dict.fromkeys(name for one in metrics for name in one["methods"]))
    names = []
    for section in sections:
        quiet = [Markup(' <span class="quiet">{}</span>').format(section.run)] if section.run else []
        quiet += [] if one_model else [Markup('<br><span class="quiet">{}</span>').format(section.model)]
        names.append(Markup('<a href="#{}">{}</a>{}').format(section.id, section.task, Markup("").join(quiet)))
    columns = [accuracy_cells(one, methods) for one in metrics]
    rows = [[clean(name), *cells] for name, cells in zip(methods, zip(*columns, strict=True), strict=True)]
    return Table("", ["Method", *names], rows)
