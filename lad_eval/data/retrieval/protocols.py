"""Which pictures make a sample: the draws of the released code, and those of the paper's text.

`official` repeats the released code (github.com/brightXian/LAD, c704b9d, `data/build_eval_dataset.py`) with every call of its
random generator, so that results are comparable with the paper's. Consequences:

- The two settings are drawn one after the other from one generator, random first: more samples change the adversarial ones.
- An anchor may occur again (26 of 1,000 on COCO), and a wrong candidate of the random setting may have the anchor's caption.
- A hard negative never shows all of the anchor's categories.

`strict` follows the paper (arXiv 2605.11591, section 5.2 and appendix C): anchors differ, captions differ, and a hard negative
does not show exactly the anchor's categories. Every sample has a generator of its own, so that fewer samples are the first of
more, and the anchors are the same for every number of candidates and both settings.

Calibration samples are drawn from pictures outside the pool where there are any, else from pictures that are
no sample's anchor. `official` draws them with a separate generator, which leaves the released draws unchanged.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lad_eval.errors import DataError

Protocol = Literal["official", "strict"]
Setting = Literal["random", "adversarial"]
Mine = Callable[[Sequence[str], Sequence[str], int], list[list[str]]]
"""(anchors, pool, k): for every anchor the `k` hardest negatives of the pool, as `mining.Miner` finds them."""

SETTINGS: tuple[Setting, ...] = ("random", "adversarial")
DEFAULT_ENCODER = "openai/clip-vit-large-patch14"
SAMPLES = 1000
CALIBRATION = 5
POOL = 20_000
SEED = 42
SPARE = 20
"""Least number of calibration samples drawn where pictures suffice: other tasks may calibrate on them too."""
_LOG = logging.getLogger(__name__)


class TooFewImagesError(DataError):
    """The data has fewer pictures than the samples need."""


class TooFewCandidatesError(DataError):
    """An anchor has fewer admissible hard negatives than it needs."""


@dataclass(frozen=True)
class NamedSample:
    """A sample by names: pictures in displayed order, and which of them is described."""

    images: tuple[str, ...]
    index: int

    @property
    def anchor(self) -> str:
        return self.images[self.index]


@dataclass(frozen=True)
class NamedSplits:
    """The samples of both splits."""

    test: tuple[NamedSample, ...]
    calibration: tuple[NamedSample, ...]


@dataclass(frozen=True)
class Order:
    """What is to be drawn.

    Attributes:
        setting: how wrong candidates are chosen.
        candidates: N, pictures a sample.
        samples: test samples; the released code's `n_seq`.
        calibration: calibration samples.
        pool_size: pictures of the pool.
        seed: of all draws.
    """

    setting: Setting
    candidates: int
    samples: int
    calibration: int
    pool_size: int = POOL
    seed: int = SEED


def official(names: Sequence[str], order: Order, mine: Mine) -> NamedSplits:
    """The released code's samples, and calibration samples in addition.

    Args:
        names: of pictures with a caption and categories; sorted here.
        order: what is to be drawn.
        mine: finds hard negatives; not called in the random setting.

    Raises:
        DataError: too few pictures.
    """
    names = sorted(names)
    generator = random.Random(order.seed)
    pool = generator.sample(names, min(order.pool_size, len(names)))
    _enough(pool, order)
    if order.samples > len(pool):
        # The released code would continue and draw the same anchors again and again.
        raise TooFewImagesError(
            f"{len(pool)} images are too few for {order.samples} samples; lower `samples:` in a task of your own."
        )
    lists = {setting: _official_list(pool, setting, order, generator) for setting in SETTINGS}
    test = [_official_sample(pool, skeleton) for skeleton in lists["random"]]
    if order.setting == "adversarial":
        mined = mine([pool[s.anchor] for s in lists["adversarial"]], pool, order.candidates - 1)
        test = [_place(s.places, pool[s.anchor], wrong) for s, wrong in zip(lists["adversarial"], mined, strict=True)]
    anchors = {pool[skeleton.anchor] for setting in SETTINGS for skeleton in lists[setting]}
    return NamedSplits(tuple(test), _official_calibration(names, pool, anchors, order, mine))


def strict(
    names: Sequence[str], captions: Mapping[str, str], order: Order, mine: Mine, *, pool: Sequence[str] = ()
) -> NamedSplits:
    """Draws samples as the paper describes.

    Of pictures with the same caption (ignoring case, spaces and a final full stop) the first by name is used.

    Args:
        names: of pictures with a caption (and, where the data has them, categories).
        captions: by name.
        order: what is to be drawn; `samples` may be more than there are anchors, and then all are drawn.
        mine: finds hard negatives; not called in the random setting.
        pool: names from which test samples are made, where the data says so; the rest is for calibration.

    Raises:
        DataError: too few pictures.
    """
    first: dict[str, str] = {}
    for name in sorted(names):
        first.setdefault(plain(captions[name]), name)
    shuffled = list(first.values())
    random.Random(f"strict-1/{order.seed}/names").shuffle(shuffled)
    if pool:
        inside = frozenset(pool)
        test_pool = [name for name in shuffled if name in inside]
        rest = [name for name in shuffled if name not in inside][: order.pool_size]
    else:
        test_size = min(order.pool_size, len(shuffled) - min(1000, len(shuffled) // 5))
        test_pool, rest = shuffled[:test_size], shuffled[test_size:][: order.pool_size]
    if len(rest) >= max(order.calibration, 2 * order.candidates):
        test_anchors, learned_anchors = test_pool, rest[: max(order.calibration, SPARE)]
    else:
        test_pool = rest = shuffled
        learned_anchors, test_anchors = shuffled[: order.calibration], shuffled[order.calibration :]
        _note_shared(len(shuffled))
    _enough(test_pool, order)
    return NamedSplits(
        _strict_list(test_anchors[: order.samples], test_pool, order, mine, "test"),
        _calibration_list(learned_anchors, rest, shuffled, order, mine, "calibration"),
    )


def plain(caption: str) -> str:
    """A caption in lower case, without extra spaces and a final full stop, for comparison."""
    return " ".join(caption.casefold().split()).rstrip(". ")


@dataclass(frozen=True)
class _Skeleton:
    """What the generator decides for one sample: indices of the pool, and the order of anchor (0) and wrong candidates (1..)."""

    anchor: int
    wrong: tuple[int, ...]
    places: tuple[int, ...]


def _official_list(pool: Sequence[str], setting: Setting, order: Order, generator: random.Random) -> list[_Skeleton]:
    """The generator's part of one setting; mining draws nothing, so that its outcome is not needed here."""
    made = []
    others = range(len(pool) - 1)
    for _ in range(order.samples):
        anchor = generator.sample(range(len(pool)), order.candidates)[0]
        wrong: tuple[int, ...] = ()
        if setting == "random":
            # An index of the pool without its anchor; `sample` draws the same whatever it draws from.
            wrong = tuple(i + (i >= anchor) for i in generator.sample(others, order.candidates - 1))
        places = list(range(order.candidates))
        generator.shuffle(places)
        made.append(_Skeleton(anchor, wrong, tuple(places)))
    return made


