"""One sentence over several runs: how far the answers move, and in how many of the runs that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lad_eval.pages.finding import Finding, said
from lad_eval.pages.numbers import SPACE, share_text, value_of
from lad_eval.pages.text import clean

Found = tuple[Mapping[str, Any], Finding]

MOST_MODELS = 6


def sentences_across(runs: Sequence[Found]) -> list[str]:
    """A sentence a model that has more than one run; more than `MOST_MODELS` models share one.

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


def _sentence(runs: Sequence[Found], who: str) -> str:
    """Of runs that have both sides, how both stand; of runs without any such, the one side."""
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
    """In how many runs the gain is significant; nothing where a run stored no tests."""
    if any(helps is None for helps in helped):
        return ""
    if len(helped) == 1:
        return ", significantly more" if helped[0] else ", not significantly more"
    return f", significantly more in {sum(map(bool, helped))} of {len(helped)}"


def _accuracy(metrics: Mapping[str, Any], name: str | None) -> float:
    value = None if name is None else value_of(metrics["methods"][name], "accuracy")
    assert value is not None  # a finding names methods that have one
    return value


def _range(values: Sequence[float]) -> str:
    low, high = share_text(min(values)), share_text(max(values))
    return low if low == high else f"{low.removesuffix(f'{SPACE}%')} to {high}"
