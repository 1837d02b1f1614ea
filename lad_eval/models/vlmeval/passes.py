"""Forward passes over the prompt that a class of VLMEvalKit passes to `generate`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lad_eval.attention.caches import cache_in
from lad_eval.attention.interventions import Intervention
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.recorder import record_last_row
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inference.candidates import CandidateTrie
from lad_eval.models.inference.continuation import continue_prefixes, end_ids, select
from lad_eval.models.inference.generation import neutral_generation
from lad_eval.models.vlmeval.interception import GenerateCall

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PassResult:
    """Result of one forward pass over one prompt.

    Attributes:
        log_probs: Float[1, N].
        attention: Float[1, L, N] over the images' own tokens.
        attention_delimited: the same with the delimiters.
        forward_passes: number of decoder passes.
    """

    log_probs: Floats
    attention: Floats
    attention_delimited: Floats
    forward_passes: int


@torch.no_grad()
def run_pass(
    call: GenerateCall, layout: PromptLayout, trie: CandidateTrie, ends: Sequence[int], intervention: Intervention | None = None
) -> PassResult:
    """Candidate log-probabilities and attention after the call's prompt, under an intervention if there is one.

    Raises:
        UnsupportedModelError: a decoder layer gave no attention row, or the logits are not finite.
    """
    counted = tuple(ends) if trie.needs_end else ()
    columns = [branch.columns(counted) for branch in trie.branches]
    passes, left = 1, trie.prefixes
    with changed(call.module, layout, intervention):
        with record_last_row(call.module, layout.spans) as recorder:
            output = prefill(call, call.inputs, ends)
        attention, delimited = recorder.attention()
        rooted = [select(output.logits[0], columns[0])] if len(trie.prefixes) < len(trie.branches) else []
        cache, length = cache_in(output), layout.length
        if trie.prefixes and _continues(call.module, cache, length):
            # Pruned prompts are continued on shorter caches, which the intervention handles.
            mask = call.inputs.get("attention_mask")
            mask = torch.ones((1, length), dtype=torch.long, device=call.module.device) if mask is None else mask
            rooted += continue_prefixes(call.module, cache, mask, trie.prefixes, columns[len(rooted) :])
            passes, left = 2, ()
    for prefix, wanted in zip(left, columns[len(rooted) :], strict=True):
        # The whole prompt is run again, so the intervention must be opened again.
        with changed(call.module, layout.extended(prefix), intervention):
            longer = prefill(call, lengthened(call.module, call.inputs, prefix), ends)
        rooted.append(select(longer.logits[0], wanted))
        passes += 1
    logits = [branch.double().cpu().numpy() for branch in rooted]
    if not all(np.isfinite(branch).all() for branch in logits):
        raise UnsupportedModelError(
            f"{type(call.module).__name__} gave logits that are not finite in {call.module.dtype}; try bfloat16 or float32."
        )
    return PassResult(trie.log_probs(logits, counted), _array(attention), _array(delimited), passes)


def ends_of(call: GenerateCall, tokenizer: Any) -> tuple[int, ...]:
    """Token ids that end this call's reply: those that its class sets, else the model's own."""
    wanted = call.settings.get("eos_token_id")
    if wanted is None:
        wanted = getattr(call.settings.get("generation_config"), "eos_token_id", None)
    if wanted is None:
        return end_ids(call.module, tokenizer)
    if isinstance(wanted, torch.Tensor):
        wanted = wanted.flatten().tolist()
    return tuple(dict.fromkeys(map(int, wanted if isinstance(wanted, (list, tuple)) else [wanted])))


def padding_of(call: GenerateCall) -> dict[str, Any]:
    """The padding token that the call's class sets, if it does."""
    token = call.settings.get("pad_token_id")
    return {} if token is None else {"pad_token_id": token}


def changed(module: Any, layout: PromptLayout | None, intervention: Intervention | None) -> AbstractContextManager[None]:
    """The intervention applied to this model and prompt; does nothing without one."""
    if intervention is None or layout is None:
        return nullcontext()
    return intervention.applied(module, layout)


def lengthened(module: Any, inputs: dict[str, Any], tokens: Sequence[int]) -> dict[str, Any]:
    """The inputs with text tokens appended."""
    embeds, ids = inputs.get("inputs_embeds"), inputs.get("input_ids")
    shown: torch.Tensor = inputs["inputs_embeds"] if ids is None else ids
    shape = shown.shape[:2]
    more = torch.tensor([list(tokens)], dtype=torch.long, device=shown.device)
    longer = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            added = more if name == "input_ids" else torch.ones_like(more) if name == "attention_mask" else torch.zeros_like(more)
            longer[name] = torch.cat([value, added.to(value)], dim=1)
    if embeds is not None:
        longer["inputs_embeds"] = torch.cat([embeds, module.get_input_embeddings()(more).to(embeds)], dim=1)
    return longer


def prefill(call: GenerateCall, inputs: dict[str, Any], ends: Sequence[int]) -> Any:
    """The model's output for one pass over a prompt."""
    options = {"output_logits": True, "return_dict_in_generate": True}
    with neutral_generation(call.module, ends=ends, max_new_tokens=1, **options) as config:
        return call.generate(**inputs, generation_config=config)


def _continues(module: Any, cache: Any, length: int) -> bool:
    """Whether the prefill's cache can be repeated and continued; if not, every prefix is run with its whole prompt."""
    if not hasattr(cache, "layers") or cache.get_seq_length() != length:
        return False
    return "logits_to_keep" in inspect.signature(type(module).forward).parameters


def _array(values: torch.Tensor) -> Floats:
    return values.double().numpy()
