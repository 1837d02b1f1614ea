"""Single samples: compact JSON for the page's script, and cards of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from lad_eval.evidence.replies import UNPARSABLE
from lad_eval.evidence.table import Floats, Ints
from lad_eval.report.html.charts import bar, percent
from lad_eval.report.html.load import MethodAnswers
from lad_eval.report.html.patches import PatchMaps
from lad_eval.report.html.text import caption_text, clean, image_names

LOGITS = "vanilla"
ATTENTION = ("purified-attention", "raw-attention")


@dataclass(frozen=True)
class Divergences:
    """Rows in which the attention is right and the logits are wrong.

    Attributes:
        attention: the method that represents the attention.
        rows: number of such rows; of: number of all rows.
        samples: Int[K], the samples with such a row, the most confident wrong answer first.
        order: Int[K], the row to show of each: the one with the most confident wrong answer of the logits.
    """

    attention: str
    rows: int
    of: int
    samples: Ints
    order: Ints


def divergences(answers: MethodAnswers) -> Divergences | None:
    """The divergences; None if the run holds no answers of the logits or of the attention."""
    attention = next((name for name in ATTENTION if name in answers.grids), None)
    if attention is None or LOGITS not in answers.grids:
        return None
    divergences = answers.grids[attention].correct & ~answers.grids[LOGITS].correct
    sure = np.where(divergences, _confidence(answers), -1.0)
    samples = np.flatnonzero(divergences.any(axis=1))
    ranked = samples[np.argsort(-sure[samples].max(axis=1), kind="stable")]
    return Divergences(attention, int(divergences.sum()), divergences.size, ranked, sure[ranked].argmax(axis=1))


def _confidence(answers: MethodAnswers) -> Floats:
    """Probability of the logits' own answer, Float[S, T]; 0 where there is none."""
    known = answers.probability.get(LOGITS)
    if known is None:
        return np.zeros(answers.shown.gold.shape)
    position = np.maximum(answers.grids[LOGITS].predicted, 0)
    confidence: Floats = np.nan_to_num(np.take_along_axis(known, position[..., None], axis=2)[..., 0])
    return confidence


def flipping(answers: MethodAnswers, method: str) -> Ints:
    """The samples for which the method chooses different images in different orders, Int[K]."""
    chosen = answers.grids[method].chosen
    samples: Ints = np.flatnonzero((chosen != chosen[:, :1]).any(axis=1))
    return samples


MOST_SAMPLES = 2000
MOST_NUMBERS = 200_000


