"""Things by name: ours, those of installed packages (entry points), and those that a command line brings."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from lad_eval.errors import UnknownNameError, UserError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class RegistryError(UserError):
    """An entry that cannot be loaded, or a name that is taken."""


@functools.cache
def _entry_points(path: tuple[str, ...], group: str) -> tuple[tuple[str, importlib.metadata.EntryPoint], ...]:
    installed = importlib.metadata.entry_points(group=group)
    return tuple(
        sorted((("" if e.dist is None else str(e.dist.name), e) for e in installed), key=lambda pair: (pair[1].name, pair[0]))
    )


def entry_points(group: str) -> tuple[tuple[str, importlib.metadata.EntryPoint], ...]:
    """(package, entry point) of the installed packages, by name; read once for a `sys.path`."""
    return _entry_points(tuple(sys.path), group)


class Registry(Mapping[str, T], Generic[T]):
    """Values by name, each loaded when it is first used.

    Our own names come first. A name of an installed package is looked for only where ours do not have it, so that an entry
    point can neither replace one of ours nor, where it is broken, keep the others from working.

    Args:
        kind: what an entry is, for messages: "method", "source".
        entries: ours: values, or "module:attribute" for one that is imported when it is used.
        group: of the entry points.
        accept: makes an entry's value of what was loaded under the name; raises TypeError, with what it must be, if it cannot.
    """

    def __init__(self, kind: str, entries: Mapping[str, T | str], *, group: str, accept: Callable[[str, object], T]) -> None:
        self.kind, self.group = kind, group
        self._accept = accept
        self._entries: dict[str, T | str] = dict(entries)
        self._origins: dict[str, str] = {}
        self._values: dict[str, T] = {}
        self._warned: set[str] = set()

    @property
    def built_in(self) -> tuple[str, ...]:
        """Names that need no look at the installed packages."""
        return tuple(self._entries)

    def add(self, name: str, value: object, origin: str) -> None:
        """Adds a value for this process; again from the same origin, it takes the place of the one before.

        Raises:
            RegistryError: the name is taken, cannot be a name, or the value is not of the registry's kind.
        """
        if not _NAME.fullmatch(name):
            raise RegistryError(f"{origin}: {name!r} cannot be the name of a {self.kind}: use letters, digits and hyphens.")
        if name in self._entries and self._origins.get(name) != origin:
            holder = self._origins.get(name, "lad_eval")
            raise RegistryError(f"{origin}: the {self.kind} name {name!r} is taken by {holder}; choose another name.")
        try:
            self._values[name] = self._entries[name] = self._accept(name, value)
        except TypeError as error:
            raise RegistryError(f"{origin}: {error}.") from error
        self._origins[name] = origin

    def _outside(self) -> dict[str, list[tuple[str, importlib.metadata.EntryPoint]]]:
        """Entry points by name, without those whose name is taken."""
        offers: dict[str, list[tuple[str, importlib.metadata.EntryPoint]]] = {}
        for package, entry in entry_points(self.group):
            if entry.name not in self._entries and _NAME.fullmatch(entry.name):
                offers.setdefault(entry.name, []).append((package, entry))
        return offers

    def problems(self) -> list[str]:
        """What is wrong with the entry points of installed packages, one line each; loads them all."""
        lines = []
        for package, entry in entry_points(self.group):
            if not _NAME.fullmatch(entry.name):
                lines.append(f"{entry.name!r} of package {package} cannot be the name of a {self.kind}.")
            elif entry.name in self._entries and self._origins.get(entry.name) != package:
                lines.append(
                    f"The {self.kind} {entry.name!r} of package {package} is left out: "
                    f"{self._origins.get(entry.name, 'lad_eval')} has a {self.kind} of that name."
                )
        return list(dict.fromkeys([*lines, *filter(None, map(self._fault, self._outside()))]))

    def _fault(self, name: str) -> str | None:
        try:
            self[name]
        except UserError as error:
            return str(error)
        return None

    def usable(self) -> Iterator[str]:
        """Names whose values can be loaded; a broken entry point is named once in a warning and left out."""
        for line in self.problems():
            if line not in self._warned:
                self._warned.add(line)
                logger.warning("%s", line)
        yield from (name for name in self if self._fault(name) is None)

    def __getitem__(self, name: str) -> T:
        """The value.

        Raises:
            UnknownNameError: nobody has the name.
            RegistryError: it is an installed package's, which cannot be loaded, or two packages have it.
        """
        if name not in self._values:
            self._values[name] = self._load(name)
        return self._values[name]

    def _load(self, name: str) -> T:
        if name in self._entries:
            value = self._entries[name]
            if not isinstance(value, str):
                return value
            module, _, attribute = value.partition(":")
            return self._accept(name, getattr(importlib.import_module(module), attribute))
        offers = self._outside().get(name, [])
        if not offers:
            raise UnknownNameError(self.kind, name, self)
        if len(offers) > 1:
            packages = " and ".join(package for package, _ in offers)
            raise RegistryError(f"The {self.kind} {name!r} comes from {packages}; uninstall one of them.")
        package, entry = offers[0]
        try:
            return self._accept(name, entry.load())
        except (Exception, SystemExit) as error:  # code of others, which may fail in any way
            text = " ".join(str(error).split())[:300].rstrip(".")
            raise RegistryError(
                f"The {self.kind} {name!r} of package {package} ({entry.value}) cannot be loaded: "
                f"{type(error).__name__}: {text}. Update or uninstall {package}."
            ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._outside()

    def __iter__(self) -> Iterator[str]:
        return iter([*self._entries, *self._outside()])

    def __len__(self) -> int:
        return len(self._entries) + len(self._outside())
