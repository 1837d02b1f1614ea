"""A small byte-level tokenizer that carries a family's special tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What the merges are learnt from: enough to make most prompt words one token, so that prompts are about as long as usual.
_WORDS = """
Given images indexed from first to last, identify the image that best matches the provided caption. Respond with the index number
only and nothing else. Caption: Answer: user assistant system human You are a helpful assistant. User: Assistant: USER: ASSISTANT:
a red circle and a blue square on the left of the right above below behind in front of two three people man woman dog cat with
"""


def make_tokenizer(
    *,
    named: Mapping[str, str],
    extra: Sequence[str] = (),
    bos: str | None,
    eos: str,
    pad: str,
    adds_bos: bool = False,
) -> Any:
    """A fast transformers tokenizer: byte-level BPE of a few hundred entries, digits one by one, padding on the left.

    Args:
        named: special tokens that the processor reads as attributes of the tokenizer: {"image_token": "<image>"}.
        extra: special tokens without a name.
        bos: begin of sequence, or None.
        eos: end of turn: what ends an answer.
        pad: padding.
        adds_bos: whether every text is begun with `bos`, as Llama's tokenizers do.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    specials = list(dict.fromkeys([t for t in (pad, bos, eos) if t] + [*named.values(), *extra]))
    trainer = trainers.BpeTrainer(
        vocab_size=512 + len(specials),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    core.train_from_iterator([_WORDS.replace("\n", " ")], trainer)
    if adds_bos and bos:
        core.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        padding_side="left",
        extra_special_tokens=dict(named),
    )
