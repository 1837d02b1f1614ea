"""Table 2, as a sheet."""

from __future__ import annotations

from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Cell, Sheet, Table
from lad_eval.studies.study import Study

SIZES = (4, 8, 12)


def _needs(family: Family) -> list[Need]:
    return []


def _sheet(library: Library, family: Family) -> Sheet:
    if not library.costs:
        return Sheet("table2", TABLE2.title, missing=("time and memory are measured on the model: run without --stored.",))
    rows: list[tuple[Cell, ...]] = [
        (f"N = {cost.candidates}", cost.kind, 1000 * cost.seconds, f"{cost.ratio:.2f}", _gib(cost.peak_bytes))
        for cost in library.costs
    ]
    notes = [
        "vanilla: one greedy token by `generate`; with evidence: what every method with one pass decides from. "
        "Medians of rounds on pictures not seen before, taking turns; the preparation of the images is counted in.",
    ]
    if all(cost.peak_bytes is None for cost in library.costs):
        notes.append("Memory is measured on a GPU only; docs/performance.md has the CPU's.")
    headers = ("Images", "Answer", "ms / query", "Time by vanilla", "Peak GiB")
    return Sheet("table2", TABLE2.title, (Table(TABLE2.title, headers, tuple(rows), tuple(notes), digits=0),))


def _gib(peak: int | None) -> str | None:
    return None if peak is None else f"{peak / 2**30:.2f}"


TABLE2 = Study("table2", "Time and memory", _needs, _sheet)
