"""Where task definitions are searched: bundled, in the user's folders, and in installed packages (`lad_eval.tasks`)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from lad_eval.registry import entry_points

GROUP = "lad_eval.tasks"
T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass
class TaskSearch(Generic[T]):
    """Folders that one command searches, and their index, which is built once."""

    folders: tuple[Path, ...] = ()
    made: dict[tuple[Path, ...], T] = field(default_factory=dict)

    def index(self, build: Callable[[tuple[Path, ...]], T]) -> T:
        """The index of the folders; rebuilt after a folder is added."""
        folders = tuple(dict.fromkeys(self.folders))
        if folders not in self.made:
            self.made[folders] = build(folders)
        return self.made[folders]

    def holds(self, path: Path) -> bool:
        """Whether a file lies below one of the folders."""
        return any(path.resolve().is_relative_to(folder.resolve()) for folder in self.folders)


_SEARCH: ContextVar[TaskSearch[object] | None] = ContextVar("task_search", default=None)


def current_search() -> TaskSearch[object]:
    """The search of the running command; outside of one, a new search."""
    return _SEARCH.get() or TaskSearch()


@contextmanager
def task_search(folders: Iterable[str | Path] = ()) -> Iterator[None]:
    """While open, names of tasks are looked up in these folders too, and each index is built once; searches may nest."""
    outer = _SEARCH.get() or TaskSearch()
    token = _SEARCH.set(TaskSearch((*outer.folders, *map(Path, folders)), outer.made))
    try:
        yield
    finally:
        _SEARCH.reset(token)


def include(folders: Iterable[str | Path]) -> None:
    """Adds folders to the search of the running command."""
    if (search := _SEARCH.get()) is not None:
        search.folders = (*search.folders, *map(Path, folders))


def installed_folders() -> list[tuple[str, Path]]:
    """(package, folder of task definitions) of installed packages; one that cannot be found is named in a warning."""
    folders = []
    for package, entry in entry_points(GROUP):
        folder = _folder(entry.value)
        if folder is None:
            logger.warning(
                "The tasks %r of package %s are left out: there is no package or folder %s. Update or uninstall %s.",
                entry.name,
                package,
                entry.value,
                package,
            )
        else:
            folders.append((package, folder))
    return folders


def _folder(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # finding it imports the package around it, third-party code
        return None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None
