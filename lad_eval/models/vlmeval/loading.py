"""Loads an entry of VLMEvalKit's registry as a VLM."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

from lad_eval.errors import OutOfMemoryError, UnsupportedModelError, UserError
from lad_eval.files.checkpoints import ADAPTER_CONFIG, check_no_pointers, model_files
from lad_eval.models.adapters import check_no_stray_weights
from lad_eval.models.base import ImagePreparation
from lad_eval.models.inference.batching import is_out_of_memory
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.models.source import cached_adapter, local_folder
from lad_eval.models.vlmeval.model import InterceptedVLM
from lad_eval.models.vlmeval.support import entry_of, support_of

ENTRY = "vlmeval:"
DATASET = "LADRetrieval"
"""Data set name for classes that choose their prompt by it; VLMEvalKit has no data set of this name."""

# Engines that give neither logits nor attention; these arguments of the classes disable them.
_ENGINES = ("use_vllm", "use_lmdeploy")


def check_entry(entry: str) -> None:
    """Refuses an entry that is not supported, before anything is loaded.

    Raises:
        UserError: no such entry.
        UnsupportedModelError: an API, or a class whose `generate` cannot be replaced.
    """
    support = support_of(entry)
    if support.kind in ("api", "unsupported"):
        raise UnsupportedModelError(
            f"{entry} is not supported: {support.reason}. `lad-eval ls models --harness vlmeval` lists what is."
        )


def constructor_arguments(entry: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments that an entry's class is constructed with: the registry's, without other engines, and these options."""
    kind, arguments = entry_of(entry)
    known = inspect.signature(kind).parameters if callable(kind) else {}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    off = {name: False for name in _ENGINES if arguments.get(name) and (name in known or takes_any)}
    return {**arguments, **off, **(options or {})}


def build_inner(entry: str, options: Mapping[str, Any] | None = None) -> Any:
    """VLMEvalKit's own model object of an entry, answering through transformers.

    Raises:
        UserError: no such entry, or its class cannot be constructed here; the text says where it fails.
    """
    kind, _ = entry_of(entry)
    arguments = constructor_arguments(entry, options)
    for value in arguments.values():
        _check_place(entry, value)
    try:
        return kind(**arguments)
    except Exception as fault:  # third-party code, which may raise any exception
        if is_out_of_memory(fault):
            raise OutOfMemoryError(f"{entry} does not fit in memory.") from fault
        raise UserError(f"{entry} cannot be loaded by its class {kind.__name__} ({_reason(fault)}).") from fault


def _check_place(entry: str, value: Any) -> None:
    """Refuses a local folder, or a repository in the hub's cache, whose adapter a class would apply or ignore silently."""
    place = None if not isinstance(value, str) else local_folder(value) or cached_adapter(value, None)
    if place is None:
        return
    if (place / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{entry}: {value} holds a PEFT adapter, which VLMEvalKit's class may apply or leave out; write HF:{value} to load "
            "the base with the adapter."
        )
    if (place / "config.json").is_file():
        check_no_stray_weights(place)
        check_no_pointers(model_files(place))


def load_entry(
    entry: str,
    *,
    dataset: str | None = DATASET,
    image_preparation: ImagePreparation = "protocol",
    date: str = DEFAULT_DATE,
) -> InterceptedVLM:
    """The model behind `vlmeval:<entry>`.

    Args:
        entry: a name of VLMEvalKit's registry.
        dataset: VLMEvalKit's name of the data set.
        image_preparation: of the images that the class receives.
        date: YYYY-MM-DD, printed by chat templates that print today's date.

    Raises:
        UserError: the entry is unknown, not supported, or cannot be loaded here.
    """
    check_entry(entry)
    inner = build_inner(entry)
    return InterceptedVLM(
        inner,
        name=f"{ENTRY}{entry}",
        dataset=dataset,
        image_preparation=image_preparation,
        date=date,
        arguments=constructor_arguments(entry),
    )


def _reason(fault: BaseException) -> str:
    text = next((line.strip() for line in str(fault).splitlines() if line.strip()), "")
    frames = traceback.extract_tb(fault.__traceback__)
    if not text and frames:
        text = frames[-1].line or "no reason given"
    return f"{type(fault).__name__}: {text}"
