"""The order-free test: whether the images of a multiple-choice question may be shown in another order, and its options too.

A question whose text names an image by its place, or whose images are a sequence, has another answer in another order; what it
then measures is not position bias. The test reads the text only and errs on the side of leaving a question out. Where it finds no
more than a hint of an order, the question is borderline, for a person to read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

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
_BEFORE_THING = rf"(?:[ -]\w+){{0,2}}?[ -]{_THING}\b"
_LISTED = re.compile(rf"\b(?:{_ORDINAL}\b(?: {_THING})?(?:,? (?:or|and) (?:the )?|, (?:the )?))*{_ORDINAL}\b{_BEFORE_THING}")
_NUMBERED = re.compile(rf"\b{_THING} ?[#(]? ?({_NUMBER})")
_RELATIVE = re.compile(rf"\b(?:last|previous|next)\b{_BEFORE_THING}")
_HINTS_AT_ORDER = {
    "a part of the page": rf"\b(?:left|right|top|bottom)(?:most)?(?:[- ]hand)?[- ](?:{_THING}|rows?|columns?|corner)\b",
    "an order": r"\b(?:order(?! to\b)|orders|ordering|sequences?|chronolog\w*|before|after|earlier|later)\b",
}
_HINTS = {what: re.compile(pattern) for what, pattern in _HINTS_AT_ORDER.items()}
_WHICH = re.compile(rf"\bwhich (?:one )?(?:of (?:the|these|those) )?(?:\w+ )?{_THING}\b")
_PLACE_ALONE = re.compile(rf"(?:the )?{_ORDINAL}(?: one)?|[\W\d]*\d[\W\d]*")
_LETTERS = re.compile(r"(?<![\w'])\(?[A-H]\)?(?:\s*,\s*\(?[A-H]\)?)*\s*(?:,|and|or|&)\s*\(?[A-H]\)?(?![\w'])")
_OTHER_OPTIONS = re.compile(
    r"\bthe (?:above|below)\b|\b(?:options?|choices?|answers?) \(?[a-h1-9]\)?(?!\w)"
    r"|\b(?:all|both|neither|either) (?:of )?(?:the |these )?(?:options|choices|answers)\b"
)


Classification = Literal["keep", "borderline", "exclude"]
"""As of Facet-Probe's screen (arXiv 2606.26079): `exclude` where the right answer moves with the images, `borderline` where the
text speaks of an order, but perhaps not the answer."""


class Places(NamedTuple):
    """Places of images that a text names.

    Attributes:
        ordinals: 0-based, of those named like "the second image".
        numbers: 0-based, of those named like "image 2".
        relative: whether it names one like "the last image".
    """

    ordinals: frozenset[int]
    numbers: frozenset[int]
    relative: bool


class Screened(NamedTuple):
    """What the test says of a question.

    Attributes:
        options: where every option names one image and nothing else, apart from "None of the choices": the options with these
            images by index; such a question is a choice of images, for whose place the letters stand. Else the texts.
        bound: why images or options must keep their order, see `Bound`; reasons to exclude come before hints.
        classification: on showing the images in other orders.
    """

    options: tuple[Option, ...]
    bound: Bound
    classification: Classification


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
    data = f"the images are a sequence ({relation})" if relation in BOUND_RELATIONS else ""
    if images is not None:
        return Screened(images, Bound(data, letters), "exclude" if data else "keep")
    texts = [(question, "the question"), *((option, "an option") for option in options)]
    alone = "an option is a number or a place" if any(_PLACE_ALONE.fullmatch(plain(option)) for option in options) else ""
    holds = "an option holds an image" if any(MARKER in option for option in options) else ""
    exclude = next(filter(None, (*(_named(text, where) for text, where in texts), alone, holds, data)), "")
    hint = next(filter(None, (*(_hint(text, where) for text, where in texts), _between(question))), "")
    classification: Classification = "exclude" if exclude else "borderline" if hint else "keep"
    return Screened(tuple(options), Bound(exclude or hint, letters), classification)


def named_places(text: str) -> Places:
    """The places of images that a text names, alone or in a list such as "the second or the third image"."""
    words = plain(text.replace(MARKER, " "))
    ordinals = {_number_of(name) for named in _LISTED.findall(words) for name in re.findall(rf"\b{_ORDINAL}\b", named)}
    numbers = {_CARDINALS.index(name) if name in _CARDINALS else int(name) - 1 for name in _NUMBERED.findall(words)}
    return Places(frozenset(ordinals), frozenset(numbers), _RELATIVE.search(words) is not None)


def names_a_movable_place(text: str, movable: Sequence[int]) -> bool:
    """Whether a question tells apart images that other orders move, by their place.

    A question that names all of them alike, such as "the second or the third image", tells none apart.

    Args:
        text: of the question, without its options.
        movable: 0-based places of these images.
    """
    places = named_places(text)
    named = places.ordinals | places.numbers
    return places.relative or (not named.isdisjoint(movable) and not named.issuperset(movable))


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
            return _number_of(text) + 1
    return None


def _number_of(name: str) -> int:
    """0-based, of "second", "2nd" or "2"."""
    return (_ORDINALS.get(name) or int(re.sub(r"\D", "", name))) - 1


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


def _named(text: str, where: str) -> str:
    places = named_places(text)
    if places.ordinals or places.relative:
        return f"{where} names an image by its place"
    return f"{where} names an image by its number" if places.numbers else ""


def _hint(text: str, where: str) -> str:
    words = plain(text.replace(MARKER, " "))
    hint = next((what for what, pattern in _HINTS.items() if pattern.search(words)), None)
    if hint is not None:
        return f"{where} names {hint}"
    return f"{where} asks which image" if _WHICH.search(words) else ""


def _between(question: str) -> str:
    between = question.split(MARKER)[1:-1]
    return "text stands between the images" if any(re.search(r"\w", text) for text in between) else ""


def _speaks_of_options(option: str) -> str:
    refers = _LETTERS.search(option) or _OTHER_OPTIONS.search(plain(option))
    return "an option names others by their letters or places" if refers else ""
