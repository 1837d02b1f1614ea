"""Errors that a user can fix: one line, exit code 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix; its message says in one line what is wrong and how to fix it."""

    exit_code = 2


class Interrupted(UserError):  # noqa: N818 - no fault, and named as Python names it
    """Ctrl-C, with what to do about it."""

    exit_code = 130


class OutOfMemoryError(UserError):
    """Not even one request fits in memory."""


def near_names(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names closest to a name, regardless of case, the closest first."""
    names = {other.lower(): other for other in sorted(known, reverse=True)}
    return [names[near] for near in difflib.get_close_matches(name.lower(), names, n=most, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with a leading space, or nothing if no known name is close."""
    near = near_names(name, known)
    return f" Did you mean {near[0]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the full stop; its class's name where there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


_LONGEST = 200
_LISTED = {"task": "tasks", "method": "methods", "model": "models", "study": "studies"}


def _where(kind: str, names: list[str]) -> str:
    return f"`lad-eval ls {_LISTED[kind]}` lists them." if kind in _LISTED else f"There are {', '.join(names)}."


class UnknownNameError(UserError):
    """A name that is not in a registry, with the closest ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = near_names(name, names, most=3)
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else _where(kind, names)
        super().__init__(f"Unknown {kind} {name if len(name) <= _LONGEST else name[:_LONGEST] + '...'!r}. {hint}")


class DataError(UserError):
    """Data that is missing, unreadable or too small for the task."""


class PictureError(DataError):
    """An image that cannot be read or shown.

    Attributes:
        sample: id of the sample that shows it, which the text begins with; None where that is not known.
    """

    def __init__(self, text: str, sample: str | None = None) -> None:
        super().__init__(text if sample is None else f"Sample {sample}: {text}")
        self.sample = sample

    def of_sample(self, sample: str) -> PictureError:
        """The same fault, naming the sample unless one is named already."""
        return self if self.sample is not None else PictureError(str(self), sample)


class NotPreparedError(DataError):
    """A data set that is not prepared or embedded on this machine; the task on it may be sound.

    Attributes:
        command: what prepares it; the text ends with it.
    """

    def __init__(self, text: str, command: str) -> None:
        super().__init__(f"{text} run `{command}`.")
        self.command = command


class EvidenceError(UserError):
    """Evidence that is missing, damaged, or does not belong together."""


class DamagedError(EvidenceError):
    """A stored file that is not what was written; its content has to be computed again."""


class UnsupportedModelError(UserError):
    """A model that lacks what the evidence needs; the text says what is missing."""
