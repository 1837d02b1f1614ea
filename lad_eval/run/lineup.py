"""The methods of a run, and what they need of the model together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lad_eval.methods import Method, canonical_name, is_method, make_method, method_names, parse_setting, with_parameters
from lad_eval.tasks.plan import View


def line_up(names: Iterable[str], settings: Sequence[str] = ()) -> dict[str, Method]:
    """Methods by the name that tables show; one with settings shows them: `lad(top_k=4)`.

    Args:
        names: as `make_method` takes them.
        settings: texts such as "lad.top_k=4"; a setting's method is lined up even if it is not named.

    Raises:
        UserError: a method, a parameter or a value does not exist.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in settings:
        name, parameter, value = parse_setting(text)
        changes.setdefault(name, {})[parameter] = value
    methods = {}
    for name in dict.fromkeys([*map(canonical_name, names), *changes]):
        changed = changes.get(name, {})
        methods[with_parameters(name, changed)] = make_method(name, **changed)
    return methods


def with_stored(methods: Mapping[str, Method], stored: Iterable[str]) -> dict[str, Method]:
    """The methods together with those that a run holds figures of, in the order of the tables.

    That is: those by one name, those put together, those with settings of their own.
    """
    names = {*methods, *filter(is_method, stored)}
    known = {name: make_method(name) for name in method_names() if name in names}
    together = {name: make_method(name) for name in sorted(names) if name not in known and is_method(name)}
    return {**known, **together, **methods}


def views_of(methods: Collection[Method]) -> frozenset[View]:
    """The views that any of them needs; every run has the displayed order itself."""
    return frozenset({"identity", *(method.views for method in methods)})


def calibrates(methods: Collection[Method]) -> bool:
    return any(method.calibrates for method in methods)
