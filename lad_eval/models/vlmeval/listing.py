"""VLMEvalKit's registry as lines: every entry, whether it can be served, and why."""

from __future__ import annotations

from collections import Counter

from lad_eval.models.vlmeval.kit import kit_version
from lad_eval.models.vlmeval.support import KINDS, entries, entry_of, support_of

_ANSWERS = {True: "supported", False: "unsupported"}


def listing() -> list[str]:
    """A line an entry, in the registry's order, then the counts; takes as long as VLMEvalKit takes to import.

    Raises:
        UserError: VLMEvalKit is not installed, or does not import.
    """
    names = entries()
    found = [support_of(name) for name in names]
    kinds = Counter(support.kind for support in found)
    wide, marked = max(map(len, names)), max(map(len, KINDS))
    lines = []
    for name, support in zip(names, found, strict=True):
        kind = entry_of(name)[0].__name__
        lines.append(f"{name:<{wide}}  {_ANSWERS[support.supported]:<11}  {support.kind:<{marked}}  {kind}: {support.reason}")
    served = sum(support.supported for support in found)
    counts = [f"{kinds[kind]:>5}  {kind:<{marked}}  {meaning}" for kind, meaning in KINDS.items()]
    return [*lines, "", f"{served} of {len(names)} entries of {kit_version()} are supported:", *counts]
