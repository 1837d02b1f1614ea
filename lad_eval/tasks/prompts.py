"""Question texts. The images come first; the model's chat template surrounds both."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from lad_eval.errors import did_you_mean
from lad_eval.registry import Registry
from lad_eval.tasks.request import Labelling


class Parts(NamedTuple):
    """A question in parts, so that a prompt variant can change one of them."""

    question: str
    reply: str
    rest: str


class PromptVariant(NamedTuple):
    """A change to a question: an additional sentence, another form of reply, or names before the images.

    Attributes:
        add: text that follows the question.
        reply: replaces the instruction on how to reply; None keeps it.
        summary: one line for lists.
        listed: the change to a question that lists its options, whose answers need not be images; None: the same.
        labelling: "Image 1:" stands before the image that "1" answers, and this is what another order moves; None: it does not.
    """

    add: str = ""
    reply: str | None = None
    summary: str = ""
    listed: PromptVariant | None = None
    labelling: Labelling | None = None


PARTS = {
    # arXiv 2605.11591, Table 9. "index" and "number" fit the identifiers 1..N as published.
    "retrieval": Parts(
        "Given {n} images indexed from {first} to {last}, identify the image that best matches the provided caption.",
        "Respond with the index number only and nothing else.",
        "\nCaption: {caption}\nAnswer: ",
    ),
    "choices": Parts(
        "Answer the question about the images with one of the options.",
        "Respond with one of {identifiers} only and nothing else.",
        "\nQuestion: {caption}\nOptions:\n{options}\nAnswer: ",
    ),
}
PROMPTS = {
    **{name: f"{parts.question} {parts.reply}{parts.rest}" for name, parts in PARTS.items()},
    # The sample's text is the whole question: for benchmarks with their own question text.
    "verbatim": "{caption}",
}


def _accepted(name: str, value: object) -> PromptVariant:
    if not isinstance(value, PromptVariant):
        raise TypeError(f"the prompt variant {name!r} must be a lad_eval.tasks.prompts.PromptVariant")
    return value


PROMPT_VARIANTS: Registry[PromptVariant] = Registry(
    "prompt variant",
    {
        # arXiv 2605.11591, baselines: the order is random, judge fairly, ignore the order.
        "instruction": PromptVariant(
            add="The images stand in a random, shuffled order. Judge each of them fairly by what it shows, "
            "and do not let the order in which they stand influence you.",
            summary="The prompt says that the images are shuffled and asks to judge them fairly.",
            listed=PromptVariant(
                add="The images and the options stand in a random, shuffled order. Judge each of them fairly by what it says or "
                "shows, and do not let the order in which they stand influence you."
            ),
        ),
        # The same source: reasoning inside tags, then the index.
        "cot": PromptVariant(
            reply="Think step by step: first write down your reasoning between <think> and </think>, "
            "then, after </think>, give the index of the image and nothing else.",
            summary="The prompt asks for reasons before the answer.",
            listed=PromptVariant(
                reply="Think step by step: first write down your reasoning between <think> and </think>, "
                "then, after </think>, give one of {identifiers} and nothing else."
            ),
        ),
        # Which of the two draws the answers, places or names, as PriDe (arXiv 2309.03882) asks of lettered options.
        "labelled": PromptVariant(
            labelling="order", summary='"Image 1:" and so on stand before the images; other orders move the images.'
        ),
        "labelled-places": PromptVariant(
            labelling="places", summary="The same; images keep their names in other orders, so that only places move."
        ),
        "labelled-names": PromptVariant(
            labelling="names", summary="The same; images keep their places in other orders, so that only names move."
        ),
    },
    group="lad_eval.prompts",
    accept=_accepted,
)


def labelling_of(prompt_variants: Sequence[str]) -> Labelling | None:
    """What other orders move, where prompt variants name the images; None where none of them does."""
    return next(filter(None, (PROMPT_VARIANTS[name].labelling for name in prompt_variants)), None)


FIELDS = ("n", "first", "last", "identifiers", "caption", "options")


def prompt_problem(prompt: str) -> str | None:
    """The fault of a prompt's name or template, in one line; None if it is valid."""
    template = PROMPTS.get(prompt, prompt)
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"not a template: {error}; write {{{{ and }}}} for braces"
    fields = [field for _, field, _, _ in parsed if field is not None]
    if not fields and len(prompt.split()) == 1:
        near = did_you_mean(prompt, PROMPTS)
        return f"unknown prompt {prompt!r}." + (near or f" There are {', '.join(PROMPTS)}; a template needs {{caption}}.")
    for _, field, form, conversion in parsed:
        if field is not None and (field not in FIELDS or form or conversion):
            return f"a template may use {', '.join('{' + f + '}' for f in FIELDS)}, not {{{field}{_tail(form, conversion)}}}"
    return None if "caption" in fields else "the template lacks {caption}"


