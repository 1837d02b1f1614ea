"""VLMEvalKit's command line, as far as it must be understood and changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.run.folder import read_json


@dataclass(frozen=True)
class CommandLine:
    """Flags and values; `--flag value ...` and `--flag=value` alike."""

    words: Sequence[str]

    def has(self, flag: str) -> bool:
        """Whether the flag is there."""
        return any(word.partition("=")[0] == flag for word in self.words)

    def values(self, flag: str) -> list[str]:
        """What stands behind the flag, once each."""
        found: list[str] = []
        taking = False
        for word in self.words:
            if word.startswith("-"):
                name, equals, value = word.partition("=")
                taking = name == flag
                found += [value] if taking and equals else []
            elif taking:
                found.append(word)
        return list(dict.fromkeys(found))

    def replaced(self, flag: str, names: Mapping[str, Sequence[str]]) -> CommandLine:
        """The same with the values behind the flag replaced, each by one or more."""
        result: list[str] = []
        taking = False
        for word in self.words:
            if word.startswith("-"):
                name, equals, value = word.partition("=")
                taking = name == flag
                result += [flag, *names[value]] if taking and equals else [word]
            else:
                result += names[word] if taking else [word]
        return CommandLine(result)

    def configured(self) -> list[tuple[str, str]]:
        """Pairs of model and data set that the file behind --config names.

        Raises:
            UserError: it cannot be read.
        """
        pairs: list[tuple[str, str]] = []
        for path in self.values("--config"):
            document = read_json(Path(path))
            if not all(isinstance(document.get(key), dict) for key in ("model", "data")):
                raise UserError(f"{path} must hold the objects 'model' and 'data'.")
            pairs += [(model, data) for model in document["model"] for data in document["data"]]
        return pairs
