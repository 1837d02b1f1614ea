"""The trend of scores over a visual token's index, fitted on calibration prompts to be divided out. No torch here.

Source: arXiv 2508.17807: f(x) = mu exp(sigma x) with x = i / (L - 1), by least squares to the mean score of token i of L over the
samples. sigma is the strength of the bias: of the scores, or of how often each index is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lad_eval.errors import UserError

Floats = npt.NDArray[np.float64]
Grid = tuple[int, ...]
"""Visual tokens of each image of a prompt, in order; of one image where a trend runs inside each."""
TrendKind = Literal["exp", "mean", "none"]
TrendOver = Literal["sequence", "image"]

RAMP_R2 = 0.1
"""R2 below which an exponential explains too little of the mean scores to be called a bias."""
ENOUGH_REQUESTS = 100
# An index with almost no mean attention must not rank first because of one sample.
_LOWEST = 0.01
_KINDS: tuple[TrendKind, ...] = ("exp", "mean")
_OVERS: tuple[TrendOver, ...] = ("sequence", "image")
_NO_TREND = "What was learned is not a trend of visual tokens; calibrate it again."


class ScoreMeans:
    """Mean score by index, over prompts, for every grid of visual tokens that occurred.

    Args:
        over: "sequence" counts through all visual tokens of a prompt, "image" inside each image.
    """

    def __init__(self, over: TrendOver = "sequence") -> None:
        self.over: TrendOver = over
        self.requests = 0
        self._sums: dict[Grid, tuple[Floats, Floats]] = {}

    def add(self, scores: npt.ArrayLike, grid: Sequence[int], usable: npt.ArrayLike | None = None) -> None:
        """Adds one prompt; one without visual tokens is ignored.

        Args:
            scores: Float[L], of the prompt's visual tokens in order; or Bool[L], whether each was kept.
            grid: visual tokens of each image; they add up to L.
            usable: Bool[L], False on tokens that show padding, which are ignored; None: no token does.
        """
        if not sum(grid):
            return
        values = np.asarray(scores, dtype=np.float64)
        counted = np.ones(len(values)) if usable is None else np.asarray(usable, dtype=np.float64)
        self.requests += 1
        for key, part in _parts(tuple(grid), self.over):
            total, count = self._sums.setdefault(key, (np.zeros(sum(key)), np.zeros(sum(key))))
            total += np.where(counted[part] > 0, values[part], 0.0)
            count += counted[part]

    @property
    def means(self) -> dict[Grid, tuple[Floats, Floats]]:
        """By grid, ascending: Float[L] mean score of each index (0 where it was always padding), Float[L] number of prompts."""
        return {key: (total / np.maximum(count, 1), count) for key, (total, count) in sorted(self._sums.items())}


@dataclass(frozen=True)
class MeansArrays:
    """Names under which means by grid are stored: `<values>/16-16` for two images of 16 tokens, and `<counts>/16-16`.

    Attributes:
        label: what the means are of.
        values: prefix of Float[L], the mean of each index.
        counts: prefix of Float[L], the number of prompts.
    """

    label: str
    values: str
    counts: str

    def write(self, means: Mapping[Grid, tuple[Floats, Floats]]) -> dict[str, Floats]:
        """Arrays by name."""
        arrays: dict[str, Floats] = {}
        for grid, (values, counts) in means.items():
            name = "-".join(map(str, grid))
            arrays |= {f"{self.values}/{name}": values, f"{self.counts}/{name}": counts}
        return arrays

    def read(self, arrays: Mapping[str, Any]) -> dict[Grid, tuple[Floats, Floats]]:
        """The means that `write` wrote, by grid.

        Raises:
            KeyError, ValueError: the arrays are not such means.
        """
        names = [name.removeprefix(f"{self.values}/") for name in arrays if name.startswith(f"{self.values}/")]
        return {
            tuple(map(int, name.split("-"))): (arrays[f"{self.values}/{name}"], arrays[f"{self.counts}/{name}"]) for name in names
        }


ATTENTION = MeansArrays("attention", "mean", "count")
KEPT_BEFORE = MeansArrays("kept before", "before", "before-count")
"""How often each index is kept by the original scores."""
KEPT_AFTER = MeansArrays("kept after", "after", "after-count")
"""How often each index is kept by the scores divided by their trend."""


@dataclass(frozen=True)
class Exponential:
    """mu exp(sigma x), fitted.

    Attributes:
        mu: relative to the mean score.
        sigma: strength of the bias; above 0 late tokens are preferred.
        r2: share of the variance over the indices that it explains.
    """

    mu: float
    sigma: float
    r2: float

    @property
    def is_ramp(self) -> bool:
        """Whether it explains enough to be called a bias towards late, or early, tokens."""
        return self.r2 >= RAMP_R2

    def __str__(self) -> str:
        if not self.is_ramp:
            return f"no recency ramp (R2 {self.r2:.2f})"
        return f"{'late' if self.sigma > 0 else 'early'} tokens are preferred (sigma {self.sigma:.2f}, R2 {self.r2:.2f})"


def fit_exponential(means: Mapping[Grid, tuple[Floats, Floats]]) -> Exponential:
    """Least-squares fit to mean scores, relative to their mean in each grid, weighted by the number of prompts.

    Args:
        means: by grid, Float[L] and counts Float[L]; indices of count 0 are skipped.

    Raises:
        UserError: fewer than 3 indices, scores that are all 0 or not finite, or the fit does not converge.
    """
    from scipy.optimize import curve_fit

    places, values, counts = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for grid, (mean, count) in means.items():
        used = count > 0
        level = float(np.average(mean[used], weights=count[used])) if used.any() else 0.0
        if not np.isfinite(level) or level <= 0:
            raise UserError("The scores to fit a trend to are all 0, or not finite; prune from another layer.")
        places.append(positions(sum(grid))[used])
        values.append(mean[used] / level)
        counts.append(count[used])
    x, y, weight = np.concatenate(places), np.concatenate(values), np.concatenate(counts)
    if len(np.unique(x)) < 3:
        raise UserError(f"A trend is fitted to at least 3 visual tokens, not {len(np.unique(x))}; use trend=none.")
    try:
        (mu, sigma), _ = curve_fit(_exponential, x, y, p0=(float(np.average(y, weights=weight)), 0.0), sigma=weight**-0.5)
    except RuntimeError as error:
        raise UserError("No exponential trend fits these scores; use trend=mean.") from error
    residual = float(np.sum(weight * (y - _exponential(x, mu, sigma)) ** 2))
    spread = float(np.sum(weight * (y - np.average(y, weights=weight)) ** 2))
    # Scores that are equal up to rounding have no variance to explain.
    r2 = 1 - residual / spread if spread > 1e-18 * weight.sum() else 0.0
    return Exponential(float(mu), float(sigma), r2)


def positions(length: int) -> Floats:
    """The x of each of `length` tokens: from 0 to 1; 0 for a single one."""
    return np.linspace(0.0, 1.0, length) if length > 1 else np.zeros(length)


@dataclass(frozen=True)
class Trend:
    """What scores are divided by at each index. Made by `Trend.fitted`, or from stored `arrays`.

    Attributes:
        kind: "exp", the exponential; "mean", the mean score of the index, smoothed if it has few prompts.
        over: "sequence" or "image".
        exponential: fitted, whatever the kind.
        requests: calibration prompts that it was fitted to.
        means: mean scores by grid, with the number of prompts of each index.
    """

    kind: TrendKind
    over: TrendOver
    exponential: Exponential
    requests: int
    means: Mapping[Grid, tuple[Floats, Floats]] = field(compare=False, repr=False)

    @classmethod
    def fitted(cls, kind: TrendKind, scores: ScoreMeans) -> Trend:
        """The trend fitted to the mean scores of calibration prompts.

        Raises:
            UserError: see `fit_exponential`; or the kind is unknown.
        """
        if kind not in _KINDS:
            raise UserError(f"A trend of kind {kind!r} is not fitted; use {' or '.join(map(repr, _KINDS))}.")
        means = scores.means
        return cls(kind, scores.over, fit_exponential(means), scores.requests, means)

    @property
    def warning(self) -> str | None:
        """Why it may be unreliable; None if there is no reason."""
        if self.requests >= ENOUGH_REQUESTS:
            return None
        return f"The trend is fitted to {self.requests} requests only; at least {ENOUGH_REQUESTS} are advised."

    def curve(self, grid: Sequence[int]) -> Floats:
        """The trend at each visual token of a prompt, Float[L], positive, 1 on the mean over its indices; L may be 0.

        An exponential also holds for a grid that did not occur in calibration; a mean does not.

        Args:
            grid: visual tokens of each image of the prompt.

        Raises:
            UserError: a mean of another grid.
        """
        curves = [self._part(key) for key, _ in _parts(tuple(grid), self.over)]
        return np.concatenate(curves) if curves else np.zeros(0)

    def _part(self, key: Grid) -> Floats:
        if self.kind == "exp":
            values = _exponential(positions(sum(key)), 1.0, self.exponential.sigma)
        elif key in self.means:
            values = _smoothed(*self.means[key], key)
        else:
            raise UserError(
                f"The mean trend was fitted to {_shown(list(self.means))} visual tokens, and there are {_shown([key])}; "
                "calibrate it on as many pictures of this size, or use trend=exp."
            )
        level = float(values.mean())
        return np.maximum(values / level, _LOWEST)

    def arrays(self) -> dict[str, Floats]:
        """Float arrays by name, from which `of_arrays` restores it without a model."""
        made = {
            "trend": np.array([_KINDS.index(self.kind), _OVERS.index(self.over), self.requests], dtype=np.float64),
            "exponential": np.array([self.exponential.mu, self.exponential.sigma, self.exponential.r2]),
        }
        return made | ATTENTION.write(self.means)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> Trend:
        """The trend that `arrays` wrote.

        Raises:
            UserError: the arrays are not those of a trend.
        """
        try:
            kind, over, requests = (int(number) for number in arrays["trend"])
            mu, sigma, r2 = (float(number) for number in arrays["exponential"])
            means = ATTENTION.read(arrays)
            fits = all(mean.shape == count.shape == (sum(grid),) for grid, (mean, count) in means.items())
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(_NO_TREND) from error
        if not fits or not means or not {kind, over} <= {0, 1}:
            raise UserError(_NO_TREND)
        return cls(_KINDS[kind], _OVERS[over], Exponential(mu, sigma, r2), requests, means)


def _exponential(x: Floats, mu: float, sigma: float) -> Floats:
    made: Floats = mu * np.exp(sigma * x)
    return made


def _parts(grid: Grid, over: TrendOver) -> list[tuple[Grid, slice]]:
    """The stretches of a prompt's visual tokens that a trend runs through, each with its own grid; none without tokens."""
    if not sum(grid):
        return []
    if over == "sequence":
        return [(grid, slice(0, sum(grid)))]
    ends = np.cumsum(grid)
    return [((count,), slice(int(end) - count, int(end))) for count, end in zip(grid, ends, strict=True) if count]


def _smoothed(mean: Floats, count: Floats, grid: Grid) -> Floats:
    """Means in which each adjacent index of the same image counts as one prompt more.

    Means of many prompts are hardly smoothed: the next index may be at the picture's other border, with other attention.
    """
    # An index that was padding in all prompts has no mean of its own.
    values = np.where(count > 0, mean, np.average(mean, weights=count))
    adjacent = np.zeros(len(values))
    for _, part in _parts(grid, "image"):
        padded = np.pad(values[part], 1, mode="edge")
        adjacent[part] = padded[:-2] + padded[2:]
    return (count * values + adjacent) / (count + 2)


def _shown(grids: Sequence[Grid]) -> str:
    return " or ".join(" + ".join(map(str, grid)) for grid in grids)
