"""The finding of a run: the sentences and numbers at the top of the page, all from `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lad_eval.metrics import ALPHA, can_differ, equal, holm
from lad_eval.report.html.text import SPACE, clean, part_of, share_text, shares_text, value_of
from lad_eval.run.folder.rows import paired_p_values, rows_of

BASE = "vanilla"
MAIN = "lad"


@dataclass(frozen=True)
class TextPart:
    """A part of a sentence; `method` is the method whose figure it is, "" for plain text."""

    text: str
    method: str = ""


Sentence = Sequence[TextPart]


@dataclass(frozen=True)
class RunFinding:
    """The finding of a run.

    Attributes:
        base: the method of the model's own answers; None if the run does not have it.
        other: the method that is compared with it; None if the run has no other.
        helps: whether `other` is significantly more accurate than `base`; None if that is unknown.
        headline: one sentence with the accuracies.
        sentences: about position, consistency, and a better method if there is one.
    """

    base: str | None
    other: str | None
    helps: bool | None
    headline: Sentence
    sentences: Sequence[Sentence]

    @property
    def methods(self) -> list[str]:
        """Base and other, without those that are None."""
        return [name for name in (self.base, self.other) if name is not None]

    @property
    def title(self) -> str:
        return "".join(part.text for part in self.headline)


def said(method: str) -> str:
    """A method's name inside a sentence."""
    return "LAD" if method == MAIN else clean(method)


def finding_of(metrics: Mapping[str, Any]) -> RunFinding | None:
    """The finding; None if no method has an accuracy.

    The model's own answers are compared with LAD if it is significantly more accurate, else with the most accurate of the methods
    that are; if none is, with LAD, or, without LAD, with the most accurate. Tests are exact and paired, corrected by Holm over
    all methods.
    """
    figures = metrics["methods"]
    accuracies = {name: value for name, figure in figures.items() if (value := value_of(figure, "accuracy")) is not None}
    if not accuracies:
        return None
    base = BASE if BASE in accuracies else None
    significant = _significant(metrics, base, list(accuracies))
    other = _other(accuracies, base, significant)
    helps = (
        None if base is None or other is None or significant is None else other in significant and _gain(accuracies, base, other)
    )
    sentences = [
        _position(metrics, base, other),
        _consistency(metrics, base, other),
        _better(metrics, other),
    ]
    return RunFinding(base, other, helps, _headline(metrics, accuracies, base, other, significant), [s for s in sentences if s])


def short_of(metrics: Mapping[str, Any], finding: RunFinding) -> str:
    """The headline's figures alone: "54 → 98 %"."""
    values = [value for name in finding.methods if (value := value_of(metrics["methods"][name], "accuracy")) is not None]
    texts = shares_text(values[0], values[1]) if len(values) == 2 else tuple(share_text(value) for value in values)
    return " → ".join([*(text.removesuffix(f"{SPACE}%") for text in texts[:-1]), texts[-1]])


def _gain(accuracies: Mapping[str, float], base: str, other: str) -> bool:
    return accuracies[other] > accuracies[base]


def _significant(metrics: Mapping[str, Any], base: str | None, methods: Sequence[str]) -> set[str] | None:
    """The methods that differ significantly from the base; None if the run stored no tests."""
    pairs = paired_p_values(metrics)
    others = [name for name in methods if name != base]
    if base is None or any((base, name) not in pairs for name in others):
        return None
    corrected = holm([pairs[base, name] for name in others])
    return {name for name, p in zip(others, corrected, strict=True) if p < ALPHA}


def _other(accuracies: Mapping[str, float], base: str | None, significant: set[str] | None) -> str | None:
    others = {name: value for name, value in accuracies.items() if name != base}
    helping = {n: v for n, v in others.items() if base is not None and significant and n in significant and v > accuracies[base]}
    known = helping or others
    return MAIN if MAIN in known else max(known, key=lambda name: known[name], default=None)


