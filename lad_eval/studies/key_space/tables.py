"""The study's tables; each has a row of the untrained control under every row of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from lad_eval.attention.keys import STAGES, Stage
from lad_eval.metrics import holm
from lad_eval.report.table import Cell, Content, Table, figure, p_value
from lad_eval.studies.key_space.collect import Collected
from lad_eval.studies.key_space.measure import Gap
from lad_eval.studies.key_space.measurements import CONTROL, Measured
from lad_eval.studies.key_space.permutation import PERMUTATIONS, SPLITS, Spread

STAGE_NAMES: dict[Stage, str] = {"unrotated": "before rotary positions", "rotated": "rotated, as attention uses them"}


def rows(collected: Collected) -> Iterator[tuple[int, Measured]]:
    """Layer by layer, the model and then its control."""
    for layer in collected.stages:
        for model in collected.models:
            yield layer, model


def number(value: float, digits: int = 4) -> Cell:
    """A dash where it is unknown; 0 has no sign."""
    return figure(None if math.isnan(value) else round(value, digits) + 0.0, digits=digits)


def spread(value: Spread) -> Cell:
    """Mean ± standard deviation."""
    mean = number(value.mean)
    return mean if math.isnan(value.sd) else Cell(value.mean, f"{mean.text} ± {value.sd:.4f}")


def pair(values: tuple[float, float], digits: int) -> tuple[Cell, Cell]:
    """Visual, then text."""
    return number(values[0], digits), number(values[1], digits)


def _table(
    title: str, headers: tuple[str, ...], collected: Collected, stage: Stage, row: Callable[[Gap, Measured], tuple[Content, ...]]
) -> Table:
    lines: list[tuple[Content, ...]] = []
    for layer, model in rows(collected):
        if (gap := model.gaps.get((layer, stage))) is not None:
            lines.append((str(layer), model.weights, *row(gap, model)))
    return Table(title, ("Layer", "Weights", *headers), lines)


def corrected(model: Measured, stage: Stage) -> dict[int, float]:
    """By layer, the p-value of the gap after Holm's correction over the layers of a stage."""
    p = {layer: gap.p for (layer, at), gap in model.gaps.items() if at == stage and not math.isnan(gap.p)}
    return dict(zip(p, holm(list(p.values())).tolist(), strict=True)) if p else {}


def gap_tables(collected: Collected) -> tuple[Table, ...]:
    """How far visual keys lie from text keys, against what halves of one modality show; two tables for each stage."""
    tables = []
    for stage in STAGES:
        p = {model.weights: corrected(model, stage) for model in collected.models}

        def kernel(gap: Gap, model: Measured, p: dict[str, dict[int, float]] = p) -> tuple[Content, ...]:
            return (
                number(gap.mmd2),
                number(math.sqrt(max(gap.mmd2, 0)), 3),
                p_value(p[model.weights].get(gap.layer)),
                spread(gap.image.mmd2),
                spread(gap.text.mmd2),
                number(gap.ratio, 0),
            )

        named = f"visual against text keys, {STAGE_NAMES[stage]}"
        for title, headers, row, notes in (
            (f"MMD², {named}", KERNEL_HEADERS, kernel, KERNEL_NOTES),
            (f"Jensen-Shannon divergence and probe, {named}", SHAPE_HEADERS, _shapes, SHAPE_NOTES),
        ):
            table = _table(title, headers, collected, stage, row)
            if table.rows:
                tables.append(Table(table.title, table.columns, table.rows, notes))
    return tuple(tables)


def _shapes(gap: Gap, _: Measured) -> tuple[Content, ...]:
    return (
        number(gap.js, 3),
        number(gap.js_weighted, 3),
        number(gap.image.js.mean, 3),
        number(gap.text.js.mean, 3),
        number(gap.auc, 3),
        f"{gap.dimensions} ({100 * gap.explained:.0f} %)",
    )


KERNEL_HEADERS = ("MMD²", "MMD", "p (Holm)", "Visual halves", "Text halves", "Ratio")
KERNEL_NOTES = (
    "MMD²: maximum mean discrepancy, how far two sets lie apart by a mean of Gaussian kernels; 0 where they are alike. MMD: its "
    f"square root. Halves: MMD² of one modality against itself, halves of the samples, mean ± standard deviation of {SPLITS} "
    "splits; pairs of tokens of one sample are left out everywhere, so that 0 is expected. Ratio: MMD² by the larger of the "
    "halves' mean and deviation.",
    f"p: {PERMUTATIONS:,} exchanges of whole samples, Holm's correction over the layers. It says that the two sets differ, which "
    "any two sets do that differ in place, vocabulary or length; it does not say why, or that it matters.",
)
SHAPE_HEADERS = ("JS", "JS by variance", "JS visual halves", "JS text halves", "Probe AUC", "Components")
SHAPE_NOTES = (
    "JS: Jensen-Shannon divergence in bits, 0 to 1, mean of the principal components, or weighted by their variance; that of "
    "halves, of fewer tokens, is its floor. Probe: area under the ROC curve of a logistic regression on the components, 5 folds "
    "of samples; 0.5 is chance. Components: how many, and their share of the variance.",
)


def head_table(collected: Collected) -> Table | None:
    """The gap of each key-value head of rotated keys next to that of all; None where heads were not measured alone."""
    most = max((len(gaps.mmd2) for model in collected.models for gaps in model.heads.values()), default=0)
    if not most:
        return None
    lines: list[tuple[Content, ...]] = []
    for layer, model in rows(collected):
        gaps = model.heads[layer].mmd2
        padded = [*gaps, *[math.nan] * (most - len(gaps))]
        lines.append(
            (str(layer), model.weights, number(model.gaps[layer, "rotated"].mmd2, 3), *(number(one, 3) for one in padded))
        )
    headers = ("Layer", "Weights", "All heads", *(f"Head {head}" for head in range(most)))
    notes = (
        "MMD² of visual against text keys of each key-value head, standardised and projected alone, on at most 2,000 tokens of a "
        "modality. All heads: keys side by side, as in the tables above, on all tokens; it need not lie "
        "between the heads, since every column has a bandwidth of its own. A dash: the layer has fewer heads.",
    )
    return Table("Each key-value head alone, rotated keys", headers, lines, notes)


