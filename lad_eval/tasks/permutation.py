"""Displayed orders: the only code that maps images to positions and back."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Permutation:
    """A displayed order of N images: position `j` shows image `order[j]`."""

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"not a permutation of 0..{len(self.order) - 1}: {self.order}")

    @classmethod
    def identity(cls, n: int) -> Permutation:
        return cls(tuple(range(n)))

    def __len__(self) -> int:
        return len(self.order)

    def __str__(self) -> str:
        return ("" if len(self.order) <= 10 else ".").join(map(str, self.order))

    @property
    def inverse(self) -> Permutation:
        """The permutation whose `order[image]` is that image's position."""
        return Permutation(tuple(sorted(range(len(self.order)), key=self.order.__getitem__)))

    def apply(self, images: Sequence[T]) -> tuple[T, ...]:
        """Images in displayed order."""
        if len(images) != len(self.order):
            raise ValueError(f"{len(images)} images for a permutation of {len(self.order)}")
        return tuple(images[i] for i in self.order)

    def position_of(self, image: int) -> int:
        return self.order.index(image)

    def shifted(self, shift: int) -> Permutation:
        """Cyclic shift of the displayed order: position `j` moves to `(j + shift) mod N`."""
        n = len(self.order)
        return Permutation(tuple(self.order[(j - shift) % n] for j in range(n)))

    def cyclic_shifts(self) -> tuple[Permutation, ...]:
        """All N cyclic shifts, this order first; every image visits every position once."""
        return tuple(self.shifted(s) for s in range(len(self.order)))

    def followed_by(self, turn: Permutation) -> Permutation:
        """The order that is displayed when `turn` is applied to this displayed order: position `j` shows `order[turn[j]]`."""
        return Permutation(turn.apply(self.order))

    def random_orders(self, count: int) -> tuple[Permutation, ...]:
        """This order and `count - 1` other distinct orders of the same images, at most N! in all.

        The same turns of every order, drawn with RANDOM_ORDERS_SEED; fewer are the first of more.
        """
        return tuple(self.followed_by(turn) for turn in draw_permutations(len(self.order), count, RANDOM_ORDERS_SEED))


RANDOM_ORDERS_SEED = 20250


def draw_permutations(n: int, count: int, seed: int = 42) -> tuple[Permutation, ...]:
    """Identity and `count - 1` other distinct orders, drawn once and shared by all samples.

    At most N! exist, and so at most N! are returned. Seed 42 and N = 4 give 0123, 0312, 1023, 3021,
    3012, as in the released code of LAD (arXiv 2605.11591).
    """
    if n < 1 or count < 1:
        raise ValueError("n and count must be positive")
    generator = random.Random(seed)
    drawn = [Permutation.identity(n)]
    while len(drawn) < min(count, math.factorial(n)):
        candidate = Permutation(tuple(generator.sample(range(n), n)))
        if candidate not in drawn:
            drawn.append(candidate)
    return tuple(drawn)
