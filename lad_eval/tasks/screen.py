"""The order-free test: whether the images of a multiple-choice question may be shown in another order, and its options too.

A question whose text names an image by its place, or whose images are a sequence, has another answer in another order; what it
then measures is not position bias. The test reads the text only and errs on the side of leaving a question out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from lad_eval.tasks.prompts import MAX_CANDIDATES, identifiers
from lad_eval.tasks.request import Bound, Option

MARKER = "<image>"
BOUND_RELATIONS = frozenset(
    {"Temporal", "Ordered_Pages", "Narrative"}  # image_relation of MuirBench
    | {"image_jigsaw", "analogy", "visual_chain"}  # subsets of MIRB
    | {"Functional_Correspondence", "Semantic_Correspondence", "Visual_Correspondence", "Multi-view_Reasoning"}  # of BLINK
)
"""What data sets call images whose order is content, whatever the text says."""

_MISSPELT = {"forth": 4, "fith": 5, "nineth": 9, "twelvth": 12}
_ORDINALS = {name: number for number, name in enumerate(identifiers("first..", MAX_CANDIDATES), start=1)} | _MISSPELT
_CARDINALS = "one two three four five six seven eight nine ten".split()
_ORDINAL = rf"(?:{'|'.join(map(re.escape, sorted(_ORDINALS, key=len, reverse=True)))}|\d+(?:st|nd|rd|th))"
_THING = r"(?:images?|pictures?|photos?|photographs?|panels?|frames?|slides?|views?)"
_NUMBER = rf"(?:\d+|(?:{'|'.join(_CARDINALS)})\b)"

_ONE_IMAGE = (
    re.compile(rf"(?:the )?(?P<ordinal>{_ORDINAL}) {_THING}"),
    re.compile(rf"(?:the )?{_THING} ?[#(]?(?P<digits>\d+)\)?"),
    re.compile(rf"(?:the )?{_THING} (?P<word>{'|'.join(_CARDINALS)})"),
)
_NONE = re.compile(r"none of (?:the|these|those)\b(?!.*\b(?:above|below)\b).*|none")
_NAMES_A_PLACE = {
    "an image by its place": rf"\b(?:{_ORDINAL}|last|previous|next)\b(?:\W+\w+){{0,2}}?\W+{_THING}\b",
    "an image by its number": rf"\b{_THING} ?[#(]? ?{_NUMBER}",
    "a part of the page": rf"\b(?:left|right|top|bottom)(?:most)?(?:[- ]hand)?[- ](?:{_THING}|rows?|columns?|corner)\b",
    "an order": r"\b(?:order(?! to\b)|orders|ordering|sequences?|chronolog\w*|before|after|earlier|later)\b",
}
_PLACES = {what: re.compile(pattern) for what, pattern in _NAMES_A_PLACE.items()}
_WHICH = re.compile(rf"\bwhich (?:one )?(?:of (?:the|these|those) )?(?:\w+ )?{_THING}\b")
_PLACE_ALONE = re.compile(rf"(?:the )?{_ORDINAL}(?: one)?|[\W\d]*\d[\W\d]*")
_LETTERS = re.compile(r"(?<![\w'])\(?[A-H]\)?(?:\s*,\s*\(?[A-H]\)?)*\s*(?:,|and|or|&)\s*\(?[A-H]\)?(?![\w'])")
_OTHER_OPTIONS = re.compile(
    r"\bthe (?:above|below)\b|\b(?:options?|choices?|answers?) \(?[a-h1-9]\)?(?!\w)"
    r"|\b(?:all|both|neither|either) (?:of )?(?:the |these )?(?:options|choices|answers)\b"
)


class Screened(NamedTuple):
    """What the test says of a question.

    Attributes:
        options: where every option names one image and nothing else, apart from "None of the choices": the options with these
            images by index; such a question is a choice of images, for whose place the letters stand. Else the texts.
        bound: why images or options must keep their order, see `Bound`.
    """

    options: tuple[Option, ...]
    bound: Bound


def screen(question: str, options: Sequence[str], n_images: int, relation: str | None = None) -> Screened:
    """The order-free test of a question.

    Args:
        question: its text, with a marker `<image>` for each image that stands in it.
        options: their texts without letters; they may be markers or contain them.
        n_images: number of images; markers are numbered through question and options, in reading order.
        relation: what the data says about the images, see `BOUND_RELATIONS`.
    """
    letters = next((reason for option in options if (reason := _speaks_of_options(option))), "")
    images = _image_options(question, options, n_images)
    if images is not None:
        return Screened(images, Bound(_by_data(relation), letters))
    reasons = (_in_text(question, "the question"), *(_in_text(option, "an option") for option in options))
    alone = "an option is a number or a place" if any(_PLACE_ALONE.fullmatch(plain(option)) for option in options) else ""
    first = next(filter(None, (*reasons, alone, _split(question, options), _by_data(relation))), "")
    return Screened(tuple(options), Bound(first, letters))


def plain(text: str) -> str:
    """The text without capitals, further spaces and a final full stop."""
    return " ".join(text.casefold().split()).rstrip(".")


def named_image(option: str) -> int | None:
    """1-based number of the image that an option names, if it says nothing else: "the forth image", "Image 2"."""
    for pattern in _ONE_IMAGE:
        if match := pattern.fullmatch(plain(option)):
            name, text = next((name, text) for name, text in match.groupdict().items() if text)
            if name == "word":
                return _CARDINALS.index(text) + 1
            return _ORDINALS.get(text) or int(re.sub(r"\D", "", text))
    return None


def _image_options(question: str, options: Sequence[str], n_images: int) -> tuple[Option, ...] | None:
    """The options with the images that they name; None unless they name different ones, and at most one is "none of these"."""
    shown = question.count(MARKER)
    chosen: list[Option] = []
    for option in options:
        marked = plain(option) == MARKER
        number = shown + 1 if marked else named_image(option)
        if number is None and _NONE.fullmatch(plain(option)) is None:
            return None
        chosen.append(option if number is None else number - 1)
        shown += option.count(MARKER)
    images = [option for option in chosen if isinstance(option, int)]
    several = len(images) >= 2 and len(set(images)) == len(images) >= len(options) - 1
    return tuple(chosen) if several and all(0 <= image < n_images for image in images) else None


def _in_text(text: str, where: str) -> str:
    words = plain(text.replace(MARKER, " "))
    named = next((what for what, pattern in _PLACES.items() if pattern.search(words)), None)
    if named is not None:
        return f"{where} names {named}"
    return f"{where} asks which image" if _WHICH.search(words) else ""


def _split(question: str, options: Sequence[str]) -> str:
    between = question.split(MARKER)[1:-1]
    if any(re.search(r"\w", text) for text in between):
        return "text stands between the images"
    return "an option holds an image" if any(MARKER in option for option in options) else ""


def _by_data(relation: str | None) -> str:
    return f"the images are a sequence ({relation})" if relation in BOUND_RELATIONS else ""


def _speaks_of_options(option: str) -> str:
    refers = _LETTERS.search(option) or _OTHER_OPTIONS.search(plain(option))
    return "an option names others by their letters or places" if refers else ""