def payload(
    answers: MethodAnswers,
    captions: Mapping[str, str],
    pictures: Mapping[str, tuple[str, ...]],
    divergent: Divergences | None,
    colours: Mapping[str, str],
) -> dict[str, Any]:
    """What the page's list of samples shows about the first `MOST_SAMPLES` samples.

    Probabilities are whole percents, of as many methods as `MOST_NUMBERS` allows, in the order of the table.

    Returns:
        sample, caption, gold (image), pictures: a list each, one entry per sample; orders: T lists of images, or one such list
        per sample where they differ; image: by method, a list of T images per sample, -1 without an answer; percent: by method, a
        list of T lists of N per sample.
    """
    S = min(len(answers.sample_id), MOST_SAMPLES)
    ids = answers.sample_id[:S]
    orders = answers.shown.perm[:S]
    shared = bool((orders == orders[:1]).all())
    cells = S * orders.shape[1] * orders.shape[2]
    numbered = [name for name in answers.methods if name in answers.probability][: MOST_NUMBERS // max(cells, 1)]
    divergences = [] if divergent is None else [int(sample) for sample in divergent.samples if sample < S]
    return {
        "methods": [{"name": clean(name), "colour": colours[name]} for name in answers.methods],
        "sample": [clean(name) for name in ids],
        "caption": [caption_text(captions[name]) if name in captions else None for name in ids],
        "gold": answers.shown.gold_image[:S].tolist(),
        "orders": orders[0].tolist() if shared else orders.tolist(),
        "shared": shared,
        "image": [answers.grids[name].chosen[:S].tolist() for name in answers.methods],
        "percent": [_percents(answers.probability[name][:S]) if name in numbered else None for name in answers.methods],
        "pictures": [list(pictures[name]) if name in pictures else None for name in ids],
        "apart": divergences,
    }


def _percents(probability: Floats) -> list[Any]:
    whole = np.rint(100 * probability)
    return [[None if np.isnan(row).any() else row.astype(np.int64).tolist() for row in sample] for sample in whole]


SHOWN = 6


@dataclass(frozen=True)
class CandidateProbability:
    """One method's probability of one candidate."""

    name: str
    colour: str
    text: str
    chart: Markup


@dataclass(frozen=True)
class Candidate:
    """An image at its displayed position; `overlay` shades the patches that the caption attends to."""

    position: int
    image: str
    picture: str | None
    data: str | None
    overlay: str | None
    right: bool
    shares: Sequence[CandidateProbability]
    chosen_by: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ChosenImage:
    """The image that a method chose under one order."""

    text: str
    right: bool
    about: str


@dataclass(frozen=True)
class SampleCard:
    """One sample in one displayed order, and every method's choices under all orders."""

    sample: str
    caption: str | None
    turn: int
    turns: int
    candidates: Sequence[Candidate]
    orders: Sequence[tuple[str, Sequence[ChosenImage]]]
    methods: Sequence[tuple[str, str]]


def cards(
    answers: MethodAnswers,
    divergent: Divergences,
    captions: Mapping[str, str],
    pictures: Mapping[str, tuple[str, ...]],
    bundle: Mapping[str, str],
    colours: Mapping[str, str],
    patches: PatchMaps | None = None,
) -> list[SampleCard]:
    """The first `SHOWN` divergent samples."""
    pairs = zip(divergent.samples[:SHOWN].tolist(), divergent.order[:SHOWN].tolist(), strict=True)
    return [_card(answers, divergent, sample, turn, captions, pictures, bundle, colours, patches) for sample, turn in pairs]


def _card(
    answers: MethodAnswers,
    divergent: Divergences,
    sample: int,
    turn: int,
    captions: Mapping[str, str],
    pictures: Mapping[str, tuple[str, ...]],
    bundle: Mapping[str, str],
    colours: Mapping[str, str],
    patches: PatchMaps | None,
) -> SampleCard:
    name, names = answers.sample_id[sample], image_names(answers.n_candidates)
    caption = captions.get(name)
    held = pictures.get(name)
    shown = [LOGITS, divergent.attention, *(m for m in ("lad",) if m in answers.probability)]
    candidates = []
    for position, image in enumerate(answers.shown.perm[sample, turn].tolist()):
        picture = None if held is None else held[image]
        candidates.append(
            Candidate(
                position=position + 1,
                image=names[image],
                picture=picture,
                data=None if picture is None else bundle.get(picture),
                overlay=None if patches is None or picture is None else patches.overlay(name, turn, position),
                right=position == int(answers.shown.gold[sample, turn]),
                shares=[s for m in shown if (s := _share(answers, m, sample, turn, position, colours)) is not None],
                chosen_by=[
                    (clean(m), colours[m]) for m in answers.methods if int(answers.grids[m].predicted[sample, turn]) == position
                ],
            )
        )
    orders = [
        (" ".join(names[i] for i in order), [_choice(answers, m, sample, t, names) for m in answers.methods])
        for t, order in enumerate(answers.shown.perm[sample].tolist())
    ]
    return SampleCard(
        sample=clean(name),
        caption=None if caption is None else caption_text(caption),
        turn=turn + 1,
        turns=answers.shown.gold.shape[1],
        candidates=candidates,
        orders=orders,
        methods=[(clean(m), colours[m]) for m in answers.methods],
    )


def _share(
    answers: MethodAnswers, method: str, sample: int, turn: int, position: int, colours: Mapping[str, str]
) -> CandidateProbability | None:
    known = answers.probability.get(method)
    if known is None:
        return None
    value = 100 * float(known[sample, turn, position])
    if value != value:
        return None
    name = {"vanilla": "logits", "purified-attention": "attention", "raw-attention": "attention"}.get(method, method)
    return CandidateProbability(name, colours[method], percent(value), bar(value, name, colour=colours[method]))


def _choice(answers: MethodAnswers, method: str, sample: int, turn: int, names: Sequence[str]) -> ChosenImage:
    position = int(answers.grids[method].predicted[sample, turn])
    if position == UNPARSABLE:
        return ChosenImage("–", False, "no answer")
    image = names[int(answers.shown.perm[sample, turn, position])]
    right = position == int(answers.shown.gold[sample, turn])
    return ChosenImage(image, right, f"position {position + 1}, image {image}, {'right' if right else 'wrong'}")
