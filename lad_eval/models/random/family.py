"""The definition of a model family, for its tiny and its real sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TINY_TEXT: Mapping[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
"""The decoder of most tiny models."""


@dataclass(frozen=True)
class ModelShape:
    """Configuration values of one size, by the names of the family's configuration classes.

    Attributes:
        text: the decoder.
        vision: the image encoder.
        top: the model as a whole.
        images: the processor's geometry, read by the family's `processor`.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    top: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFamily:
    """A family of image-text-to-text models.

    Attributes:
        model_type: transformers' name of the architecture.
        text_type: the decoder's `model_type`, where the architecture leaves it open.
        vision_type: the same of the image encoder.
        tokens: arguments of `make_tokenizer`.
        token_ids: configuration entries that hold the id of a special token, or the ids of several.
        template: chat template, in the family's form.
        processor: creates the family's processor, without its chat template, from (tokenizer, shape).
        shapes: by size name; the tiny one is "".
        since: the first release of transformers with a working implementation, if the oldest supported release has none.
    """

    model_type: str
    tokens: Mapping[str, Any]
    token_ids: Mapping[str, str | tuple[str, ...]]
    template: str
    processor: Callable[[Any, ModelShape], Any]
    shapes: Mapping[str, ModelShape]
    text_type: str | None = None
    vision_type: str | None = None
    since: str | None = None


# Training text of the merges: most prompt words become one token, so that prompts are about as long as usual.
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
        bos: beginning-of-sequence token, or None.
        eos: end of turn: what ends an answer.
        pad: padding.
        adds_bos: whether every text begins with `bos`, as with Llama's tokenizers.
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
