"""The paper's table next to ours, where the model is the paper's."""

from __future__ import annotations

from collections.abc import Sequence

from lad_eval.attention.pruning.trend import ATTENTION, KEPT_BEFORE
from lad_eval.report.table import Content, Table, figure
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.pruning.conditions import DECISIONS, PruningCondition
from lad_eval.studies.pruning.data import PrunerData
from lad_eval.studies.pruning.tables import share

# Source: arXiv 2508.17807v2, LLaVA-1.5-7B with 128 of 576 visual tokens kept, mean of 10 benchmarks, unpruned 63.1: accuracy as
# published, and debiased.
REPORTED = {
    "fastv": (59.6, 62.5),
    "himap": (59.0, 61.4),
    "illava": (59.7, 61.7),
    "pyramiddrop": (60.5, 61.6),
    "tokencarve": (61.5, 61.9),
    "sparsevlm": (62.0, 62.4),
}
NAMES = {
    "fastv": "FastV",
    "himap": "HiMAP",
    "illava": "iLLaVA",
    "pyramiddrop": "PyramidDrop",
    "tokencarve": "TokenCarve",
    "sparsevlm": "SparseVLM",
}
SIGMA_ATTENTION, SIGMA_FREQUENCY = 0.91, 2.56
"""Of FastV before debiasing, as the paper reports them; afterwards sigma_freq is about 0."""
_MODEL = "llava-1.5-7b"
_SOURCE = "Reported: arXiv 2508.17807, LLaVA-1.5-7B, 128 of 576 visual tokens kept, mean of ten benchmarks, unpruned 63.1."


def reported_document(model: str, pruners: Sequence[PrunerData]) -> StudyDocument | None:
    """What the paper reports of its model, and what we measured; None for another model.

    Args:
        model: its name.
        pruners: what was measured.
    """
    if _MODEL not in model.lower():
        return None
    title = "What the paper reports of this model, and ours"
    return StudyDocument("reported", title, (_accuracy_table(pruners), _sigma_table(pruners)))


def _accuracy_table(pruners: Sequence[PrunerData]) -> Table:
    ours = {data.pruner.name: data for data in pruners}
    rows: list[tuple[Content, ...]] = []
    for name, (published, debiased) in REPORTED.items():
        cells: list[Content] = [None] * 3
        if (data := ours.get(name)) is not None:
            summaries = data.summaries(DECISIONS[0])
            before, after = (summaries[PruningCondition(data.middle, ranking)].accuracy for ranking in ("none", "exp"))
            cells = [before, after, after - before]
        rows.append((NAMES[name], published, debiased, figure(debiased - published), *cells))
    keep = pruners[0].middle
    notes = (
        f"{_SOURCE} Ours: {DECISIONS[0]} on this page's task, {share(keep)} kept, the exponential trend taken out. Another task "
        "than the paper's, so compare differences, not levels.",
    )
    headers = ("Pruner", "Reported", "Reported, debiased", "Difference", "Ours", "Ours, debiased", "Difference, ours")
    return Table("Accuracy", headers, rows, notes)


def _sigma_table(pruners: Sequence[PrunerData]) -> Table:
    data = next((data for data in pruners if data.pruner.name == "fastv"), None)
    ours: dict[str, float] = {}
    if data is not None:
        strengths = data.trends[PruningCondition(data.middle, "exp")].strengths
        ours = {name: fit.sigma for name, fit in strengths.items()}
    rows: list[tuple[Content, ...]] = [
        (label, figure(value, digits=2), figure(ours.get(name), digits=2))
        for label, value, name in (
            ("sigma_attn", SIGMA_ATTENTION, ATTENTION.label),
            ("sigma_freq before", SIGMA_FREQUENCY, KEPT_BEFORE.label),
            ("sigma_freq after", 0.0, "kept after"),
        )
    ]
    notes = ('The paper reports sigma_freq after debiasing as "about 0". Ours: FastV, on this page\'s task.',)
    return Table("Strength of FastV's bias", ("", "Reported", "Ours"), rows, notes)
