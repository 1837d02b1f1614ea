"""VLMEvalKit's table of models, with ours resolved as they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from lad_eval.errors import UserError
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.calibrated import check_answers_here
from lad_eval.plugins.vlmevalkit.names import Served, parse, suggestion
from lad_eval.plugins.vlmevalkit.weights import weights_at

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
        UserError: an unknown model, one whose class cannot be looked at, or a method that does not answer here.
    """
    if served.ours:
        if served.base.startswith("HF:"):
            from lad_eval.models.registry import check_model_name

            check_model_name(served.model)
        check_answers_here(served.make())
        return
    if served.method is None or served.base not in entries:
        raise suggestion(served.base, entries)
    check_answers_here(served.make())
    from lad_eval.models.vlmeval.loading import check_entry

    check_entry(served.base)


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


def entry_settings(name: str, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What an entry's model is made with: its class, and the arguments as text."""
    from lad_eval.models.vlmeval.loading import made_with
    from lad_eval.models.vlmeval.support import entry_of

    kind, _ = entry_of(name)
    arguments = {key: repr(value) for key, value in sorted(made_with(name, options).items())}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **arguments}


def made_with(served: Served, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What makes a model's answers besides its method, as text: options, an entry's class and arguments, and `weights`.

    The weights of what is not on this machine yet are left out.

    Args:
        served: the model.
        options: it is loaded with beside its own.
    """
    given = dict(options or {})
    if served.ours:
        told = {key: repr(value) for key, value in sorted(given.items()) if key != "batch_size"}
        places = [served.model]
    else:
        told = entry_settings(served.base, given)
        places = [text.strip("'\"") for text in told.values()]
    weights = [found for place in places if (found := weights_at(place, given.get("revision")))]
    return {**told, "weights": ", ".join(weights)} if weights else told
