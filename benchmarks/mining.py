"""What mining hard negatives costs: blocked matrix products against the loop over all pairs, as in the code released with LAD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.models import Plan
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.data.retrieval.mining import CAPTION_THRESHOLD, Miner

WIDTH = 768
WRONG = 7
OBJECTS = 80
SHARE = 50
"""The loop is timed on one anchor in so many, and its time multiplied."""

Floats = npt.NDArray[np.float32]


def run(plan: Plan) -> list[Table]:
    return [_table(plan)] if plan.device == "cpu" else []


def _table(plan: Plan) -> Table:
    names, images, texts, categories = _pool(plan.pool)
    miner = Miner(names, images, texts, categories)
    anchors = names[: plan.anchors]
    few = anchors[: max(1, len(anchors) // SHARE)]
    pairs = f"loop over pairs, {len(few)} anchors"
    mined = f"lad_eval, {len(anchors)} anchors"
    if miner(few, names, WRONG) != obvious(few, names, images, texts, categories, WRONG):
        raise AssertionError("the two ways choose other images")
    timing = take_turns(
        {
            mined: lambda _: miner(anchors, names, WRONG),
            pairs: lambda _: obvious(few, names, images, texts, categories, WRONG),
        },
        min(plan.rounds, 3),
        warm=False,
    )
    factor = timing.ratio(pairs, mined, per=len(few) / len(anchors))
    rows = [
        (mined, f"{timing.median(mined):.2f}", "1"),
        (pairs, f"{timing.median(pairs):.2f}", factor),
    ]
    return Table(
        f"Mining {WRONG} hard negatives for each anchor (pool of {len(names)}, {WIDTH} dimensions)",
        ("way", "CPU seconds", "time an anchor, by lad_eval"),
        rows,
        "Both choose the same images in the same order. Goals: at least 100 times the loop over pairs, and 1,000 anchors in at "
        "most 20 s on 2 cores.",
    )


def _pool(count: int) -> tuple[list[str], Floats, Floats, dict[str, frozenset[int]]]:
    """Pictures in groups that look alike, as pictures of one kind of scene do, with one to four objects each."""
    generator = np.random.default_rng(0)

    def vectors(groups: int, noise: float) -> Floats:
        centres = generator.normal(size=(groups, WIDTH))
        drawn = centres[generator.integers(groups, size=count)] + noise * generator.normal(size=(count, WIDTH))
        normalised: Floats = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
        return normalised

    names = [f"{number:06}.jpg" for number in range(count)]
    shown = {name: frozenset(map(int, generator.choice(OBJECTS, size=generator.integers(1, 5), replace=False))) for name in names}
    return names, vectors(max(1, count // 100), 0.8), vectors(max(1, count // 20), 0.4), shown


def obvious(
    anchors: Sequence[str],
    pool: Sequence[str],
    images: Floats,
    texts: Floats,
    categories: Mapping[str, frozenset[int]],
    k: int,
) -> list[list[str]]:
    """The released way: for every anchor every image of the pool.

    It does less than the released `sample_adversarial`, which copies all four vectors of a pair and computes both products before
    it looks at either.
    """
    row = {name: number for number, name in enumerate(pool)}
    chosen = []
    for anchor in anchors:
        admitted = []
        for name in pool:
            if name == anchor or categories[anchor] <= categories[name]:
                continue
            if float(np.dot(texts[row[anchor]], texts[row[name]])) >= CAPTION_THRESHOLD:
                continue
            admitted.append((float(np.dot(images[row[anchor]], images[row[name]])), name))
        admitted.sort(key=lambda pair: -pair[0])
        chosen.append([name for _, name in admitted[:k]])
    return chosen