def _official_sample(pool: Sequence[str], skeleton: _Skeleton) -> NamedSample:
    return _place(skeleton.places, pool[skeleton.anchor], [pool[i] for i in skeleton.wrong])


def _place(places: Sequence[int], anchor: str, wrong: Sequence[str]) -> NamedSample:
    images = [anchor, *wrong]
    return NamedSample(tuple(images[i] for i in places), places.index(0))


def _official_calibration(
    names: Sequence[str], pool: Sequence[str], anchors: set[str], order: Order, mine: Mine
) -> tuple[NamedSample, ...]:
    inside = frozenset(pool)
    outside = [name for name in names if name not in inside]
    generator = random.Random(f"official-calibration-1/{order.seed}/{order.candidates}")
    if len(outside) >= max(order.calibration, 2 * order.candidates):
        outside = generator.sample(outside, min(order.pool_size, len(outside)))
        eligible = outside[: max(order.calibration, SPARE)]
    else:
        outside = list(pool)
        eligible = generator.sample(free := [name for name in pool if name not in anchors], len(free))[: order.calibration]
        _note_shared(len(pool))
    if len(eligible) < order.calibration:
        raise TooFewImagesError(
            f"{len(pool)} images are too few for {order.samples} samples and {order.calibration} calibration samples of other "
            f"images: only {len(eligible)} are not a right answer; lower `samples:` or `calibration.samples`."
        )
    return _calibration_list(eligible, outside, names, order, mine, "official-calibration")


def _calibration_list(
    anchors: Sequence[str], outside: Sequence[str], every: Sequence[str], order: Order, mine: Mine, split: str
) -> tuple[NamedSample, ...]:
    """Samples of separate pictures; in a small folder, where these have too few hard negatives, of all pictures."""
    try:
        return _strict_list(anchors, outside, order, mine, split)
    except TooFewCandidatesError as error:
        if len(outside) >= len(every):
            raise
        _LOG.warning("Calibration takes hard negatives from the test's images too. %s", error)
        return _strict_list(anchors, every, order, mine, split)


def _strict_list(anchors: Sequence[str], pool: Sequence[str], order: Order, mine: Mine, split: str) -> tuple[NamedSample, ...]:
    mined = mine(anchors, pool, order.candidates - 1) if order.setting == "adversarial" else []
    made = []
    for number, anchor in enumerate(anchors):
        generator = random.Random(f"strict-1/{order.seed}/{split}/{order.setting}/{order.candidates}/{anchor}")
        if order.setting == "adversarial":
            wrong = mined[number]
        else:
            wrong = [name for name in generator.sample(pool, order.candidates) if name != anchor][: order.candidates - 1]
        places = list(range(order.candidates))
        generator.shuffle(places)
        made.append(_place(places, anchor, wrong))
    return tuple(made)


def _enough(pool: Sequence[str], order: Order) -> None:
    if len(pool) <= order.candidates:
        raise TooFewImagesError(
            f"{len(pool)} images are too few for {order.candidates} candidates; give more, or lower `candidates:`."
        )


def _note_shared(count: int) -> None:
    _LOG.warning("%d images are too few for separate calibration images; only the right answers are disjoint.", count)