def lists_options(prompt: str) -> bool:
    """Whether a prompt, a name or a template, shows the options."""
    return "{options}" in PROMPTS.get(prompt, prompt)


def question(
    prompt: str, caption: str, identifiers: Sequence[str], prompt_variants: Sequence[str] = (), options: Sequence[str] = ()
) -> str:
    """Text shown after the images: `prompt` names an entry of PROMPTS or is a template itself.

    A template may use {n}, {first}, {last}, {identifiers}, {caption} and {options}. Prompt variants, names of PROMPT_VARIANTS,
    change the parts of a known prompt; before a template, whose parts are unknown, they are added as separate lines.

    Args:
        prompt: a name or a template.
        caption: the sample's own text.
        identifiers: names of the positions, such as letters.
        prompt_variants: names.
        options: what stands at each position, listed as "A. text", one per line.

    Raises:
        ValueError: neither a known name nor a template with {caption}.
    """
    if problem := prompt_problem(prompt):
        raise ValueError(problem)
    variants = [PROMPT_VARIANTS[name] for name in prompt_variants]
    if lists_options(prompt):
        variants = [variant.listed or variant for variant in variants]
    return _reworded(prompt, variants).format(
        n=len(identifiers),
        first=identifiers[0],
        last=identifiers[-1],
        identifiers=", ".join(identifiers),
        caption=caption,
        options="\n".join(f"{name}. {text}" for name, text in zip(identifiers, options, strict=False)),
    )


def _reworded(prompt: str, prompt_variants: Sequence[PromptVariant]) -> str:
    added = [variant.add for variant in prompt_variants if variant.add]
    replies = [variant.reply for variant in prompt_variants if variant.reply is not None]
    if prompt in PARTS:
        question, reply, rest = PARTS[prompt]
        return " ".join([question, *added, *(replies[-1:] or [reply])]) + rest
    return "\n".join([*added, *replies[-1:], PROMPTS.get(prompt, prompt)])


def _tail(form: str | None, conversion: str | None) -> str:
    return (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")


IdentifierStyle = Literal["1..", "A..", "a..", "I..", "first.."]

_ORDINALS = tuple(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth".split()
)
_TENS = {2: ("twenty", "twentieth"), 3: ("thirty", "thirtieth"), 4: ("forty", "fortieth"), 5: ("fifty", "fiftieth")}
_ROMAN = ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))

MAX_CANDIDATES = 59


def _letters(k: int) -> str:
    """A..Z, AA, AB, ... as spreadsheets count."""
    name = ""
    while k > 0:
        k, rest = divmod(k - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def _roman(k: int) -> str:
    name = ""
    for value, sign in _ROMAN:
        while k >= value:
            name, k = name + sign, k - value
    return name


def _ordinal(k: int) -> str:
    if k < 20:
        return _ORDINALS[k - 1]
    tens, rest = divmod(k, 10)
    cardinal, ordinal = _TENS[tens]
    return f"{cardinal}-{_ORDINALS[rest - 1]}" if rest else ordinal


_STYLES: dict[str, Callable[[int], str]] = {
    "1..": str,
    "A..": _letters,
    "a..": lambda k: _letters(k).lower(),
    "I..": _roman,
    "first..": _ordinal,
}


def identifiers(style: IdentifierStyle, n: int) -> tuple[str, ...]:
    """Names of candidates 1..n, 1 <= n <= MAX_CANDIDATES."""
    if not 1 <= n <= MAX_CANDIDATES:
        raise ValueError(f"identifiers are defined for 1 to {MAX_CANDIDATES} candidates, not {n}")
    return tuple(_STYLES[style](k) for k in range(1, n + 1))
