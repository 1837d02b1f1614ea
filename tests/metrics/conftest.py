from collections.abc import Callable

import numpy as np
import pytest

from lad_eval.metrics import Predictions


@pytest.fixture(scope="session")
def table() -> Callable[..., Predictions]:
    """Predictions from perms [T, N], gold images [S], and chosen images [S, T] or -1."""

    def build(perms, gold, chosen, prefix="s"):
        perms, gold, chosen = np.asarray(perms), np.asarray(gold), np.asarray(chosen)
        S, T = chosen.shape
        place = np.argsort(perms, axis=1)  # [T, image] -> position
        predicted = np.where(chosen < 0, -1, place[np.arange(T), chosen])
        return Predictions(
            sample_id=np.repeat([f"{prefix}{s:05d}" for s in range(S)], T),
            permutation=np.tile(np.arange(T), S),
            gold_position=place[:, gold].T.ravel(),
            predicted=predicted.ravel(),
            perm=np.tile(perms, (S, 1)),
        )

    return build


@pytest.fixture(scope="session")
def simulate(table):
    """Predictions of S samples, right with a probability that differs between samples (rows of a sample go together)."""

    def build(samples, seed, *, n=4, permutations=5, skill=0.7, spread=0.3, unparsable=0.0):
        generator = np.random.default_rng(seed)
        perms = np.argsort(np.random.default_rng(0).random((permutations, n)), axis=1)
        gold = generator.integers(n, size=samples)
        ease = np.clip(skill + spread * generator.choice([-1, 1], size=(samples, 1)), 0, 1)
        shape = (samples, permutations)
        chosen = np.where(
            generator.random(shape) < ease, gold[:, None], (gold[:, None] + generator.integers(1, n, size=shape)) % n
        )
        chosen[generator.random(shape) < unparsable] = -1
        return table(perms, gold, chosen)

    return build
