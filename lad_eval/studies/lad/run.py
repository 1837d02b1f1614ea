"""The whole order: which studies, what they need, collect it, compute, write."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.files.documents import write_json
from lad_eval.report.html import frame
from lad_eval.report.html.finding import finding_of
from lad_eval.report.html.page import sentences_across
from lad_eval.report.sheet import Sheet
from lad_eval.run import folder as files
from lad_eval.run.execute import Settings
from lad_eval.run.metadata import checkout
from lad_eval.run.progress import progress
from lad_eval.run.stored import finished_runs
from lad_eval.studies.files import pictures, write_parts, write_text
from lad_eval.studies.lad import STUDIES
from lad_eval.studies.lad.collect import collected
from lad_eval.studies.lad.library import Cost, Library
from lad_eval.studies.lad.need import Family, Need, merged
from lad_eval.version import __version__


def page(
    sheets: Sequence[Sheet],
    *,
    model: str,
    tasks: str,
    finding: Sequence[str] = (),
    preface: Sequence[str] = (),
    provenance: Sequence[str] = (),
) -> str:
    """HTML with everything inside; names and captions are escaped.

    Args:
        sheets: in their order.
        model: its name.
        tasks: what was asked, in a few words, as they follow "on".
        finding: what came out, a sentence each.
        preface: what a reader should know first, a paragraph each.
        provenance: lines of the footer.
    """
    heading = f"Position bias of {model} on {tasks}"
    return frame.page(
        "sheets.html",
        title=f"{heading}: tables and figures",
        heading=heading,
        across=finding,
        sheets=sheets,
        preface=preface,
        provenance=provenance,
        pictures=pictures,
    )


COSTS = "costs.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What `paper` made: the sheets, and the folder that they lie in."""

    folder: Path
    sheets: tuple[Sheet, ...]


def chosen(names: Sequence[str] | None) -> list[str]:
    """Studies by name, in the paper's order; None: all.

    Raises:
        UnknownNameError: there is no such study.
        UserError: none is named.
    """
    if names is not None and not names:
        raise UserError("--only names none; `lad-eval ls studies` lists them.")
    for name in names or ():
        if name not in STUDIES:
            raise UnknownNameError("study", name, list(STUDIES))
    return [name for name in STUDIES if names is None or name in names]


def paper(
    settings: Settings, family: Family, out: Path, *, only: Sequence[str] | None = None, stored: bool = False
) -> Written | None:
    """Regenerates the paper's tables and figures for one model.

    Args:
        settings: model, limit, where runs are kept, ...; its tasks and methods are chosen by the studies.
        family: the tasks that play the paper's.
        out: the folder for what is made; a folder of the model's name is made in it.
        only: names of studies; default: all.
        stored: read finished runs and load no model.

    Returns:
        What was written; None in a process that does not lead.

    Raises:
        UserError: a name is wrong, or what was asked for by name cannot be had. Without `only`, a study whose data is missing is
            listed with what it takes, and the others are made.
    """
    names = chosen(only)
    needs = merged(need for name in names for need in STUDIES[name].needs(family))
    folder = out / files.slug(settings.model_name)
    absent: dict[str, str] = {}
    costs: list[Cost] = []
    if stored:
        folders = _found(settings, needs)
        costs = _read_costs(folder / COSTS)
    else:
        wants_costs = "table2" in names and not (folder / COSTS).is_file()
        files.ensure_writable(out)
        result = collected(needs, settings, family, costs=wants_costs, strict=only is not None)
        if result is None:
            return None
        folders, absent = result.folders, result.absent
        if result.costs:
            write_json(folder / COSTS, {"costs": [cost.document() for cost in result.costs]})
        costs = _read_costs(folder / COSTS)
    library = Library(settings.model_name, folders, costs=costs, seed=settings.seed)
    made = []
    with progress("tables and figures", len(names) + 1, shown=not settings.quiet, unit="steps") as advance:
        for name in names:
            made.append(_sheet(name, library, family, absent, strict=only is not None))
            advance(1)
        sheets = tuple(made)
        _write(sheets, folder, settings, family, [library[need].run.metrics for need in needs if library.has(need)])
        advance(1)
    return Written(folder, sheets)


