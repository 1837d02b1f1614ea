"""Question texts. The images come first; the model's own chat template goes around both."""

from __future__ import annotations

import string
from collections.abc import Sequence

from lad_eval.tasks.files import did_you_mean

PROMPTS = {
    # arXiv 2605.11591, Table 9. "index" and "number" read as they stand for the identifiers 1..N.
    "retrieval": (
        "Given {n} images indexed from {first} to {last}, identify the image that best matches the provided caption. "
        "Respond with the index number only and nothing else.\nCaption: {caption}\nAnswer: "
    ),
    # The sample's text is the whole question: for benchmarks that bring their own wording.
    "verbatim": "{caption}",
}

FIELDS = ("n", "first", "last", "identifiers", "caption")


def prompt_problem(prompt: str) -> str | None:
    """What is wrong with a prompt's name or template, in one line; None if it can be used."""
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


def question(prompt: str, caption: str, identifiers: Sequence[str]) -> str:
    """Text shown after the images: `prompt` names an entry of PROMPTS or is a template itself.

    A template may use {n}, {first}, {last}, {identifiers} and {caption}.

    Raises:
        ValueError: neither a known name nor a template with {caption}.
    """
    if problem := prompt_problem(prompt):
        raise ValueError(problem)
    return PROMPTS.get(prompt, prompt).format(
        n=len(identifiers),
        first=identifiers[0],
        last=identifiers[-1],
        identifiers=", ".join(identifiers),
        caption=caption,
    )


def _tail(form: str | None, conversion: str | None) -> str:
    return (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
