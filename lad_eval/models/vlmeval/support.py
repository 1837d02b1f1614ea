"""Which entries of VLMEvalKit's registry are supported, and why, without constructing anything."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from lad_eval.errors import UserError, near_names
from lad_eval.models.vlmeval.kit import kit_version
from lad_eval.models.vlmeval.source import Facts, bases, facts_of, is_processor

TESTED: Mapping[str, str] = {
    "Qwen2VLChat": "Qwen2-VL and Qwen2.5-VL",
    "Qwen3VLChat": "Qwen3-VL",
    "LLaVA_OneVision_HF": "LLaVA-OneVision",
    "SmolVLM": "SmolVLM and Idefics3",
    "SmolVLM2": "SmolVLM",
    "IDEFICS2": "Idefics3, with transformers' former name of the model class",
    "Gemma3": "Gemma 3",
    "GraniteVision3": "LLaVA-NeXT, with transformers' former name of the model class",
    "LFM2VL": "LFM2-VL",
    "VLMR1Chat": "Qwen2.5-VL",
    "VLAAThinkerChat": "Qwen2.5-VL",
    "WeThinkVL": "Qwen2.5-VL",
    "QTuneVL": "Qwen2.5-VL",
    "CoVTChat": "Qwen2.5-VL",
}
"""Classes that the tests construct and run end to end, and the model that each one wraps there."""

UP_TO_TRANSFORMERS_4: Mapping[str, str] = {
    "LLaVA_Next": "its class passes text and images in an order that transformers 5 no longer accepts",
    "VarcoVision": "its class reads image sizes in a form that transformers 5 no longer accepts",
}
"""Classes that fail in their own code with transformers 5."""

UNSUPPORTED: Mapping[str, str] = {
    "IDEFICS": "images enter it by cross-attention, not as tokens of the prompt",
    "llama_vision": "images enter it by cross-attention, not as tokens of the prompt",
    "Qwen2VLChatAguvis": "its class is an agent for screens, and needs a mode that our questions do not have",
    "Thyme": "it answers in several rounds that run code",
    "TreeVGR": "its class starts the reasoning in the prompt; a candidate right after the prompt would be part of the reasoning",
    "DOCLING": "its class takes one image only",
    "DeepSeekVL2": "its class reads the prompt before it calls `generate`",
    "LLaVA_OneVision_1_5": "its remote code has attention classes of its own, which cannot be read",
    "QwenVL": "its remote code has attention classes of its own, which cannot be read",
    "QwenVLChat": "its remote code has attention classes of its own, which cannot be read",
    "VideoLLaVA_HF": "it takes videos",
    "Kosmos2": "its model passes images to the decoder outside the prompt's tokens; that is not supported",
}

INTERNVL_CODE = frozenset({"InternVLChat", "SailVL", "VinternChat", "H2OVLChat", "QTuneVLChat"})
"""Classes around remote code of InternVL's form: `chat` writes the image tokens, `generate` puts the features in their place."""

# Parts of hub names and the language model inside; the first match counts.
_LANGUAGE_MODELS: tuple[tuple[str, str], ...] = (
    ("InternVL2-1B", "Qwen2"),
    ("InternVL2-2B", "internlm2"),
    ("InternVL2-4B", "phi3"),
    ("InternVL2-8B", "internlm2"),
    ("InternVL2-26B", "internlm2"),
    ("InternVL2-40B", "Llama"),
    ("InternVL2-Llama3-76B", "Llama"),
    ("InternVL2_5-2B", "internlm2"),
    ("InternVL2_5-8B", "internlm2"),
    ("InternVL2_5-26B", "internlm2"),
    ("InternVL2_5-1B", "Qwen2"),
    ("InternVL2_5-4B", "Qwen2"),
    ("InternVL2_5-38B", "Qwen2"),
    ("InternVL2_5-78B", "Qwen2"),
    ("internvl2_5_8b", "internlm2"),
    ("InternVL3-9B", "internlm3"),
    ("InternVL3_5-GPT-OSS", "gpt-oss"),
    ("InternVL3_5-30B-A3B", "Qwen3-MoE"),
    ("InternVL3_5-241B-A28B", "Qwen3-MoE"),
    ("InternVL3_5", "Qwen3"),
    ("InternVL3", "Qwen2"),
    ("internvl3_7b", "Qwen2"),
    ("SenseNova-SI", "Qwen2"),
    ("Vintern-1B", "Qwen2"),
    ("h2ovl-mississippi", "Mistral"),
)


def language_model_of(path: str) -> str | None:
    """The language model inside a model of InternVL's form, by its hub name; None if it is unknown here."""
    return next((language for part, language in _LANGUAGE_MODELS if part.lower() in path.lower()), None)


Kind = Literal["tested", "native", "chat", "remote", "api", "unsupported"]
KINDS: Mapping[Kind, str] = {
    "tested": "its class answers through `generate` of transformers, and the tests run it end to end with tiny random weights",
    "native": "its class answers through `generate` of a transformers model; not run here",
    "chat": "InternVL's remote code around a transformers language model; the form was run in the tests, this code was not",
    "remote": "remote code that is unknown here; loading it reports what is missing, if anything",
    "api": "an API, which shows neither logits nor attention",
    "unsupported": "the mechanism does not apply",
}


@dataclass(frozen=True)
class Support:
    """Whether a registry entry is supported, and why.

    Attributes:
        supported: whether its `generate` can be replaced.
        kind: one of `KINDS`.
        reason: one line.
    """

    supported: bool
    kind: Kind
    reason: str


def entries() -> list[str]:
    """Names of all entries of `vlmeval.config.supported_VLM`.

    Raises:
        UserError: VLMEvalKit is not installed, or cannot be imported.
    """
    from lad_eval.models.vlmeval.kit import registry

    return list(registry())


