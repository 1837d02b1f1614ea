"""VLMEvalKit's table of models, with ours resolved as they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.vlmevalkit.names import Served, parse, suggestion

Builder = Callable[..., Any]


class Entries(dict[str, Builder]):
    """`supported_VLM`: VLMEvalKit's own entries, and behind them every model of ours.

    Ours are found by `entries[name]`, `name in entries` and `entries.get(name)`, and are not listed: their number has no end.

    Attributes:
        aliases: short names of model folders, as `names.flat` makes them -> `HF:<folder>`.
    """

    def __init__(self, own: dict[str, Builder]) -> None:
        super().__init__(own)
        self.aliases: dict[str, str] = {}

    def __missing__(self, name: str) -> Builder:
        check(self.served(name), name, list(self))
        from lad_eval.plugins.vlmevalkit.served import LADModel

        return partial(LADModel, model=self._full(name), name=name)

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        if not isinstance(name, str):
            return False
        try:
            check(self.served(name), name, list(self))
        except UserError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or `default` where nobody serves the name."""
        if name not in self:
            return default
        return self[name]

    def served(self, name: str) -> Served:
        """A name taken apart.

        Raises:
            UserError: its method or a parameter does not exist.
        """
        return parse(self._full(name))

    def _full(self, name: str) -> str:
        base, plus, suffix = name.rpartition("+") if name not in self.aliases else (name, "", "")
        return f"{self.aliases[base]}{plus}{suffix}" if base in self.aliases else name


def check(served: Served, name: str, entries: list[str]) -> None:
    """Refuses what cannot be served.

    Raises:
        UserError: an unknown model, or one whose class cannot be looked at; the text says why.
    """
    if served.ours:
        if served.base.startswith("HF:"):
            from lad_eval.models.registry import check_model_name

            check_model_name(served.model)
        served.make()
        return
    if served.method is None or served.base not in entries:
        raise suggestion(served.base, entries)
    served.make()
    from lad_eval.models.vlmeval import support_of

    support = support_of(served.base)
    if not support.supported:
        raise UnsupportedModelError(f"{name} cannot be served: {support.reason}")


def installed() -> Entries:
    """The table, put in the place of VLMEvalKit's own wherever that is held already; once a process."""
    config = kit("vlmeval.config")
    own = config.supported_VLM
    if isinstance(own, Entries):
        return own
    entries = Entries(own)
    for module in list(sys.modules.values()):
        if vars(module).get("supported_VLM") is own if hasattr(module, "__dict__") else False:
            cast(Any, module).supported_VLM = entries
    return entries


def build_entry(name: str, options: dict[str, Any]) -> Any:
    """VLMEvalKit's own model object of an entry.

    Raises:
        UnsupportedModelError: its class does not construct here; the text says why.
    """
    try:
        return installed()[name](**options)
    except UserError:
        raise
    except Exception as error:  # whatever a model's constructor may raise, asserts among them
        lines = str(error).strip().splitlines()
        raise UnsupportedModelError(
            f"VLMEvalKit cannot build {name}: {type(error).__name__}{': ' + lines[0] if lines else ''}. "
            "Entries HF:<hub id or folder> go through a class of our own."
        ) from error


def entry_settings(name: str) -> dict[str, str]:
    """An entry's class and arguments, as text."""
    entry = installed()[name]
    function = getattr(entry, "func", entry)
    told = {"class": getattr(function, "__qualname__", str(function))}
    return told | {key: repr(value) for key, value in sorted(getattr(entry, "keywords", {}).items())}
