"""VLMEvalKit's command line: flags and values, and the file behind --config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError
from lad_eval.files.documents import read_json

OUR_DATA, OUR_MODEL = "LADDataset", "LADModel"

# Flags that are read here. VLMEvalKit also accepts unambiguous prefixes of them.
_READ = ("--data", "--model", "--config", "--work-dir", "--mode", "--base-url", "--api-mode", "--use-vllm")


@dataclass(frozen=True)
class Configuration:
    """The file behind --config.

    Attributes:
        path: of the file.
        models: VLMEvalKit's name -> its definition: empty for an entry of its table, otherwise `class` and arguments.
        data: the same for data sets.
    """

    path: Path
    models: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Configuration:
        """Reads the file.

        Raises:
            UserError: it cannot be read, or holds something else.
        """
        document = read_json(path)
        models, data = document.get("model"), document.get("data")
        for part in (models, data):
            if not isinstance(part, dict) or not all(isinstance(made, dict) for made in part.values()):
                raise UserError(f"{path} must hold the objects 'model' and 'data', each of them an object for every name.")
        return cls(path, models or {}, data or {})

    @property
    def data_sets(self) -> list[str]:
        """Data sets that may be ours, as the file names them."""
        named = {key: made for key, made in self.data.items() if made.get("class", OUR_DATA) == OUR_DATA}
        return [str(made.get("dataset", key)) for key, made in named.items()]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Models and data sets, as VLMEvalKit runs them."""
        return [(model, data) for model in self.models for data in self.data]


@dataclass(frozen=True)
class CommandLine:
    """Flags and values, as `--flag value ...` or `--flag=value`."""

    words: Sequence[str]

    def check(self) -> None:
        """Refuses abbreviated flags, which VLMEvalKit understands but which would be missed here.

        Raises:
            UserError: with the full flag.
        """
        for flag in (word.partition("=")[0] for word in self.words if word.startswith("--")):
            meant = [name for name in _READ if name.startswith(flag)]
            if meant and flag not in (*_READ, "--"):
                raise UserError(f"Write {' or '.join(meant)} in full, not {flag}.")

    def has(self, flag: str) -> bool:
        """Whether the flag is given."""
        return any(word.partition("=")[0] == flag for word in self.words)

    def values(self, flag: str) -> list[str]:
        """The values of the flag, once each."""
        return list(dict.fromkeys(value for _, value in self._values_of(flag) if value is not None))

    def replaced(self, flag: str, names: Mapping[str, Sequence[str]]) -> CommandLine:
        """The same arguments with the values of the flag replaced, each by one or more."""
        result: list[str] = []
        for word, value in self._values_of(flag):
            joined = [flag] if value is not None and word.startswith("-") else []
            result += [word] if value is None else [*joined, *names[value]]
        return CommandLine(result)

    def _values_of(self, flag: str) -> Iterator[tuple[str, str | None]]:
        """Every argument, with the flag value that it is or contains."""
        taking = False
        for word in self.words:
            if word.startswith("-"):
                name, equals, value = word.partition("=")
                taking = name == flag
                yield word, value if taking and equals else None
            else:
                yield word, word if taking else None

    def configuration(self) -> Configuration | None:
        """The file behind --config; None without one.

        Raises:
            UserError: it cannot be read.
        """
        paths = self.values("--config")
        return Configuration.read(Path(paths[-1])) if paths else None
