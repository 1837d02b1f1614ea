"""The study's tables: accuracy and bias, answers that need other images, positions of the answers, attention by layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from lad_eval.evidence.table import Floats
from lad_eval.metrics import UNPARSABLE, Predictions, compare, holm, paired_test
from lad_eval.report.table import Content, Table, figure, interval_note, p_value
from lad_eval.studies.capl.between import FUSED, PLAIN
from lad_eval.studies.capl.conditions import PLAIN as UNCHANGED
from lad_eval.studies.capl.conditions import TRUNCATED, CaplCondition, Weights
from lad_eval.studies.capl.data import TaskData, positions_chosen
from lad_eval.studies.tables import difference_cells, interval_cells

MOST_LAYERS = 8
"""Layers that tables and pictures of attention show; of a deeper model, some that are evenly spaced."""
_DELTAS = ("Δ accuracy", "Δ RStd", "Δ consistency", "Other answers", "p (Holm)")


def accuracy_tables(data: TaskData) -> tuple[Table, ...]:
    """Every condition with its differences from the unchanged model; and, with an adapter, what the training alone changes."""
    trained = (_training_table(data),) if data.conditions.trained else ()
    return (_accuracy_table(data), *trained)


def _accuracy_table(data: TaskData) -> Table:
    base, *others = data.predictions
    summaries = data.summaries
    differences = dict(zip(others, _differences(data, [(other, base) for other in others]), strict=True))
    differences[base] = (None,) * 5
    rows: list[tuple[Content, ...]] = [
        (row.label, *interval_cells(summaries[row]), *differences[row]) for row in data.predictions
    ]
    notes = [
        f"Fused: {data.conditions.fused.label}. Δ: minus base, on the same samples and orders, with paired "
        "95 % intervals; below 0 in RStd is less bias. Other answers: the share of answers that are not base's. p: exact "
        "paired test over samples of the difference in accuracy, Holm's correction over the table. "
        f"Chance is {100 / data.candidates:.3g} %.",
    ]
    ends = [(one.accuracy_low, one.accuracy_high) for one in summaries.values()]
    if (note := interval_note(summaries[base].samples, ends)) is not None:
        notes.append(note)
    title = f"{data.task} ({summaries[base].samples} samples x {summaries[base].permutations} orders)"
    return Table(title, ("", "Accuracy", "RStd", "Consistency", *_DELTAS), rows, notes)


def _training_table(data: TaskData) -> Table:
    conditions = data.conditions
    pairs = [(conditions.row("trained", method), conditions.row("base", method)) for method in conditions.methods]
    cells = _differences(data, pairs)
    rows = [(first.label, second.label, *one) for (first, second), one in zip(pairs, cells, strict=True)]
    notes = ("The first minus the second, under the same attention; otherwise as above.",)
    return Table(f"{data.task}: what the training alone changes", ("", "Minus", *_DELTAS), rows, notes)


def _differences(data: TaskData, pairs: Sequence[tuple[CaplCondition, CaplCondition]]) -> list[tuple[Content, ...]]:
    """For each pair, first minus second: accuracy, RStd, consistency, the share of other answers, and the corrected p-value."""
    grids = {row: table.grid.correct for row, table in data.predictions.items()}
    p_values = holm([paired_test(grids[first], grids[second]) for first, second in pairs]).tolist()
    made: list[tuple[Content, ...]] = []
    for (first, second), p in zip(pairs, p_values, strict=True):
        both = {"first": data.predictions[first], "second": data.predictions[second]}
        (pair,) = compare(both, against="second", seed=data.seed)
        made.append((*difference_cells(pair), figure(*data.share(data.differing(first, second))), p_value(p)))
    return made


def needs_table(data: TaskData) -> Table:
    """How many answers hang on images seeing each other, with all else equal."""
    pairs = needing_pairs(data)
    right = [(data.predictions[first].grid.correct, data.predictions[second].grid.correct) for first, second in pairs]
    p_values = holm([paired_test(*both) for both in right]).tolist()
    rows: list[tuple[Content, ...]] = []
    for (first, second), (seen, unseen), p in zip(pairs, right, p_values, strict=True):
        shares = (data.differing(first, second), seen & ~unseen, unseen & ~seen)
        rows.append((first.label, second.label, *(figure(*data.share(one)) for one in shares), p_value(p)))
    headers = ("Images are seen", "Images are not seen", "Other answers", "Right only if seen", "Right only if not", "p (Holm)")
    notes = (
        "Shares of all answers, in points. Under truncated attention no image sees another, so an answer that changes with it "
        "needs other images. p: exact paired test of the difference in accuracy, Holm's correction over the table.",
    )
    return Table(data.task, headers, rows, notes)


def needing_pairs(data: TaskData) -> list[tuple[CaplCondition, CaplCondition]]:
    """Fused against truncated, then plain against truncated, for each model."""
    row, fused = data.conditions.row, data.conditions.fused.label
    pairs = (
        (row(weights, method), row(weights, TRUNCATED)) for weights in data.conditions.weights for method in (fused, UNCHANGED)
    )
    return list(pairs)


def positions_table(data: TaskData) -> Table:
    """Which positions each condition answers, whatever is right."""
    unanswered = any((table.predicted == UNPARSABLE).any() for table in data.predictions.values())
    rows: list[tuple[Content, ...]] = []
    for row, predictions in data.predictions.items():
        shares = positions_chosen(predictions)
        none = [100 - sum(shares)] if unanswered else []
        rows.append((row.label, *(figure(share) for share in [*shares, *none]), figure(_spread(predictions))))
    numbers = tuple(str(position + 1) for position in range(data.candidates))
    notes = (
        "Share of the answers, in points, that name each position. Over many samples the right image stands at each "
        "equally often. Imbalance: the share of answers that would have to move for equal shares.",
    )
    return Table(data.task, ("", *numbers, *(["No answer"] if unanswered else []), "Imbalance"), rows, notes)


def _spread(predictions: Predictions) -> float:
    shares = np.asarray(positions_chosen(predictions))
    return float(np.abs(shares - shares.sum() / len(shares)).sum() / 2)


def shown_layers(layers: Sequence[int], fused: Sequence[int]) -> list[int]:
    """Layers to show: all, or of many some that are evenly spaced, the fused ones first.

    Args:
        layers: that attend.
        fused: those of them that are fused.
    """
    if len(layers) <= MOST_LAYERS:
        return list(layers)
    places = np.linspace(0, len(fused) - 1, min(MOST_LAYERS, len(fused))).round().astype(int)
    return [fused[place] for place in places.tolist()]


def between_table(data: TaskData) -> Table:
    """Attention of an image's tokens to its own, to earlier and to later images, by layer."""
    matrices = between_matrices(data)
    layers = sorted(next(iter(matrices.values())))
    rows: list[tuple[Content, ...]] = []
    for layer in shown_layers(layers, layers[:: data.conditions.fused.every]):
        for name, by_layer in matrices.items():
            cells = (figure(value) for value in directions(by_layer[layer]))
            rows.append((layer, name, *cells))
    notes = (
        "Points of the attention of an image's tokens, the mean over images, heads and prompts; the rest to 100 goes to text. Of "
        f"the layers that attend, every one of {data.conditions.fused.every}, from the first, is fused.",
    )
    return Table(f"Attention of images on {data.task}", ("Layer", "", "Own image", "Earlier images", "Later images"), rows, notes)


def between_matrices(data: TaskData) -> dict[str, dict[int, Floats]]:
    """Float[N, N] by layer, in points, under the names that tables and pictures use: base, fused, trained, ..."""
    names: dict[Weights, dict[str, str]] = {
        "base": {PLAIN: "base", FUSED: "fused"},
        "trained": {PLAIN: "trained", FUSED: "trained, fused"},
    }
    measured = chain.from_iterable(
        ((names[weights][kind], by) for kind, by in shares.items()) for weights, shares in data.between.items()
    )
    return {name: {layer: 100 * matrix for layer, matrix in by_layer.items()} for name, by_layer in measured}


def directions(matrix: Floats) -> tuple[float, float, float]:
    """Attention to one's own image, to all earlier and to all later ones, the mean over the images, from Float[N, N]."""
    n = len(matrix)
    return float(np.trace(matrix)) / n, float(np.tril(matrix, -1).sum()) / n, float(np.triu(matrix, 1).sum()) / n
