"""What a server's answers say: replies, log-probabilities of candidates, tokens spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lad_eval.errors import UnsupportedModelError
from lad_eval.evidence.table import Floats
from lad_eval.methods.calibration import log_softmax
from lad_eval.models.base import Usage
from lad_eval.models.server.client import GarbledError

TOP_LOG_PROBS = 20
"""Most probable tokens requested, the most that the protocol allows."""
_FORMS = ("", " ")  # a candidate's token may begin with the space that a template leaves to it


@dataclass(frozen=True)
class Completion:
    """A server's answer to one request.

    Attributes:
        texts: of its choices; "" where a choice has none.
        top: of the first choice's first token, (token, log-probability) of the most probable ones; None without them.
        usage: None where the server does not report it.
        model: the server's name of the model that answered; None where it gives none.
    """

    texts: tuple[str, ...]
    top: tuple[tuple[str, float], ...] | None
    usage: Usage | None
    model: str | None = None


def read_completion(document: Any) -> Completion:
    """A chat completion.

    Raises:
        GarbledError: it is not one.
    """
    try:
        choices = document["choices"]
        texts = tuple(_text(choice["message"]["content"]) for choice in choices)
        top = _top(choices[0].get("logprobs"))
        usage = _usage(document.get("usage"))
        model = document.get("model")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        reason = document.get("error") if isinstance(document, Mapping) else None
        raise GarbledError("no chat completion" if reason is None else " ".join(str(reason).split())) from error
    return Completion(texts, top, usage, model if isinstance(model, str) and model else None)


def _text(content: Any) -> str:
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _top(log_probs: Any) -> tuple[tuple[str, float], ...] | None:
    if not log_probs or not log_probs.get("content"):
        return None
    first = log_probs["content"][0]
    entries = [*(first.get("top_logprobs") or ()), first]
    return tuple((str(entry["token"]), float(entry["logprob"])) for entry in entries)


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, Mapping):
        return None
    prompt, reply = usage.get("prompt_tokens"), usage.get("completion_tokens")
    counts = all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in (prompt, reply))
    return Usage(int(prompt or 0), int(reply or 0)) if counts else None


def read_models(document: Any) -> list[str]:
    """Names of the models that a server lists, as far as they can be read; servers differ in how they list them."""
    entries = document.get("data") if isinstance(document, Mapping) else document
    if not isinstance(entries, list):
        return []
    names = [entry.get("id") if isinstance(entry, Mapping) else entry for entry in entries]
    return [name for name in names if isinstance(name, str)]


def candidate_log_probs(top: Sequence[tuple[str, float]], identifiers: Sequence[str], sample: str) -> Floats:
    """Log-probabilities Float[N] of the candidates as the first token of a reply, normalised among them.

    A candidate's token is its identifier, or its identifier after a space: whichever form covers all candidates; the more
    probable one if both do.

    Args:
        top: the most probable first tokens and their log-probabilities.
        identifiers: of the N candidates.
        sample: its id, for the error.

    Raises:
        UnsupportedModelError: a candidate is not among the tokens.
    """
    known: dict[str, float] = {}
    for token, value in top:
        if math.isfinite(value):
            known[token] = max(value, known.get(token, value))
    rows = {form: [known.get(form + name) for name in identifiers] for form in _FORMS}
    covered = [np.asarray(row, dtype=np.float64) for row in rows.values() if None not in row]
    if covered:
        best = max(covered, key=lambda row: float(np.logaddexp.reduce(row)))
        normalised: Floats = log_softmax(best[None])[0]
        return normalised
    form = max(_FORMS, key=lambda form: sum(value is not None for value in rows[form]))
    missing = [name for name, value in zip(identifiers, rows[form], strict=True) if value is None]
    raise UnsupportedModelError(
        f"Sample {sample}: the server gave no log-probability of {', '.join(map(repr, missing))}, only those of the {len(known)} "
        "most probable tokens; use methods that read replies (generate, cot, self-consistency)."
    )
