from functools import cache

import pytest

from lad_eval.errors import UnsupportedModelError


@cache
def _load(family):
    from lad_eval.models.random import load_random

    return load_random(family, seed=1)


@pytest.fixture(scope="session")
def tiny():
    """Loads a family's tiny random model, once a session: tiny(family) -> (model, processor)."""

    def load(family):
        try:
            return _load(family)
        except UnsupportedModelError as missing:
            pytest.skip(str(missing))

    return load


@pytest.fixture(scope="session")
def vlm(tiny):
    """Makes a HuggingFaceVLM of a family: vlm(family, **options)."""
    from lad_eval.models.huggingface import HuggingFaceVLM

    def make(family, **options):
        model, processor = tiny(family)
        given = {"name": f"random:{family}", "weights": "seed 1", "image_preparation": "native", **options}
        return HuggingFaceVLM(model, processor, **given)

    return make
