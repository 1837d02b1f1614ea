"""Finds task definitions by name: the bundled ones, those in the user's folders, and YAML files by path."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UnknownNameError, UserError, did_you_mean
from lad_eval.files.documents import below
from lad_eval.tasks.files import SUFFIXES, Document, SpecError, read_document, read_yaml, shown
from lad_eval.tasks.search import current_search, installed_folders
from lad_eval.tasks.task import Task

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec


_LOG = logging.getLogger(__name__)

_SETTINGS = ("random", "adversarial", "count", "relations")
_MEMBER = re.compile(rf"(?P<family>.+)_(?P<setting>{'|'.join(_SETTINGS)})_n(?P<n>\d+)(?P<variant>-.*)?")

Natural = list[tuple[int, str]]


def task_order(name: str) -> tuple[Natural, int, int, Natural]:
    """Sort key of a task's name: the order in which the bundled groups list their tasks.

    `scenes_random_n4`, `scenes_adversarial_n4`, `scenes_random_n8`, ..., `scenes_random_n12`; other names by their text, numbers
    in them by value.
    """
    match = _MEMBER.fullmatch(name)
    if match is None:
        return _natural(name), 0, 0, []
    return _natural(match["family"]), int(match["n"]), _SETTINGS.index(match["setting"]), _natural(match["variant"] or "")


def _natural(text: str) -> Natural:
    """Sort key in which n4 comes before n12."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts if part]


_PACKAGE = Path(__file__).resolve().parent.parent
_GROUP_KEYS = ("group", "description", "tasks")


@dataclass(frozen=True)
class TaskGroup:
    """A name for a set of tasks; `members` are names, globs or other groups, as in the file."""

    name: str
    description: str
    members: tuple[str, ...]
    path: Path


@dataclass(frozen=True)
class TaskIndex:
    """The file of every task and group."""

    tasks: dict[str, Path]
    groups: dict[str, TaskGroup]


def bundled_folder() -> Path:
    """The task definitions that come with the package: inside a wheel, or next to the package in a source checkout."""
    inside = _PACKAGE / "_tasks"
    return inside if inside.is_dir() else _PACKAGE.parent / "tasks"


def definitions(folder: Path) -> Iterator[Path]:
    """YAML files below a folder, sorted; names that begin with `_` are parts for `include:` and are left out."""
    return iter(below(folder, lambda name: name.endswith(SUFFIXES) and not name.startswith(("_", "."))))


def index() -> TaskIndex:
    """All names of the bundled tasks, of those below the folders of the open `task_search`, and of installed packages; within one
    search built once.

    A file that cannot be read counts as a task named by its stem, so that one broken file does not hide the others.

    Raises:
        UserError: a folder is missing, or a name is defined twice.
    """
    built = current_search().index(_build)
    assert isinstance(built, TaskIndex)
    return built


def _build(folders: Sequence[Path]) -> TaskIndex:
    known = TaskIndex({}, {})
    for folder in [bundled_folder(), *folders]:
        if not folder.is_dir():
            raise UserError(f"No folder of task definitions: {shown(folder)}.")
        for path in definitions(folder):
            if (other := _enter(path, known)) is not None:
                raise UserError(
                    f"The name {path.stem!r} is defined twice: {shown(other)} and {shown(path)}; rename one of the files."
                )
    for package, folder in installed_folders():
        for path in definitions(folder):
            if (other := _enter(path, known)) is not None:
                _LOG.warning("The task %r of package %s is left out: %s has its name.", path.stem, package, shown(other))
    return known


def _enter(path: Path, known: TaskIndex) -> Path | None:
    """Adds a definition; returns the file that already has its name, if there is one."""
    name = path.stem
    other = known.tasks.get(name) or (known.groups[name].path if name in known.groups else None)
    if other is not None:
        return None if other.resolve() == path.resolve() else other
    group = None
    # Parsing YAML takes most of the time of `lad-eval ls`, and few files contain "group".
    with contextlib.suppress(SpecError, OSError):
        group = read_group(path) if b"group" in path.read_bytes() else None
    if group is None:
        known.tasks[name] = path
    else:
        known.groups[name] = group
    return None


