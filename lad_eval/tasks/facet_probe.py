"""The displayed orders of Facet-Probe: K orders of each item, drawn for it alone.

Source: arXiv 2606.26079, github.com/yahskapar/facet-probe, beb327e, facets.py.
"""

from __future__ import annotations

import hashlib
import itertools
import random

from lad_eval.tasks.request import Permutation

_LISTED = 7
"""Up to this many parts, the orders are drawn from the list of all."""


def item_seed(item: str, n: int, count: int, seed: int = 42) -> int:
    """The seed of an item's orders: the first four bytes of a SHA-256 digest, big-endian."""
    text = "\x1f".join(map(str, (seed, item, n, count)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def facet_probe_orders(item: str, n: int, count: int = 6, seed: int = 42) -> tuple[Permutation, ...]:
    """`count` orders of the n parts of an item, the data's own first: distinct, or all n! in turn where these are fewer."""
    generator = random.Random(item_seed(item, n, count, seed))
    same = tuple(range(n))
    if n <= _LISTED:
        listed = list(itertools.permutations(same))
        if len(listed) < count:
            return tuple(Permutation(listed[turn % len(listed)]) for turn in range(count))
        others = [order for order in listed if order != same]
        generator.shuffle(others)
        return tuple(map(Permutation, [same, *others[: count - 1]]))
    drawn = [same]
    while len(drawn) < count:
        parts = list(same)
        generator.shuffle(parts)
        if (candidate := tuple(parts)) not in drawn:
            drawn.append(candidate)
    return tuple(map(Permutation, drawn))