def support_of(entry_name: str) -> Support:
    """Whether and how an entry is supported, without constructing it.

    Raises:
        UserError: no such entry.
    """
    return support_of_class(*entry_of(entry_name))


def entry_of(entry_name: str) -> tuple[Any, dict[str, Any]]:
    """The class of an entry and the arguments that the registry constructs it with.

    Raises:
        UserError: no such entry.
    """
    from lad_eval.models.vlmeval.kit import registry

    entries = registry()
    if entry_name not in entries:
        near = near_names(entry_name, entries, most=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "`lad-eval ls models --harness vlmeval` lists them."
        raise UserError(f"VLMEvalKit has no model {entry_name!r}. {hint}")
    maker = entries[entry_name]
    if isinstance(maker, functools.partial):
        return maker.func, dict(maker.keywords)
    return maker, {}


def support_of_class(kind: Any, arguments: Mapping[str, Any]) -> Support:
    """Whether and how a model class, constructed with these arguments, is supported."""
    name = getattr(kind, "__name__", str(kind))
    path = str(arguments.get("model_path", ""))
    if "BaseAPI" in bases(kind) or str(getattr(kind, "__module__", "")).startswith("vlmeval.api"):
        return Support(False, "api", "an API shows neither its logits nor its attention")
    if name in UNSUPPORTED:
        return _no(UNSUPPORTED[name])
    if arguments.get("cot_prompt_version") == "r1" or "thinking" in path.lower() or "qvq" in path.lower():
        return _no("it answers after its reasoning; a candidate right after the prompt would be part of the reasoning")
    facts = facts_of(kind)
    if name in INTERNVL_CODE:
        return _internvl(name, path, arguments)
    if not (facts.generates or facts.chats):
        return _no(_how_it_answers(facts))
    if facts.first_image:
        return _no("its class shows its model the first image only")
    if facts.chats:
        return Support(False, "remote", "answers through `chat` in remote code that is unknown here; try to load it")
    if _own_package(facts):
        return _no("its model is made by a package of its own, not by transformers")
    if facts.remote and name not in TESTED:
        return Support(False, "remote", "calls `generate` of remote code that is unknown here; try to load it")
    return _native(name, path, facts)


def _native(name: str, path: str, facts: Facts) -> Support:
    missing = sorted({load for load in facts.loads if load.startswith("AutoModel") or load in facts.imported} - _offered())
    version = _transformers_version()
    if missing:
        return _no(f"its constructor needs {', '.join(missing)}, which {version} does not have")
    if name in UP_TO_TRANSFORMERS_4 and int(version.partition(".")[0]) >= 5:
        return _no(f"{UP_TO_TRANSFORMERS_4[name]} (transformers {version})")
    if "omni" in path.lower():
        return _no("an omni model answers through `generate` of its thinker; that form is not supported")
    if name in TESTED:
        return Support(True, "tested", f"calls `generate` of a transformers model; run in the tests as {TESTED[name]}")
    return Support(True, "native", "calls `generate` of a transformers model; should work, not run here")


def _internvl(name: str, path: str, arguments: Mapping[str, Any]) -> Support:
    if name == "InternVLChat" and arguments.get("version") in ("V1.1", "V1.2"):
        return _no("its class shows its model the first image only")
    if name == "InternVLChat" and arguments.get("version") == "V1.5":
        return _no("its class joins all images into one, so that they cannot be distinguished")
    if int(arguments.get("best_of_n", 1)) > 1:
        return _no("it samples several replies and lets another model choose")
    language = language_model_of(path)
    if language in ("internlm2", "internlm3", "phi3"):
        return _no(f"its language model ({language}) is remote code with attention of its own, which cannot be read")
    if language is None:
        return Support(False, "remote", "InternVL's code, around a language model that is unknown here; try to load it")
    return Support(True, "chat", f"InternVL's remote code, whose `chat` ends in `generate` of {language} from transformers")


def _how_it_answers(facts: Facts) -> str:
    if facts.reply_calls:
        return f"its class answers through {', '.join(facts.reply_calls)}, not through `generate` of the model it keeps"
    return "its class does not call `generate` of the model it keeps"


def _own_package(facts: Facts) -> bool:
    """Whether no model class of transformers is loaded in the constructor."""
    models = [name for name in facts.loads if not is_processor(name)]
    return not any(name.startswith("AutoModel") or name in facts.imported or name == "MODEL_CLS" for name in models)


def _no(reason: str) -> Support:
    return Support(False, "unsupported", reason)


@lru_cache(maxsize=1)
def _offered() -> frozenset[str]:
    import transformers

    return frozenset(dir(transformers))


def _transformers_version() -> str:
    from importlib.metadata import version

    return version("transformers")


_ANSWERS = {True: "supported", False: "unsupported"}


def listing() -> list[str]:
    """One line per entry, in the registry's order, then the counts; takes as long as importing VLMEvalKit.

    Raises:
        UserError: VLMEvalKit is not installed, or cannot be imported.
    """
    names = entries()
    supports = [support_of(name) for name in names]
    kinds = Counter(support.kind for support in supports)
    wide, marked = max(map(len, names)), max(map(len, KINDS))
    lines = []
    for name, support in zip(names, supports, strict=True):
        kind = entry_of(name)[0].__name__
        lines.append(f"{name:<{wide}}  {_ANSWERS[support.supported]:<11}  {support.kind:<{marked}}  {kind}: {support.reason}")
    served = sum(support.supported for support in supports)
    counts = [f"{kinds[kind]:>5}  {kind:<{marked}}  {meaning}" for kind, meaning in KINDS.items()]
    return [*lines, "", f"{served} of {len(names)} entries of {kit_version()} are supported:", *counts]
