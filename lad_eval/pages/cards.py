"""Divergence examples as the page shows them: the displayed order, what the logits say, where the attention lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lad_eval.metrics.predictions import UNPARSABLE
from lad_eval.pages.answers import Answers
from lad_eval.pages.charts import bar
from lad_eval.pages.charts.svg import percent
from lad_eval.pages.examples import LOGITS, Divergences
from lad_eval.pages.names import image_names
from lad_eval.pages.text import caption_text, clean

SHOWN = 6


@dataclass(frozen=True)
class Share:
    """One method's probability of one candidate."""

    name: str
    colour: str
    text: str
    chart: Markup


@dataclass(frozen=True)
class Candidate:
    """An image at its displayed position."""

    position: int
    image: str
    picture: str | None
    data: str | None
    right: bool
    shares: Sequence[Share]
    chosen_by: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Choice:
    """What a method chose under one order."""

    text: str
    right: bool
    about: str


@dataclass(frozen=True)
class Card:
    """One sample in one displayed order, and every method's choices under all orders."""

    sample: str
    caption: str | None
    turn: int
    turns: int
    candidates: Sequence[Candidate]
    orders: Sequence[tuple[str, Sequence[Choice]]]
    methods: Sequence[tuple[str, str]]


def cards(
    answers: Answers,
    found: Divergences,
    captions: Mapping[str, str],
    pictures: Mapping[str, tuple[str, ...]],
    album: Mapping[str, str],
    colours: Mapping[str, str],
) -> list[Card]:
    """The first `SHOWN` divergent samples."""
    pairs = zip(found.samples[:SHOWN].tolist(), found.order[:SHOWN].tolist(), strict=True)
    return [_card(answers, found, sample, turn, captions, pictures, album, colours) for sample, turn in pairs]


def _card(
    answers: Answers,
    found: Divergences,
    sample: int,
    turn: int,
    captions: Mapping[str, str],
    pictures: Mapping[str, tuple[str, ...]],
    album: Mapping[str, str],
    colours: Mapping[str, str],
) -> Card:
    name, names = answers.sample_id[sample], image_names(answers.n_candidates)
    caption = captions.get(name)
    held = pictures.get(name)
    shown = [LOGITS, found.attention, *(m for m in ("lad",) if m in answers.probability)]
    candidates = []
    for position, image in enumerate(answers.orders[sample, turn].tolist()):
        picture = None if held is None else held[image]
        candidates.append(
            Candidate(
                position=position + 1,
                image=names[image],
                picture=picture,
                data=None if picture is None else album.get(picture),
                right=position == int(answers.gold[sample, turn]),
                shares=[s for m in shown if (s := _share(answers, m, sample, turn, position, colours)) is not None],
                chosen_by=[(clean(m), colours[m]) for m in answers.methods if int(answers.position[m][sample, turn]) == position],
            )
        )
    orders = [
        (" ".join(names[i] for i in order), [_choice(answers, m, sample, t, names) for m in answers.methods])
        for t, order in enumerate(answers.orders[sample].tolist())
    ]
    return Card(
        sample=clean(name),
        caption=None if caption is None else caption_text(caption),
        turn=turn + 1,
        turns=answers.gold.shape[1],
        candidates=candidates,
        orders=orders,
        methods=[(clean(m), colours[m]) for m in answers.methods],
    )


def _share(answers: Answers, method: str, sample: int, turn: int, position: int, colours: Mapping[str, str]) -> Share | None:
    known = answers.probability.get(method)
    if known is None:
        return None
    value = 100 * float(known[sample, turn, position])
    if value != value:
        return None
    name = {"vanilla": "logits", "purified-attention": "attention", "raw-attention": "attention"}.get(method, method)
    return Share(name, colours[method], percent(value), bar(value, name, colour=colours[method]))


def _choice(answers: Answers, method: str, sample: int, turn: int, names: Sequence[str]) -> Choice:
    position = int(answers.position[method][sample, turn])
    if position == UNPARSABLE:
        return Choice("–", False, "no answer")
    image = names[int(answers.orders[sample, turn, position])]
    right = position == int(answers.gold[sample, turn])
    return Choice(image, right, f"position {position + 1}, image {image}, {'right' if right else 'wrong'}")