def _headline(
    metrics: Mapping[str, Any], accuracies: Mapping[str, float], base: str | None, other: str | None, significant: set[str] | None
) -> Sentence:
    by_chance = [name for name in (base, other) if name is not None and _at_chance(metrics, name)]
    if base is None or other is None:
        name = base or other
        assert name is not None
        chance = ", not shown to be better than guessing" if by_chance else ""
        start = [TextPart("Right ")] if name == base else [TextPart(f"With {said(name)}, right ")]
        return [*start, TextPart(share_text(accuracies[name]), name), TextPart(f" of the time{chance}.")]
    first, second = shares_text(accuracies[base], accuracies[other])
    chance = ", not shown to be better than guessing" if base in by_chance else ""
    start = [TextPart("Right "), TextPart(first, base), TextPart(f" of the time{chance}; with {said(other)} ")]
    if significant is not None and other not in significant:
        figure = metrics["methods"][base]
        few = not can_differ(int(figure["samples"]), len(accuracies))
        alike = equal(accuracies[base], accuracies[other])
        judged = "the same" if alike else "too few samples to tell" if few else "no significant difference"
        return [*start, TextPart(second, other), TextPart(f", {judged}.")]
    lower = accuracies[other] < accuracies[base]
    return [*start, *([TextPart("only ")] if lower else []), TextPart(second, other), TextPart(".")]


def _at_chance(metrics: Mapping[str, Any], method: str) -> bool:
    """Whether the interval of the method's accuracy holds 100 / N."""
    figure, chance = metrics["methods"][method], 100 / int(metrics["candidates"])
    low, high = part_of(figure, "accuracy", "low"), part_of(figure, "accuracy", "high")
    return low is not None and high is not None and low <= chance <= high


def _position(metrics: Mapping[str, Any], base: str | None, other: str | None) -> Sentence:
    """The position at which the right image is found least often, if position matters at all."""
    first = base or other
    assert first is not None
    figure = metrics["methods"][first]
    recall = [(value, place) for place, value in enumerate(figure.get("recall") or ()) if value is not None]
    p = part_of(figure, "position_test", "p_value")
    if len(recall) < 2 or p is None:
        return []
    if figure.get("permutations") == 1:
        return [TextPart("Every question was evaluated in one order only, so position and content cannot be separated.")]
    (least, worst), (most, best) = min(recall), max(recall)
    low, high = shares_text(least, most)
    if p >= ALPHA:
        return [
            TextPart("No effect of the position was found: the right image is found "),
            TextPart(low, first),
            TextPart(" to "),
            TextPart(high, first),
            TextPart(f" of the time, depending on where it is (p = {p:.2f})."),
        ]
    start = [
        TextPart(f"When the right image is at position {worst + 1}, it is found "),
        TextPart(low, first),
        TextPart(" of the time"),
    ]
    if base is None or other is None:
        return [*start, TextPart(f"; at position {best + 1}, "), TextPart(high, first), TextPart(".")]
    there = (metrics["methods"][other].get("recall") or ())[worst]
    if there is None:
        return [*start, TextPart(".")]
    return [*start, TextPart(f"; with {said(other)}, "), TextPart(shares_text(least, there)[1], other), TextPart(".")]


def _consistency(metrics: Mapping[str, Any], base: str | None, other: str | None) -> Sentence:
    """For how many questions the answer changes with the order."""
    named = [name for name in (base, other) if name is not None]
    figures = [metrics["methods"][name] for name in named]
    values = [value_of(figure, "consistency") for figure in figures]
    samples = figures[0].get("samples")
    if not isinstance(samples, int) or figures[0].get("permutations") == 1 or any(value is None for value in values):
        return []
    counts = [round(samples * (1 - value / 100)) for value in values if value is not None]
    missing = " or is missing" if any(figure.get("unparsable") for figure in figures) else ""
    start = [
        TextPart("In "),
        TextPart(str(counts[0]), named[0]),
        TextPart(f" of {samples} questions the answer changes with the order{missing}"),
    ]
    if len(counts) < 2:
        return [*start, TextPart(".")]
    return [*start, TextPart(f"; with {said(named[1])}, in "), TextPart(str(counts[1]), named[1]), TextPart(".")]


def _better(metrics: Mapping[str, Any], other: str | None) -> Sentence:
    """The most accurate method, where it is significantly more accurate than the one in the headline."""
    rows = {row.method: row for row in rows_of(metrics)}
    if other is None or (p := rows[other].p_best) is None or p >= ALPHA:
        return []
    known = {name: row.accuracy for name, row in rows.items() if row.accuracy is not None}
    best = max(known, key=lambda name: known[name])
    value, passes = known[best], rows[best].forward_passes
    if best in (BASE, other):
        return []
    cost = f", at {passes:.3g} passes per question" if passes is not None and passes > 1 else ""
    return [TextPart(f"Most accurate here: {said(best)}, "), TextPart(share_text(value), best), TextPart(f"{cost}.")]
