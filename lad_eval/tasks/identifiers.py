"""Names of the candidates: `1..`, `A..`, `a..`, `I..`, `first..`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

IdentifierStyle = Literal["1..", "A..", "a..", "I..", "first.."]

_ORDINALS = tuple(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth".split()
)
_TENS = {2: ("twenty", "twentieth"), 3: ("thirty", "thirtieth"), 4: ("forty", "fortieth"), 5: ("fifty", "fiftieth")}
_ROMAN = ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))

MAX_CANDIDATES = 59


def _letters(k: int) -> str:
    """A..Z, AA, AB, ... as spreadsheets count."""
    name = ""
    while k > 0:
        k, rest = divmod(k - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def _roman(k: int) -> str:
    name = ""
    for value, sign in _ROMAN:
        while k >= value:
            name, k = name + sign, k - value
    return name


def _ordinal(k: int) -> str:
    if k < 20:
        return _ORDINALS[k - 1]
    tens, rest = divmod(k, 10)
    cardinal, ordinal = _TENS[tens]
    return f"{cardinal}-{_ORDINALS[rest - 1]}" if rest else ordinal


_STYLES: dict[str, Callable[[int], str]] = {
    "1..": str,
    "A..": _letters,
    "a..": lambda k: _letters(k).lower(),
    "I..": _roman,
    "first..": _ordinal,
}


def identifiers(style: IdentifierStyle, n: int) -> tuple[str, ...]:
    """Names of candidates 1..n, 1 <= n <= MAX_CANDIDATES."""
    if not 1 <= n <= MAX_CANDIDATES:
        raise ValueError(f"identifiers are defined for 1 to {MAX_CANDIDATES} candidates, not {n}")
    return tuple(_STYLES[style](k) for k in range(1, n + 1))
