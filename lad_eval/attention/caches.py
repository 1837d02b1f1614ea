"""The key-value cache under the names that releases of transformers give it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

CACHE_NAMES = ("cache", "past_key_values")
"""In arguments and outputs, the newer first; releases that have the newer one warn where the older is read or given."""


def cache_in(values: Mapping[str, Any]) -> Any:
    """The cache in a call's arguments or a model's output; None without one. No deprecated name is read where it is an alias."""
    keys = set(values.keys())
    return next((values[name] for name in CACHE_NAMES if name in keys and values[name] is not None), None)


def cache_argument(model: Any) -> str:
    """The name under which a model's `forward` takes a cache."""
    new, old = CACHE_NAMES
    return new if new in inspect.signature(type(model).forward).parameters else old
