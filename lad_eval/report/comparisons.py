"""Paired comparisons as text for people and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from lad_eval.metrics import Comparison


def comparisons_as_json(pairs: Sequence[Comparison]) -> str:
    """A list of objects; differences are first minus second, in points, as {value, low, high}."""
    documents = [
        {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in vars(pair).items()} for pair in pairs
    ]
    return json.dumps(_without_nan(documents), indent=2, allow_nan=False)


def comparisons_as_text(pairs: Sequence[Comparison], position: Mapping[str, float] | None = None) -> str:
    """A table for people; `position`: p-values of the test of "position does not matter", by what was compared."""
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
            f"{pair.detectable:.1f}" if math.isfinite(pair.detectable) else "–",
        ]
        for pair in pairs
    ]
    headers = ["First", "Second", "Accuracy [95 %]", "RStd", "Consistency", "Only first / second", "p", "p (Holm)", "Detectable"]
    note = (
        "Differences are first minus second, in points. p: exact McNemar test on samples that are right under every permutation; "
        f"Holm's correction over {len(pairs)} comparison{'s' if len(pairs) > 1 else ''}. "
        "Detectable: the smallest true difference in accuracy that so many samples find with chance 0.8 at 0.05."
    )
    if position:
        tested = ", ".join(f"{name} {p:.2g}" for name, p in position.items())
        note += f'\nDoes position matter? Permutation test of "it does not", p: {tested}.'
    return f"{tabulate(rows, headers=headers, tablefmt='simple', disable_numparse=True)}\n\n{note}"


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
