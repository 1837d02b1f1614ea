"""Table 4: which part of LAD does what. Everything is decided again from stored evidence."""

from __future__ import annotations

from typing import Any

from lad_eval.methods import make_method
from lad_eval.methods.readout import layer_range
from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.measure import mark_notes, measured
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Cell, Measured, Sheet, Table
from lad_eval.studies.study import Study

TOP_K = (1, 2, 3, 4, 8)

Variant = tuple[str, str, dict[str, Any]]


def _needs(family: Family) -> list[Need]:
    return [Need(task, ("vanilla", "lad")) for _, _, task in family.main()]


def _parts(depth: int) -> dict[str, list[Variant]]:
    """What is changed, by part: (name, method, parameters)."""
    first, last = layer_range("upper", depth)
    return {
        "Readout": [
            ("logits (vanilla)", "vanilla", {}),
            ("attention (raw)", "raw-attention", {}),
            ("attention without its prior (purified)", "purified-attention", {}),
            ("logits without the mean bias (PriDe)", "pride", {}),
            ("logits without the expected bias (LAD)", "lad", {}),
        ],
        "Attention prior": [("taken out", "lad", {}), ("left in", "lad", {"attention_prior": "none"})],
        "Layers": [
            ("2 strongest of the upper layers", "lad", {}),
            ("2 strongest of all layers", "lad", {"layers": "all"}),
            ("last 2 layers", "lad", {"layers": (max(0, depth - 2), depth - 1)}),
            ("all layers", "lad", {"layers": "all", "top_k": depth}),
        ],
        "K strongest of the upper layers": [(f"K = {k}", "lad", {"top_k": k}) for k in TOP_K if k <= last - first + 1],
        "Form": [
            ("released code", "lad", {}),
            ("as printed", "lad-paper", {}),
            ("released code, without labels", "lad-unlabelled", {}),
            ("released code, spans without delimiters", "lad", {"span": "image"}),
            ("released code, mean of log attention", "lad", {"attention_mean": "log"}),
            ("released code, bias as a mean of probabilities", "lad", {"bias_mean": "probability"}),
            ("released code, bias mixed as probabilities", "lad", {"mixture": "probability"}),
        ],
    }


def _sheet(library: Library, family: Family) -> Sheet:
    shown = family.main()
    collections = [library[need] for need in _needs(family)]
    depths = {collection.evidence.n_layers for collection in collections}
    depth = max(depths)
    tables = []
    for part, variants in _parts(depth).items():
        columns: list[dict[str, Measured]] = []
        answers = []
        for collection in collections:
            decided = {name: collection.decided(make_method(method, **changed)) for name, method, changed in variants}
            answers.append(decided)
            columns.append({name: cell for name, (_, cell) in measured(decided, seed=library.seed).items()})
        rows: list[tuple[Cell, ...]] = [(name, *(column[name] for column in columns)) for name, _, _ in variants]
        tables.append(Table(part, (part, *(f"{s} N = {n}" for s, n, _ in shown)), tuple(rows), mark_notes(answers)))
    return Sheet("table4", TABLE4.title, tuple(tables), remarks=(f"The model has {depth} layers that attend to images.",))


TABLE4 = Study("table4", "Ablation of LAD", _needs, _sheet)