def _sheet(name: str, library: Library, family: Family, absent: Mapping[str, str], *, strict: bool) -> Sheet:
    study = STUDIES[name]
    needs = study.needs(family)
    lacking = [need.label for need in needs if not need.optional and not library.has(need)]
    if not lacking:
        sheet = study.sheet(library, family)
        without = [need.label for need in needs if not library.has(need)]
        return replace(sheet, missing=(*sheet.missing, _why(without, absent))) if without else sheet
    reason = _why(lacking, absent)
    if strict:
        raise UserError(f"{name} cannot be made: {reason}")
    return Sheet(name, study.title, missing=(reason,))


def _why(lacking: Sequence[str], absent: Mapping[str, str]) -> str:
    return absent.get(lacking[0], f"there is no finished run of {', '.join(lacking)}; run without --stored.")


def _found(settings: Settings, needs: Sequence[Need]) -> dict[str, Path]:
    """Folders of finished runs of the model, by label.

    Raises:
        UserError: several runs could be meant.
    """
    folders: dict[str, list[Path]] = {}
    for run in finished_runs(settings.out):
        same = run.metrics["model"] == settings.model_name and run.metrics["limit"] == settings.limit
        if same and _holds(run.methods, run.metrics["task"], needs):
            folders.setdefault(run.metrics["task"], []).append(run.path)
    for label, paths in folders.items():
        if len(paths) > 1:
            raise UserError(
                f"{len(paths)} runs of {settings.model} on {label} could be meant, e.g. {paths[0]} and {paths[1]}; "
                "run without --stored, or move one away."
            )
    return {label: paths[0] for label, paths in folders.items()}


def _holds(methods: Names[str], task: str, needs: Sequence[Need]) -> bool:
    return any(need.label == task and set(need.methods) <= set(methods) for need in needs)


def _read_costs(path: Path) -> list[Cost]:
    return [Cost(**cost) for cost in files.read_run_json(path)["costs"]] if path.is_file() else []


def _write(sheets: Sequence[Sheet], folder: Path, settings: Settings, family: Family, runs: Sequence[Mapping[str, Any]]) -> None:
    """One folder: paper.md, report.html, tables as CSV and LaTeX, figures as SVG and PDF."""
    write_parts(folder, sheets)
    preface = _preface(settings)
    tasks = f"the {family.name} tasks"
    finding = _finding(runs, family)
    title = f"# Position bias of {settings.model_name} on {tasks}\n\n" + "\n\n".join([*finding, *preface])
    write_text(folder / "paper.md", "\n\n".join([title, *(sheet.markdown() for sheet in sheets)]) + "\n")
    html = page(
        sheets,
        model=settings.model_name,
        tasks=tasks,
        finding=finding,
        preface=preface,
        provenance=_provenance(runs),
    )
    write_text(folder / "report.html", html)


def _finding(runs: Sequence[Mapping[str, Any]], family: Family) -> list[str]:
    """What came out on the main tasks, those of them that were asked."""
    main = [task for _, _, task in family.main()]
    findings = [(run, finding) for run in runs if run["task"] in main and (finding := finding_of(run)) is not None]
    return sentences_across(findings) or [finding.title for _, finding in findings]


def _preface(settings: Settings) -> list[str]:
    lines = []
    if settings.limit is not None:
        lines.append(f"Only the first {settings.limit} samples of each task were asked.")
    if settings.model == "lad-tiny":
        lines.append(
            "lad-tiny is a model organism whose bias and attention are trained in: "
            "it shows the method at work and says nothing of other models."
        )
    return lines


def _provenance(runs: Sequence[Mapping[str, object]]) -> list[str]:
    values_of = {
        key: sorted({json.dumps(run.get(key)) for run in runs}) for key in ("dtype", "attention_implementation", "device")
    }
    lines = [f"{key.replace('_', ' ')}: {', '.join(values)}".replace('"', "") for key, values in values_of.items()]
    commit = checkout()
    return [*lines, f"made with lad_eval {__version__}, {json.dumps(commit)}"]
