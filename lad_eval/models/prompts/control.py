"""Control tokens of a tokenizer: they end a turn, stand for an image, open a thought. In a sample's text they are an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

# Form of an added token that is markup and not a word: "<think>", "[INST]", "<|im_end|>".
_MARK = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)
# Some vocabularies (Gemma's) have HTML tags as added tokens; they are ordinary text.
_HTML = re.compile(
    r"</?(a|b|blockquote|body|br|caption|code|div|em|h[1-6]|head|hr|html|i|li|ol|p|pre|s|small|span|strong|sub|sup|table|tbody|td"
    r"|tfoot|th|thead|title|tr|u|ul)>"
)
# Processor attributes that name the placeholders of images, videos and audio in a prompt.
_PLACEHOLDER = re.compile(r"(\w+_)?token|global_image_tag")


class ControlTokens:
    """The control tokens that a tokenizer can produce from text.

    Args:
        tokenizer: of transformers.
        processor: of the model, whose attributes name the placeholders of media; None if there is none.

    Attributes:
        special: content by id of the tokens flagged as special; a single character is text, whatever its flag.
        marks: content by id of other added tokens that have the form of markup, such as "<think>" or "<tool_call>".
    """

    def __init__(self, tokenizer: Any, processor: Any = None) -> None:
        self._tokenizer = tokenizer
        added = dict(getattr(tokenizer, "added_tokens_decoder", {}))
        names = {int(token): str(entry.content) for token, entry in added.items()}
        special = {token for token, entry in added.items() if entry.special}
        for token in tokenizer.all_special_ids:
            names.setdefault(int(token), str(tokenizer.convert_ids_to_tokens(int(token))))
            special.add(int(token))
        # Text outside the vocabulary becomes the unknown token too and is not an error, so the token is searched by its name.
        unknown = tokenizer.unk_token_id
        self._literal = {names[unknown]} if unknown in added and len(names[unknown]) > 1 else set()
        self.special = {t: n for t, n in names.items() if t in special and t != unknown and len(n) > 1 and n.strip()}
        self.marks = {
            token: name
            for token, name in names.items()
            if token not in special and _MARK.fullmatch(name) and not _HTML.fullmatch(name)
        }
        self._literal |= _placeholders(processor) if processor is not tokenizer else set()

    def name(self, token: int) -> str:
        """Content of a control token."""
        return self.special.get(token) or self.marks[token]

    def count(self, ids: Iterable[int]) -> Counter[int]:
        """Number of occurrences of each control token."""
        return Counter(token for token in ids if token in self.special or token in self.marks)

    def literal(self, text: str) -> list[str]:
        """Placeholders that a processor would find in the text, however it is tokenized."""
        return sorted((name for name in self._literal if name in text), key=text.index)

    def within(self, text: str) -> list[str]:
        """Control tokens that the text alone is tokenized to."""
        controls = self.count(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))
        return list(dict.fromkeys([*self.literal(text), *map(self.name, controls)]))

    def unwanted(self, names: Iterable[str], question: str, caption: str | None, options: Sequence[str] = ()) -> list[str]:
        """The control tokens that must not be in a question.

        All of them, except for markup around the caption and the options: a prompt template may request "<think>".
        """
        if caption is None or caption not in question:
            return list(names)
        before, _, after = question.rpartition(caption) if caption else (question, "", "")
        marks = {*self.marks.values()}
        of_data = "\0".join([caption, *options])
        return [name for name in names if name not in marks or name in of_data or name not in f"{before}\0{after}"]


def _placeholders(processor: Any) -> set[str]:
    entries = vars(processor) if hasattr(processor, "__dict__") else {}
    values = [value for name, value in entries.items() if _PLACEHOLDER.fullmatch(name)]
    values += [getattr(processor, name, None) for name in ("image_token", "video_token", "audio_token", "boi_token")]
    return {value for value in values if isinstance(value, str) and len(value) > 1 and value.strip()}
