"""Which entries of VLMEvalKit's registry can be served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Support:
    """Whether a registry entry can be served, and why.

    Attributes:
        supported: whether the mechanism applies.
        kind: "tested", "native", "chat", "api" or "unsupported"; see docs/vlmevalkit-models.md.
        reason: one line.
    """

    supported: bool
    kind: str
    reason: str


def entries() -> list[str]:
    """Names of all entries of `vlmeval.config.supported_VLM`."""
    from lad_eval.models.vlmeval.kit import registry

    return list(registry())


def support_of(entry_name: str) -> Support:
    """Whether and how an entry can be served; nothing is constructed.

    Raises:
        UnknownNameError: no such entry.
    """
    from lad_eval.errors import UnknownNameError
    from lad_eval.models.vlmeval.kit import registry

    found = registry()
    if entry_name not in found:
        raise UnknownNameError("VLMEvalKit model", entry_name, found)
    return Support(True, "native", "generates through Hugging Face generate")