def read_group(path: Path) -> TaskGroup | None:
    """The group that a YAML file defines; None if it defines no group.

    Raises:
        SpecError: the file cannot be read, or defines an invalid group.
    """
    values = read_yaml(path)
    if "group" not in values:
        return None
    problems = [_group_problem(key, value, path) for key, value in values.items()]
    if "tasks" not in values:
        problems.append("tasks: this key is missing.")
    if faults := [f"{shown(path)}: {problem}" for problem in problems if problem]:
        raise SpecError(faults)
    return TaskGroup(values["group"], values.get("description", ""), tuple(values["tasks"]), path)


def _group_problem(key: str, value: Any, path: Path) -> str | None:
    if key == "group" and value != path.stem:
        return f"group: must equal the file's name, {path.stem!r}."
    if key == "description" and not isinstance(value, str):
        return "description: must be text."
    if key == "tasks" and not (isinstance(value, list) and value and all(isinstance(member, str) for member in value)):
        return "tasks: must be a list of names, globs or groups."
    if key not in _GROUP_KEYS:
        return f"{key}: unknown key." + (did_you_mean(key, _GROUP_KEYS) or f" There are {', '.join(_GROUP_KEYS)}.")
    return None


def task_names() -> list[str]:
    """Names of all tasks, in their order: see `tasks_in_order`."""
    known = index()
    return _in_order(known.tasks, known)


def tasks_in_order(names: Iterable[str]) -> list[str]:
    """Names of tasks in the order of `task_order`, those of a group that names its tasks one by one in the group's order."""
    return _in_order(names, index())


def _in_order(names: Iterable[str], known: TaskIndex) -> list[str]:
    ordered = sorted(names, key=task_order)
    for group in known.groups.values():
        if all(member in known.tasks for member in group.members):
            places = [place for place, name in enumerate(ordered) if name in group.members]
            there = sorted((ordered[place] for place in places), key=group.members.index)
            for place, name in zip(places, there, strict=True):
                ordered[place] = name
    return ordered


def groups() -> dict[str, list[str]]:
    """All groups with the names of their tasks."""
    known = index()
    return {name: _expand(name, known, ()) for name in sorted(known.groups)}


def members_of(name: str) -> list[str]:
    """The tasks of a group; any other name or glob is returned unchanged."""
    known = index()
    return _expand(name, known, ()) if name in known.groups else [name]


def resolve(names: str | Iterable[str]) -> list[str]:
    """The task names of a comma-separated list of names, groups, globs (`scenes_*_n4`) and YAML paths.

    Each is listed once, in the given order; paths are kept.

    Raises:
        UnknownNameError: a name is neither a task nor a group; the text has the nearest names.
        UserError: a glob matches nothing, or nothing is named.
    """
    words = names.split(",") if isinstance(names, str) else names
    patterns = [word.strip() for word in words if word.strip()]
    if not patterns:
        raise UserError("No task is named; `lad-eval ls tasks` lists them.")
    known = index()
    names = [name for word in patterns for name in (_in_file(Path(word)) if is_path(word) else _expand(word, known, ()))]
    return list(dict.fromkeys(names))


def place_of(name: str) -> str:
    """What identifies a task for another process: its name, or its file's path if only the open `task_search` knows it.

    Raises:
        UnknownNameError: no task has the name.
    """
    if is_path(name):
        return str(Path(name).resolve())
    path = _document(name).path
    return str(path.resolve()) if current_search().holds(path) else name


def load_spec(name: str | Path) -> TaskSpec:
    """The definition of a task by name or by the path of its YAML file; its data is not opened.

    Raises:
        UnknownNameError: no task has the name.
        SpecError: the definition cannot be used; one line with file and key.
    """
    from lad_eval.tasks.spec import spec_of

    return spec_of(_document(name))


