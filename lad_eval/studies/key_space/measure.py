"""All measurements of one layer's keys at one stage, and of their scores under the last query."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lad_eval.attention.keys import LINKS, Stage
from lad_eval.evidence.table import Floats
from lad_eval.studies.key_space.capture import Captured
from lad_eval.studies.key_space.distances import (
    BlockSums,
    Projection,
    binned,
    block_sums,
    jensen_shannon,
    median_distance,
    probe_auc,
    project,
)
from lad_eval.studies.key_space.permutation import SPLITS, Spread, between_halves, between_kinds, halves
from lad_eval.studies.key_space.tokens import QUESTION, TEMPLATE, VISUAL, Bools, Ints

_AHEAD = 10
"""Added to the kind of a text token that stands before the prompt's last visual token."""
_ELSEWHERE_TOKENS = 1_000
_HEAD_TOKENS = 2_000
_MAP_STEPS, _MAP_ANGLE = 500, 0.8
_RESAMPLES = 1_000


@dataclass(frozen=True)
class HalvesGap:
    """One modality against itself: halves of the samples, split by several seeds; `p` is that of the first split."""

    mmd2: Spread
    p: float
    js: Spread


@dataclass(frozen=True)
class Gap:
    """How far visual keys lie from text keys in one layer. NaN where there are too few tokens or samples.

    Attributes:
        dimensions: principal components that are compared.
        explained: their share of the variance, 0 to 1.
        mmd2: visual against text.
        p: of `mmd2`, whole samples exchanged; not yet corrected for several layers.
        js: Jensen-Shannon divergence in bits, mean over the components.
        js_weighted: the same, weighted by their variance.
        auc: of a linear probe, cross-validated over samples.
        image: visual keys against visual keys of other samples.
        text: text keys against text keys of other samples.
        question: MMD^2 of visual keys against text of the question.
        template: against text of the chat template.
        ahead: against text before or between the images.
        image_elsewhere: visual keys against those of another task.
        text_elsewhere: text keys against those of another task.
        rank_score: Spearman's correlation over samples of how far a sample's visual keys lie from text with how much higher its
            visual scores are than its text scores.
        rank_attention: the same with attention per visual token by that per text token.
    """

    layer: int
    stage: Stage
    dimensions: int
    explained: float
    mmd2: float
    p: float
    js: float
    js_weighted: float
    auc: float
    image: HalvesGap
    text: HalvesGap
    question: float
    template: float
    ahead: float
    image_elsewhere: float
    text_elsewhere: float
    rank_score: float
    rank_attention: float

    @property
    def ratio(self) -> float:
        """The gap divided by the gap between halves of one modality, or by its standard deviation if that is larger."""
        floor = max(max(half.mmd2.mean, half.mmd2.sd) for half in (self.image, self.text))
        return self.mmd2 / floor if floor > 0 else math.nan


@dataclass(frozen=True)
class Link:
    """How the last query scores visual and text keys in one layer, as means over samples; (visual, text) each.

    Attributes:
        score: pre-softmax, q.k as the layer scales it.
        norm: of the keys.
        cosine: of the keys with the query.
        attention: per token, as a multiple of even attention over the prompt.
        difference: visual score minus text score, mean over samples.
        difference_low: lower end of its 95 % interval, from a bootstrap over samples.
        difference_high: upper end.
    """

    layer: int
    score: tuple[float, float]
    norm: tuple[float, float]
    cosine: tuple[float, float]
    attention: tuple[float, float]
    difference: float
    difference_low: float
    difference_high: float


