"""Is a method, or a run, better than another? Paired tests on stored predictions, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lad_eval.errors import UserError
from lad_eval.metrics import Comparison, Predictions, compare, holm
from lad_eval.report.load import StoredRun, load_run


def compare_runs(runs: Sequence[Path], methods: Sequence[str] | None = None, *, seed: int = 42) -> list[Comparison]:
    """The methods of one run pair by pair, or each method in one run against itself in another; corrected by Holm together.

    Raises:
        UserError: not one or two runs, a method is missing, there is nothing to compare, or the runs asked different questions.
    """
    if not 1 <= len(runs) <= 2:
        raise UserError(f"compare takes one run or two, not {len(runs)}.")
    stored = [load_run(path) for path in runs]
    if len(stored) == 1:
        names = list(methods or stored[0].methods)
        if len(names) < 2:
            raise UserError(f"There is nothing to compare {', '.join(names)} with; name two methods, or two runs.")
        return compare({name: table_of(stored[0], name) for name in names}, seed=seed)
    shared = [name for name in stored[0].methods if name in stored[1].methods]
    labels = _labels(stored)
    pairs = [
        pair
        for name in methods or shared
        for pair in compare(
            {f"{label}: {name}": table_of(run, name) for label, run in zip(labels, stored, strict=True)}, seed=seed
        )
    ]
    if not pairs:
        raise UserError(f"{runs[0]} and {runs[1]} have no method in common.")
    corrected = holm([pair.p_value for pair in pairs])
    return [Comparison(**{**vars(pair), "p_holm": float(p)}) for pair, p in zip(pairs, corrected, strict=True)]


def table_of(run: StoredRun, method: str) -> Predictions:
    """One method's predictions of a run."""
    rows = run.predictions_of(method)
    return Predictions(
        rows["sample_id"].to_numpy(dtype=np.str_),
        rows["permutation"].to_numpy(),
        rows["gold_position"].to_numpy(),
        rows["position"].to_numpy(),
        np.asarray([order.split() for order in rows["order"]], dtype=np.int64),
    )


def comparisons_as_json(pairs: Sequence[Comparison]) -> str:
    """A list of objects; differences are first minus second, in points, as {value, low, high}."""
    documents = [
        {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in vars(pair).items()} for pair in pairs
    ]
    return json.dumps(_without_nan(documents), indent=2, allow_nan=False)


def comparisons_as_text(pairs: Sequence[Comparison]) -> str:
    """A table for people."""
    from tabulate import tabulate

    rows = [
        [
            pair.first,
            pair.second,
            f"{pair.accuracy.value:+.1f} [{pair.accuracy.low:+.1f}, {pair.accuracy.high:+.1f}]",
            f"{pair.rstd.value:+.1f}",
            f"{pair.consistency.value:+.1f}",
            f"{pair.only_first} / {pair.only_second}",
            f"{pair.p_value:.2g}",
            f"{pair.p_holm:.2g}",
        ]
        for pair in pairs
    ]
    headers = ["First", "Second", "Accuracy [95 %]", "RStd", "Consistency", "Only first / second", "p", "p (Holm)"]
    note = (
        "Differences are first minus second, in points. p: exact McNemar test on samples that are right under every permutation; "
        f"Holm's correction over {len(pairs)} comparison{'s' if len(pairs) > 1 else ''}."
    )
    return f"{tabulate(rows, headers=headers, tablefmt='simple', disable_numparse=True)}\n\n{note}"


def _labels(runs: Sequence[StoredRun]) -> tuple[str, str]:
    """The shortest names that tell two runs apart."""
    models = tuple(run.metrics["model"] for run in runs)
    folders = tuple(f"{run.metrics['model']}/{run.metrics['run'][:6]}" for run in runs)
    first, second = (
        models if len(set(models)) == len(runs) else folders if len(set(folders)) == len(runs) else ("first", "second")
    )
    return first, second


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