def control_tables(collected: Collected) -> tuple[Table, ...]:
    """The same gap against other sets of text, and each modality against that of another task."""
    away = collected.tasks[1] if len(collected.tasks) > 1 else "another task"
    headers = (
        "All text", "Question", "Chat template", "Text before or between images", f"Visual of {away}", f"Text of {away}",
    )  # fmt: skip
    notes = [
        "MMD² of visual keys against sets of text keys; the last two columns: visual against visual, and text against text, of "
        "another data set. Text before or between the images stands where images do, but it is chat template: a few words, "
        "always the same. A dash: none, or of fewer than two samples."
    ]
    if len(collected.tasks) == 1:
        notes.append("No other data set was named; add one to --tasks.")
    tables = []
    for stage in STAGES:
        table = _table(
            f"Controls, {STAGE_NAMES[stage]}",
            headers,
            collected,
            stage,
            lambda gap, _: tuple(
                number(value)
                for value in (gap.mmd2, gap.question, gap.template, gap.ahead, gap.image_elsewhere, gap.text_elsewhere)
            ),
        )
        if table.rows:
            tables.append(Table(table.title, table.columns, table.rows, notes))
    return tuple(tables)


def link_tables(collected: Collected) -> tuple[Table, ...]:
    """Whether the gap goes with lower scores, and with less attention: what the last row makes of visual and of text keys."""
    scores: list[tuple[Content, ...]] = []
    attention: list[tuple[Content, ...]] = []
    for layer, model in rows(collected):
        link, gap = model.links[layer], model.gaps[layer, "rotated"]
        first = (str(layer), model.weights, number(gap.mmd2))
        difference = figure(link.difference, link.difference_low, link.difference_high, digits=2)
        scores.append((*first, *pair(link.score, 2), difference, *pair(link.norm, 2), *pair(link.cosine, 3)))
        attention.append((*first, *pair(link.attention, 2), number(gap.rank_score, 2), number(gap.rank_attention, 2)))
    score_headers = (
        "Layer", "Weights", "MMD²", "Score visual", "Score text", "Difference", "Norm visual", "Norm text", "Cosine visual",
        "Cosine text",
    )  # fmt: skip
    headers = ("Layer", "Weights", "MMD²", "Attention visual", "Attention text", "ρ(gap, score)", "ρ(gap, attention)")
    return (
        Table("Scores of rotated keys with the last token", score_headers, scores, SCORE_NOTES),
        Table("Attention of the last token, and whether it goes with the gap", headers, attention, ATTENTION_NOTES),
    )


SCORE_NOTES = (
    "Of the last token, from which the answer is read, to all keys of a modality: means over heads, tokens, samples. "
    "Score: q·k before the softmax, scaled as the layer scales it: the product of the query's norm, the key's norm and the "
    "cosine. Difference: visual minus text, its 95 % interval over samples. Norm: of the keys.",
)
ATTENTION_NOTES = (
    "Attention: per token, 1 is even attention.",
    "ρ: Spearman's correlation over samples of how far a sample's visual keys lie from text keys with how much higher its "
    "visual scores are than its text scores, or its attention per visual token by that per text token. The claim that visual "
    "keys are ignored because they are out of distribution predicts values below 0, and below those of random weights. It "
    "is a correlation: keys that are not alike may differ in both for a third reason.",
)


def notes_on_stages(collected: Collected) -> tuple[str, ...]:
    """What keys were taken before rotary positions, and where there are none."""
    stages = collected.stages
    lines = []
    for name, text in (
        ("projected", "the output of the key projection"),
        ("normed", "the output of the key norm, which rotary positions are applied to"),
        (
            "none",
            "none: the layer has no key projection of its own (it is fused with others, or the keys are those of a lower layer)",
        ),
    ):
        if layers := [str(layer) for layer, stage in stages.items() if stage == name]:
            lines.append(f"Keys before rotary positions, layer{'s' if len(layers) > 1 else ''} {', '.join(layers)}: {text}.")
    return tuple(lines)


def findings(collected: Collected) -> list[str]:
    """The findings, one sentence each, with the control."""
    lines = []
    for model in collected.models:
        gaps = [gap for (_, stage), gap in model.gaps.items() if stage == "rotated"]
        low, high = min(gap.mmd2 for gap in gaps), max(gap.mmd2 for gap in gaps)
        floor = max(max(abs(half.mmd2.mean), half.mmd2.sd) for gap in gaps for half in (gap.image, gap.text))
        who = "The same architecture with random weights" if model.weights == CONTROL else "The model"
        lines.append(
            f"{who}: MMD² of rotated visual and text keys {low:.3f} to {high:.3f} by layer, halves of one modality at most "
            f"{floor:.4f}."
        )
    lower = [layer for layer, link in collected.models[0].links.items() if link.difference_high < 0]
    higher = [layer for layer, link in collected.models[0].links.items() if link.difference_low > 0]
    named = [f"{word} in layers {', '.join(map(str, some))}" for word, some in (("lower", lower), ("higher", higher)) if some]
    lines.append(
        f"Scores of visual keys are {' and '.join(named)} than those of text keys."
        if named
        else "Scores of visual keys and of text keys do not differ clearly in any layer."
    )
    return lines