def measure_gap(keys: Captured, layer: int, stage: Stage, seed: int, elsewhere: Captured | None = None) -> Gap:
    """The gap in one layer.

    Args:
        keys: of the task.
        layer: of the decoder.
        stage: of the keys.
        seed: for projections, splits and permutations.
        elsewhere: keys of the same model on another task.
    """
    projection = project(keys.keys(layer, stage), seed)
    scores, sample = projection.scores, keys.sample
    bandwidth = median_distance(scores, seed)
    blocks = block_sums(scores, sample, keys.kind + _AHEAD * (keys.ahead & ~keys.visual), bandwidth)
    kind, ahead = blocks.kind % _AHEAD, blocks.kind >= _AHEAD
    visual = kind == VISUAL
    both = blocks.merged(~visual)
    pictures = both.kind == 0
    bins = binned(scores)
    first, second = bins[keys.visual], bins[~keys.visual]
    image_away, text_away = (math.nan, math.nan) if elsewhere is None else _elsewhere(keys, elsewhere, layer, stage, seed)
    distance = _sample_gaps(both, pictures, len(keys.length))
    links = keys.links[:, keys.layers.index(layer)]
    return Gap(
        layer,
        stage,
        scores.shape[1],
        projection.explained,
        float(both.mmd2(pictures, ~pictures)),
        between_kinds(both, pictures, ~pictures, seed),
        jensen_shannon(first, second),
        jensen_shannon(first, second, projection.variance),
        probe_auc(scores[keys.visual], scores[~keys.visual], [sample[keys.visual], sample[~keys.visual]], seed),
        _halves_gap(both.select(pictures), first, sample[keys.visual], seed),
        _halves_gap(both.select(~pictures), second, sample[~keys.visual], seed),
        float(blocks.mmd2(visual, kind == QUESTION)),
        float(blocks.mmd2(visual, kind == TEMPLATE)),
        float(blocks.mmd2(visual, ahead)),
        image_away,
        text_away,
        spearman(distance, links[:, LINKS.index("score"), 0] - links[:, LINKS.index("score"), 1]),
        spearman(distance, links[:, LINKS.index("attention"), 0] / links[:, LINKS.index("attention"), 1]),
    )


def _halves_gap(blocks: BlockSums, bins: Ints, sample: Ints, seed: int) -> HalvesGap:
    dealt = halves(blocks.sample, SPLITS, seed)
    gaps = blocks.mmd2(dealt == 0, dealt == 1)
    tokens = halves(sample, SPLITS, seed)
    divergences = [jensen_shannon(bins[side == 0], bins[side == 1]) for side in tokens if (side == 0).any()]
    js = Spread.of(divergences) if divergences else Spread(math.nan, math.nan)
    return HalvesGap(Spread.of(gaps.tolist()), between_halves(blocks, dealt[0] == 0, seed), js)


def _sample_gaps(blocks: BlockSums, visual: Bools, samples: int) -> Floats:
    """Float[samples]: how much closer a sample's visual keys are to other samples' visual keys than to their text keys."""
    gaps = np.full(samples, np.nan)
    for number in np.unique(blocks.sample):
        mine = visual & (blocks.sample == number)
        means = [
            blocks.sums[mine][:, others].sum() / pairs if (pairs := blocks.pairs[mine][:, others].sum()) else np.nan
            for others in (visual, ~visual)
        ]
        gaps[number] = means[0] - means[1]
    return gaps


def _elsewhere(keys: Captured, other: Captured, layer: int, stage: Stage, seed: int) -> tuple[float, float]:
    """MMD^2 of visual keys, and of text keys, of two tasks, on a pool of equal parts of both."""
    parts: list[tuple[Floats, Ints, Ints]] = []
    for task, captured in enumerate((keys, other)):
        chance = np.random.default_rng([seed, 3, task])
        values = captured.keys(layer, stage)
        for modality, members in enumerate((captured.visual, ~captured.visual)):
            chosen = np.sort(chance.permutation(np.flatnonzero(members))[:_ELSEWHERE_TOKENS])
            # Samples of two tasks are never one sample.
            parts.append((values[chosen], 2 * captured.sample[chosen] + task, np.full(len(chosen), 2 * task + modality)))
    values, sample, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    scores = project(values, seed).scores
    blocks = block_sums(scores, sample, kind, median_distance(scores, seed))
    visual, text = (float(blocks.mmd2(blocks.kind == modality, blocks.kind == 2 + modality)) for modality in (0, 1))
    return visual, text


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation over what is finite in both; NaN for fewer than three pairs or a constant."""
    from scipy.stats import spearmanr

    finite = np.isfinite(first) & np.isfinite(second)
    a, b = first[finite], second[finite]
    if len(a) < 3 or (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    return float(spearmanr(a, b).statistic)


def measure_link(keys: Captured, layer: int) -> Link:
    """How the last query scores the keys of one layer."""
    links = keys.links[:, keys.layers.index(layer)]  # [samples, 4, 2]
    values = {name: links[:, place] for place, name in enumerate(LINKS)}
    values["attention"] = values["attention"] * keys.length[:, None]
    means = {name: _pair(value) for name, value in values.items()}
    difference = values["score"][:, 0] - values["score"][:, 1]
    difference = difference[np.isfinite(difference)]
    middle = float(difference.mean()) if len(difference) else math.nan
    low, high = _bootstrap(difference)
    return Link(
        layer,
        means["score"],
        means["norm"],
        means["cosine"],
        means["attention"],
        middle,
        low,
        high,
    )


def _bootstrap(values: Floats) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean."""
    if len(values) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _pair(values: Floats) -> tuple[float, float]:
    finite = [column[np.isfinite(column)] for column in values.T]
    visual, text = (float(column.mean()) if len(column) else math.nan for column in finite)
    return visual, text