def load_task(name: str | Path, *, calibrate_on: str | Path | None = None) -> Task:
    """A task by name or by the path of its YAML file, its data opened; names in folders of your own are known in a `task_search`.

    Args:
        name: of the task.
        calibrate_on: another task, whose calibration samples are used instead of this one's; None: as the definition says.

    Raises:
        UnknownNameError: no task has the name.
        SpecError: the definition cannot be used; one line with file and key.
        DataError: data is missing, unreadable or too little, or the two tasks do not match.
    """
    return open_task(_document(name), calibrate_on=calibrate_on)


def open_task(document: Document, *, calibrate_on: str | Path | None = None) -> Task:
    """The task that a document defines, its data opened; arguments and errors as for `load_task`."""
    from lad_eval.tasks.spec import spec_of

    spec = spec_of(document)
    task = Task.of(spec, document.path.parent)
    if calibrate_on is not None:
        other = _document(calibrate_on)
    elif spec.calibration.on is not None:
        other = _named_in(document, spec.calibration.on)
    else:
        return task
    # The other must have as many calibration samples as this task needs; what it calibrates on itself does not matter.
    calibration = spec.calibration.model_copy(update={"on": None})
    opened = Task.of(spec_of(other).model_copy(update={"calibration": calibration}), other.path.parent)
    return replace(task, spec=spec.model_copy(update={"calibration": calibration})).calibrated_on(opened)


def _named_in(document: Document, name: str) -> Document:
    """The definition of a task named under `calibration.on` of another: a path, a name in the same folder, or a known name."""
    folder = document.path.parent
    temporary = [folder / name] if is_path(name) else [p for s in SUFFIXES if (p := folder / f"{name}{s}").is_file()]
    try:
        return _document(temporary[0] if temporary else name)
    except UserError as error:
        raise SpecError([f"{shown(document.origin('calibration.on'))}: calibration.on: {error}"]) from error


def _document(name: str | Path) -> Document:
    if isinstance(name, Path) or is_path(name):
        document = read_document(Path(name))
        if "group" in document.values:
            raise UserError(f"{shown(Path(name))} defines a group, not a task; pass it to `--tasks`, or name one of its tasks.")
        return document
    known = index()
    if name in known.groups:
        raise UserError(f"{name!r} is a group of tasks; name one of {', '.join(_expand(name, known, ()))}.")
    if name not in known.tasks:
        raise UnknownNameError("task", name, [*known.tasks, *known.groups])
    return read_document(known.tasks[name])


def is_path(name: str) -> bool:
    """Whether a task's name is the path of a file."""
    return name.endswith(SUFFIXES) or "/" in name or "\\" in name


def _in_file(path: Path) -> list[str]:
    group = read_group(path)
    if group is None:
        return [str(path)]
    temporary = [p for suffix in SUFFIXES for p in sorted(path.parent.glob(f"*{suffix}")) if not p.name.startswith(("_", "."))]
    bundled = index()
    known = TaskIndex({**bundled.tasks, **{p.stem: p for p in temporary if p != path}}, {**bundled.groups, group.name: group})
    return [str(known.tasks[name]) for name in _expand(group.name, known, ())]


def _expand(word: str, known: TaskIndex, outer: tuple[str, ...]) -> list[str]:
    if word in known.tasks:
        return [word]
    if word in known.groups:
        if word in outer:
            raise UserError(f"The group {word!r} contains itself.")
        members = [name for member in known.groups[word].members for name in _expand(member, known, (*outer, word))]
        return list(dict.fromkeys(members))
    if any(sign in word for sign in "*?["):
        if fits := fnmatch.filter(known.tasks, word):
            return _in_order(fits, known)
        raise UserError(f"No task matches {word!r}; `lad-eval ls tasks` lists them.")
    raise UnknownNameError("task", word, [*known.tasks, *known.groups])
