"""The study's tables: what pruning costs, how strong the bias is, what is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lad_eval.attention.pruning.trend import ATTENTION, KEPT_BEFORE, RAMP_R2, Exponential
from lad_eval.metrics import compare, holm, paired_test
from lad_eval.report.table import Content, Table, figure, interval_note, p_value
from lad_eval.run.folder.files import slug
from lad_eval.studies.document import StudyDocument
from lad_eval.studies.pruning.conditions import DECISIONS, RANDOM, UNPRUNED, PruningCondition, is_choice, rankings_of
from lad_eval.studies.pruning.data import PrunerData
from lad_eval.studies.pruning.measurements import QUERIES, ROUNDS, PruningCost
from lad_eval.studies.tables import difference_cells, interval_cells

RANKING_NAMES = {"none": "attention", "mean": "attention / mean", "exp": "attention / exponential", RANDOM: "random"}
"""Names of the rankings in tables and figures."""
NO_MODEL = "measured on the model: run without --stored."


def share(keep: float) -> str:
    """12.5 %."""
    return f"{100 * keep:g} %"


def accuracy_document(data: PrunerData) -> StudyDocument:
    """Accuracy, RStd and consistency of each decision under each condition, and paired differences to no debiasing."""
    tables = tuple(_accuracy_table(data, decision) for decision in DECISIONS)
    return StudyDocument("accuracy", "What pruning costs, and what removing the trend recovers", tables)


def _accuracy_table(data: PrunerData, decision: str) -> Table:
    predictions, summaries = data.predictions(decision), data.summaries(decision)
    rows: list[tuple[Content, ...]] = [("unpruned", "", *interval_cells(summaries[UNPRUNED]), *[None] * 4)]
    for keep in data.keeps:
        tables = {ranking: predictions[PruningCondition(keep, ranking)] for ranking in rankings_of(keep)}
        pairs = {pair.first: pair for pair in compare(tables, against="none", seed=data.seed)} if len(tables) > 1 else {}
        correct = {ranking: table.grid.correct for ranking, table in tables.items()}
        tested = holm([paired_test(correct[ranking], correct["none"]) for ranking in pairs])
        p_values = dict(zip(pairs, tested.tolist(), strict=True))
        for ranking in tables:
            name = RANKING_NAMES[ranking] if is_choice(keep) else "any"
            pair = pairs.get(ranking)
            differences = [None] * 4 if pair is None else [*difference_cells(pair), p_value(p_values[ranking])]
            rows.append((share(keep), name, *interval_cells(summaries[PruningCondition(keep, ranking)]), *differences))
    headers = ("Kept", "Ranked by", "Accuracy", "RStd", "Consistency", "Δ accuracy", "Δ RStd", "Δ consistency", "p (Holm)")
    summary = summaries[UNPRUNED]
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


def ramp(fit: Exponential) -> str:
    """How a bias is described in words."""
    return ("late tokens" if fit.sigma > 0 else "early tokens") if fit.is_ramp else "no ramp"


def bias_document(data: PrunerData) -> StudyDocument:
    """Strength of the bias by layer, and of the choice at the pruning layer before and after."""
    title = "How attention and choice depend on a token's index"
    if not data.layers:
        missing = (f"the trend of each layer's attention is {NO_MODEL}",)
        return StudyDocument("bias", title, (_frequency_table(data),), missing=missing)
    return StudyDocument("bias", title, (_layer_table(data), _frequency_table(data)))


def _layer_table(data: PrunerData) -> Table:
    rows: list[tuple[Content, ...]] = []
    trends = {layer: trend for layer, pruner in data.layers.items() if (trend := pruner.learned_trend) is not None}
    for layer, trend in trends.items():
        fit = trend.exponential
        rows.append((layer, figure(fit.sigma, digits=2), figure(fit.r2, digits=2), ramp(fit)))
    requests = max(trend.requests for trend in trends.values())
    notes = [
        f"Fit of mu exp(sigma x), x from 0 to 1 over the visual tokens, to the mean score of {data.pruner.label} over {requests} "
        f"calibration prompts of the unpruned model. Below R2 {RAMP_R2} there is no ramp, and sigma says nothing."
    ]
    notes += dict.fromkeys(trend.warning for trend in trends.values() if trend.warning is not None)
    return Table("sigma_attn by layer", ("Pruned before layer", "sigma_attn", "R2", "Prefers"), rows, notes)


def _frequency_table(data: PrunerData) -> Table:
    rows: list[tuple[Content, ...]] = []
    for condition, pruner in data.trends.items():
        for name, fit in pruner.strengths.items():
            if name == ATTENTION.label or (name == KEPT_BEFORE.label and condition.ranking != "mean"):
                continue  # the same for every kind of trend
            when = "before" if name == KEPT_BEFORE.label else RANKING_NAMES[str(condition.ranking)]
            rows.append((share(condition.keep or 0), when, figure(fit.sigma, digits=2), figure(fit.r2, digits=2), ramp(fit)))
    return Table(
        f"sigma_freq: how often an index is kept, pruned before layer {data.pruner.layer}",
        ("Kept", "Ranking", "sigma_freq", "R2", "Prefers"),
        rows,
        ["The same fit to the share of the calibration prompts in which a token of an index is kept."],
    )


def cost_document(costs: Sequence[PruningCost]) -> StudyDocument:
    """Time, arithmetic and key-value cache as ratios to the unpruned model's."""
    title = "What pruning saves"
    if not costs:
        return StudyDocument("cost", title, missing=(f"time, FLOPs and memory are {NO_MODEL}",))
    several = len({cost.pruner for cost in costs}) > 2  # the unpruned model is one
    rows: list[tuple[Content, ...]] = []
    for cost in costs:
        name = "unpruned" if cost.keep is None else share(cost.keep)
        ratios = (figure(cost.time, digits=2), figure(cost.flops, digits=2), figure(cost.cache, digits=2))
        rows.append((name, *([cost.pruner or ""] if several else []), cost.tokens, figure(1000 * cost.seconds), *ratios))
    notes = [
        f"Time of a request's forward pass, its share of a batch of up to {QUERIES}: median of {ROUNDS} alternating rounds on "
        f"the same requests, whose images had been encoded before. The scores that tokens are ranked by are part of it.",
        "FLOPs: counted, not measured. Of the decoder's layers as they read a prompt: the sum over layers of 2 n W + 4 n² A, "
        "with n tokens that reach the layer, W weights and A = heads x head size.",
        "Cache: keys and values of one prompt in all layers, counted from the tokens that reach each. Time, FLOPs and cache are "
        "ratios to the unpruned model; that of time is the median of the rounds' ratios, "
        "and not the ratio of the medians.",
    ]
    if any(cost.flops is None for cost in costs):
        notes.append("FLOPs are not counted for decoders with experts, or with layers that do not attend.")
    headers = ("Kept", *(["Pruner"] if several else []), "Tokens in last layer", "ms / request", "Time", "FLOPs", "KV cache")
    return StudyDocument("cost", title, (Table("Time, FLOPs and memory", headers, rows, notes),))


def named_after(document: StudyDocument, pruner: str) -> StudyDocument:
    """The document under a name and title of its own, where a study has one for each of several pruners, by their labels."""
    name = slug(pruner)
    charts = tuple(replace(chart, name=f"{chart.name}-{name}") for chart in document.charts)
    return replace(document, name=f"{document.name}-{name}", title=f"{document.title} ({pruner})", charts=charts)
