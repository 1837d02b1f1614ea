"""Any VLMEvalKit model whose class answers through Hugging Face `generate`: evidence while it answers.

The model's own class keeps its prompt and its preprocessing. While it answers one message, `generate` is replaced on the inner
model's instance: the same inputs give the evidence, and the class decodes the chosen candidate as if the model had generated it.

model.py         InterceptedVLM: the VLM protocol around a VLMEvalKit model object
interception.py  replaces `generate` on an instance, and restores it
passes.py        one prefill through the model's own `generate`, and what the candidates' later tokens need
handlers.py      what runs in place of `generate`: candidates' evidence, free text, or a prompt held for calibration
writing.py       free-text replies to any message with the class's own settings, under an intervention
prompts.py       where a prompt that a class made ends and the candidates begin
images.py        which image tokens of such a prompt belong to which image
support.py       which registry entries are supported, read from the classes' sources without constructing anything
loading.py       from a registry entry to an InterceptedVLM
kit.py           importing VLMEvalKit without its side effects
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lad_eval.models.vlmeval.support import Support, entries, support_of

if TYPE_CHECKING:
    from lad_eval.models.vlmeval.model import InterceptedVLM

__all__ = ["InterceptedVLM", "Support", "entries", "support_of"]


def __getattr__(name: str) -> Any:
    # torch is imported only where a model answers
    if name == "InterceptedVLM":
        from lad_eval.models.vlmeval.model import InterceptedVLM

        return InterceptedVLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
