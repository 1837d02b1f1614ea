"""Question texts. The images come first; the model's own chat template goes around both."""

from __future__ import annotations

from collections.abc import Sequence

PROMPTS = {
    # arXiv 2605.11591, Table 9. "index" and "number" read as they stand for the identifiers 1..N.
    "retrieval": (
        "Given {n} images indexed from {first} to {last}, identify the image that best matches the provided caption. "
        "Respond with the index number only and nothing else.\nCaption: {caption}\nAnswer: "
    ),
}


def question(prompt: str, caption: str, identifiers: Sequence[str]) -> str:
    """Text shown after the images: `prompt` names an entry of PROMPTS or is a template itself.

    A template may use {n}, {first}, {last}, {identifiers} and {caption}.
    """
    return PROMPTS.get(prompt, prompt).format(
        n=len(identifiers),
        first=identifiers[0],
        last=identifiers[-1],
        identifiers=", ".join(identifiers),
        caption=caption,
    )
