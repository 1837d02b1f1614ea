"""The numbers of a chart, for those who want or need to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of texts under headers; the first cell of a row names it."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