@dataclass(frozen=True)
class Map:
    """t-SNE of some tokens of one layer: Float[n, 2], and which of them are visual."""

    layer: int
    stage: Stage
    points: tuple[tuple[float, float], ...]
    visual: tuple[bool, ...]


def measure_map(keys: Captured, layer: int, stage: Stage, most: int, seed: int) -> Map:
    """Both modalities in the plane, as an illustration; it is not evidence of a distance.

    Half of scikit-learn's default iterations, and its coarsest recommended tree: the groups are the same in half the time.

    Args:
        keys: of the task.
        layer: of the decoder.
        stage: of the keys.
        most: points per modality.
        seed: for the choice of points.
    """
    from sklearn.manifold import TSNE

    projection: Projection = project(keys.keys(layer, stage), seed)
    chance = np.random.default_rng([seed, 4])
    chosen = np.concatenate([chance.permutation(np.flatnonzero(side))[:most] for side in (keys.visual, ~keys.visual)])
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    embedding = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=_MAP_STEPS, angle=_MAP_ANGLE)
    reduced = embedding.fit_transform(projection.scores[chosen])
    points = tuple((float(x), float(y)) for x, y in reduced)
    return Map(layer, stage, points, tuple(keys.visual[chosen].tolist()))


@dataclass(frozen=True)
class Histogram:
    """Pre-softmax scores of one layer's chosen tokens: centres of bins, and shares of visual and of text tokens in percent."""

    layer: int
    centres: tuple[float, ...]
    visual: tuple[float, ...]
    text: tuple[float, ...]


def measure_histogram(keys: Captured, layer: int, bins: int = 40) -> Histogram:
    """Bins lie between the 0.5 and 99.5 percentiles; what lies outside is counted in the first and the last."""
    scores = keys.scores(layer)
    low, high = np.percentile(scores, [0.5, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    clipped = np.clip(scores, edges[0], edges[-1])
    shares = [100 * np.histogram(clipped[side], edges)[0] / max(1, int(side.sum())) for side in (keys.visual, ~keys.visual)]
    centres, visual, text = (tuple(values.tolist()) for values in ((edges[:-1] + edges[1:]) / 2, *shares))
    return Histogram(layer, centres, visual, text)


@dataclass(frozen=True)
class HeadGaps:
    """MMD^2 of visual against text keys of each key-value head of one layer, rotated."""

    layer: int
    mmd2: tuple[float, ...]


def measure_heads(keys: Captured, layer: int, seed: int) -> HeadGaps:
    """Each head's keys standardised and projected alone, on at most 2,000 tokens of a modality.

    Args:
        keys: of the task.
        layer: of the decoder.
        seed: of the choice of tokens and of projections.
    """
    chance = np.random.default_rng([seed, 5])
    sides = [chance.permutation(np.flatnonzero(side))[:_HEAD_TOKENS] for side in (keys.visual, ~keys.visual)]
    chosen = np.sort(np.concatenate(sides))
    heads = int(keys.heads[keys.layers.index(layer)])
    gaps = []
    for values in np.split(keys.keys(layer, "rotated")[chosen], heads, axis=1):
        scores = project(values, seed).scores
        blocks = block_sums(scores, keys.sample[chosen], (~keys.visual[chosen]).astype(np.int64), median_distance(scores, seed))
        gaps.append(float(blocks.mmd2(blocks.kind == 0, blocks.kind == 1)))
    return HeadGaps(layer, tuple(gaps))
