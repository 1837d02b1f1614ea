"""The study's tables: what pruning costs, how strong the bias is, what is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.trend import RAMP_R2, Exponential
from lad_eval.metrics import Comparison, Predictions, Summary, compare, holm, paired_test, summarise
from lad_eval.report.sheet import Sheet
from lad_eval.report.table import Content, Table, figure, interval_note, p_value
from lad_eval.run.stored import StoredRun
from lad_eval.studies.pruning.collect import Collected, Cost, Shape
from lad_eval.studies.pruning.conditions import DECISIONS, RANDOM, chooses, method_name, rankings_of

RANKING_NAMES = {"none": "attention", "mean": "attention / mean", "exp": "attention / exponential", RANDOM: "random"}
"""As tables and figures call them."""

# Mean of 10 benchmarks, LLaVA-1.5-7B with 128 of 576 tokens, unpruned 63.1; arXiv 2508.17807.
_REPORTED = {
    "FastV": (59.6, 62.5),
    "HiMAP": (59.0, 61.4),
    "iLLaVA": (59.7, 61.7),
    "PyramidDrop": (60.5, 61.6),
    "TokenCarve": (61.5, 61.9),
    "SparseVLM": (62.0, 62.4),
}
_REPORTED_MODEL = "llava-1.5-7b"


def answers(run: StoredRun, keeps: Sequence[float], decision: str) -> dict[tuple[float | None, str], Predictions]:
    """Of a decision, by (keep, ranking); (None, "") is the unpruned model."""
    pairs: list[tuple[float | None, str]] = [(None, ""), *((keep, rank) for keep in keeps for rank in rankings_of(keep))]
    return {pair: run.predictions_of(method_name(*pair, decision)) for pair in pairs}


def share(keep: float) -> str:
    """12.5 %."""
    return f"{100 * keep:g} %"


def accuracy_sheet(run: StoredRun, keeps: Sequence[float], *, seed: int) -> Sheet:
    """Accuracy, RStd and consistency of each decision at each share under each ranking, and paired differences to no trend."""
    tables = [_accuracy(decision, answers(run, keeps, decision), keeps, seed=seed) for decision in DECISIONS]
    return Sheet("accuracy", "What pruning costs, and what taking out the trend recovers", tuple(tables))


def _accuracy(
    decision: str, predictions: Mapping[tuple[float | None, str], Predictions], keeps: Sequence[float], *, seed: int
) -> Table:
    summaries = {pair: summarise(table, seed=seed) for pair, table in predictions.items()}
    rows: list[tuple[Content, ...]] = [("unpruned", "", *_figures(summaries[None, ""]), *[None] * 4)]
    for keep in keeps:
        tables = {rank: predictions[keep, rank] for rank in rankings_of(keep)}
        pairs = {pair.first: pair for pair in compare(tables, against="none", seed=seed)} if len(tables) > 1 else {}
        right = {rank: table.grid.correct for rank, table in tables.items()}
        tested = holm([paired_test(right[rank], right["none"]) for rank in pairs])
        p_values = dict(zip(pairs, tested.tolist(), strict=True))
        for rank in tables:
            name = RANKING_NAMES[rank] if chooses(keep) else "any"
            rows.append((share(keep), name, *_figures(summaries[keep, rank]), *_differences(pairs.get(rank), p_values.get(rank))))
    headers = ("Kept", "Ranked by", "Accuracy", "RStd", "Consistency", "Δ accuracy", "Δ RStd", "Δ consistency", "p (Holm)")
    summary = summaries[None, ""]
    notes = [
        "Δ: minus attention at the same share, on the same samples, with paired 95 % intervals; below 0 in RStd is less bias. "
        "p: exact paired test over samples of the difference in accuracy, Holm's correction over the rows of a share. Of all "
        "tokens, or none, there is nothing to choose."
    ]
    ends = [(one.accuracy_low, one.accuracy_high) for one in summaries.values()]
    if (note := interval_note(summary.samples, ends)) is not None:
        notes.append(note)
    title = f"{decision} ({summary.samples} samples x {summary.permutations} orders)"
    return Table(title, headers, rows, notes)


def _figures(summary: Summary) -> tuple[Content, ...]:
    return (
        figure(summary.accuracy, summary.accuracy_low, summary.accuracy_high),
        figure(summary.rstd, summary.rstd_low, summary.rstd_high),
        figure(summary.consistency, summary.consistency_low, summary.consistency_high),
    )


def _differences(pair: Comparison | None, p_holm: float | None) -> tuple[Content, ...]:
    if pair is None:
        return (None,) * 4
    return (figure(*pair.accuracy), figure(*pair.rstd), figure(*pair.consistency), p_value(p_holm))


def ramp(fit: Exponential) -> str:
    """What the strength of a bias may be called."""
    return ("late tokens" if fit.sigma > 0 else "early tokens") if fit.is_ramp else "no ramp"


def bias_tables(collected: Collected) -> tuple[Table, ...]:
    """Strength of the bias by layer, and of the choice at the pruning layer before and after."""
    by_layer: list[tuple[Content, ...]] = []
    for layer, pruner in collected.layers.items():
        fit = pruner.strengths["attention"]
        by_layer.append((layer, figure(fit.sigma, digits=2), figure(fit.r2, digits=2), ramp(fit)))
    requests = next((trend.requests for p in collected.layers.values() if (trend := p.learned_trend) is not None), 0)
    notes = [
        f"Fit of mu exp(sigma x), x from 0 to 1 over the visual tokens, to the mean attention of the last token over {requests} "
        f"calibration prompts of the unpruned model. Below R2 {RAMP_R2} there is no ramp, and sigma says nothing."
    ]
    notes += list(dict.fromkeys(t.warning for p in collected.layers.values() if (t := p.learned_trend) is not None and t.warning))
    rows: list[tuple[Content, ...]] = []
    for (keep, kind), pruner in collected.trends.items():
        for name, fit in pruner.strengths.items():
            if name == "attention" or (name == "kept before" and kind != "mean"):
                continue  # the same for every kind of trend
            when = "before" if name == "kept before" else RANKING_NAMES[kind]
            rows.append((share(keep), when, figure(fit.sigma, digits=2), figure(fit.r2, digits=2), ramp(fit)))
    return (
        Table("sigma_attn by layer", ("Pruned before layer", "sigma_attn", "R2", "Prefers"), by_layer, notes),
        Table(
            f"sigma_freq: how often an index is kept, pruned before layer {FastV.layer}",
            ("Kept", "Ranking", "sigma_freq", "R2", "Prefers"),
            rows,
            ["The same fit to the share of the calibration prompts in which a token of an index is kept."],
        ),
    )


def cost_sheet(costs: Sequence[Cost], shape: Shape, visual: int) -> Sheet:
    """Time and key-value cache as ratios to the unpruned model's.

    Args:
        costs: measured, the unpruned model's among them.
        shape: of prompt and model.
        visual: tokens of a prompt that can leave.
    """
    rows: list[tuple[Content, ...]] = []
    for cost in costs:
        name = "unpruned" if cost.keep is None else share(cost.keep)
        tokens = visual if cost.keep is None else int(cost.keep * visual)
        cache = None if not shape.tokens else cache_ratio(shape, visual, tokens)
        rows.append((name, tokens, figure(1000 * cost.seconds), figure(cost.ratio, digits=2), figure(cache, digits=2)))
    notes = [
        "Time of a request's forward pass, its share of a batch: medians of rounds that took turns on the same requests, whose "
        "images had been encoded before. The attention that tokens are ranked by is part of it.",
        f"Cache: computed. All {shape.tokens} tokens of the longest prompt in the {FastV.layer} layers below, those that remain "
        f"in the others of {shape.layers} that attend.",
    ]
    headers = ("Kept", "Visual tokens", "ms / request", "Time by unpruned", "KV cache by unpruned")
    return Sheet("cost", "What pruning saves", (Table("Time and memory as ratios", headers, rows, notes),))


def cache_ratio(shape: Shape, visual: int, tokens: int, layer: int = FastV.layer) -> float:
    """Size of the key-value cache by the unpruned model's, where `tokens` of `visual` stay from a layer on."""
    below = min(layer, shape.layers)
    remaining = shape.tokens - visual + tokens
    return (below * shape.tokens + (shape.layers - below) * remaining) / (shape.layers * shape.tokens)


def reported_sheet(model: str) -> Sheet | None:
    """The paper's table, for its model; None for others."""
    if _REPORTED_MODEL not in model.lower():
        return None
    rows: list[tuple[Content, ...]] = [(name, before, after, after - before) for name, (before, after) in _REPORTED.items()]
    notes = ("Mean of ten benchmarks, 128 of 576 tokens kept; unpruned 63.1. Reported in arXiv 2508.17807; not measured here.",)
    table = Table("Reported", ("Pruner (reported)", "Published", "Debiased", "Difference"), rows, notes)
    return Sheet("reported", "What the paper reports of this model", (table,))
