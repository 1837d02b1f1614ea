"""What the page's script shows of single samples, as compact JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lad_eval.evidence import Floats
from lad_eval.pages.answers import Answers
from lad_eval.pages.examples import Divergences
from lad_eval.pages.text import caption_text, clean

MOST_SAMPLES = 2000
MOST_NUMBERS = 200_000


def payload(
    answers: Answers,
    captions: Mapping[str, str],
    pictures: Mapping[str, tuple[str, ...]],
    found: Divergences | None,
    colours: Mapping[str, str],
) -> dict[str, Any]:
    """Everything about the first `MOST_SAMPLES` samples that the list of samples shows.

    Probabilities are whole percents, of as many methods as `MOST_NUMBERS` allows, in the order of the table.

    Returns:
        sample, caption, gold (image), pictures: a list each, an entry a sample; orders: T lists of images, or a list of them for
        each sample where they differ; image: by method, a list of T images a sample, -1 without an answer; percent: by method, a
        list of T lists of N a sample.
    """
    S = min(len(answers.sample_id), MOST_SAMPLES)
    ids = answers.sample_id[:S]
    orders = answers.orders[:S]
    shared = bool((orders == orders[:1]).all())
    cells = S * orders.shape[1] * orders.shape[2]
    told = [name for name in answers.methods if name in answers.probability][: MOST_NUMBERS // max(cells, 1)]
    apart = [] if found is None else [int(sample) for sample in found.samples if sample < S]
    return {
        "methods": [{"name": clean(name), "colour": colours[name]} for name in answers.methods],
        "sample": [clean(name) for name in ids],
        "caption": [caption_text(captions[name]) if name in captions else None for name in ids],
        "gold": answers.gold_image[:S].tolist(),
        "orders": orders[0].tolist() if shared else orders.tolist(),
        "shared": shared,
        "image": [answers.images(name)[:S].tolist() for name in answers.methods],
        "percent": [_percents(answers.probability[name][:S]) if name in told else None for name in answers.methods],
        "pictures": [list(pictures[name]) if name in pictures else None for name in ids],
        "apart": apart,
    }


def _percents(probability: Floats) -> list[Any]:
    whole = np.rint(100 * probability)
    return [[None if np.isnan(row).any() else row.astype(np.int64).tolist() for row in sample] for sample in whole]
