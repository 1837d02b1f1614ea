"""Our tasks as a folder of YAML files for a harness's `--include_path`, and its command run on them by name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.errors import UnknownNameError, UserError, near_names
from lad_eval.extras import install_command
from lad_eval.files.atomic import Scratch
from lad_eval.tasks.registry import groups, load_spec, place_of, resolve, task_names

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec

MODEL = "lad_eval"
"""Our model's name in other harnesses, and the tag of our tasks."""
NEAR = 0.8
"""Similarity above which an unknown task counts as a misspelt one of ours."""
_TASKS, _INCLUDE_PATH = ("--tasks", "-t"), ("--include_path",)


@dataclass(frozen=True)
class FolderHarness:
    """A harness that reads tasks from folders of YAML files.

    Attributes:
        name: of its distribution, such as `lmms-eval`, and of our command for it.
        package: its import name.
        files: the files of a task, text by file name, from its place (`tasks.registry.place_of`), its definition, and its name in
            the harness.
        run: runs its command with flags; returns the exit code.
    """

    name: str
    package: str
    files: Callable[[str, TaskSpec, str], Mapping[str, str]]
    run: Callable[[Sequence[str]], int]

    @property
    def header(self) -> str:
        """The first line of every YAML file that is written."""
        return f"# Written by `lad-eval {self.name} tasks`; changes here are lost when it is written again.\n"

    def check_installed(self) -> None:
        """Checks that the harness is installed.

        Raises:
            UserError: it is not installed.
        """
        try:
            version(self.name)
        except PackageNotFoundError:
            raise UserError(
                f"{self.name} is not installed here: `{install_command(self.name)}`, in an environment of its own."
            ) from None

    def names(self) -> frozenset[str]:
        """Names of the harness's own tasks and groups, read from its files; empty if it is not installed."""
        installed = find_spec(self.package)
        if installed is None or installed.origin is None:
            return frozenset()
        names = set()
        for path in (Path(installed.origin).parent / "tasks").rglob("*.yaml"):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key in ("task", "group", "tag"):
                    names.add(value.partition("#")[0].strip().strip("\"'"))
        return frozenset(names)


def write_tasks(harness: FolderHarness, out: Path, names: Iterable[str] = ()) -> list[str]:
    """Writes tasks and those groups of ours whose tasks are all among them; no data is opened.

    A task can be run as long as lad_eval is installed together with the harness; one of a YAML file also needs that file. A
    bundled task or group whose name the harness uses itself has `lad_eval_` before it there.

    Args:
        harness: that will read them.
        out: the folder, created if it is missing.
        names: as `lad_eval.tasks.registry.resolve` takes them; none: every bundled task.

    Returns:
        The names of the tasks, as the harness knows them.

    Raises:
        UserError: a name is unknown, a definition cannot be used, the harness has another task with the name of a YAML file, or
            the folder holds other files of these names or cannot be written to.
    """
    names_of_tasks = resolve(list(names)) if names else task_names()
    specs = {place_of(name): load_spec(name) for name in names_of_tasks}
    stems = [spec.name for spec in specs.values()]
    if twice := sorted({name for name in stems if stems.count(name) > 1}):
        raise UserError(f"Two tasks have the name {twice[0]!r}; rename one of the files.")
    wanted = {name: members for name, members in groups().items() if {*members} <= {*stems}}
    taken = harness.names().intersection([*stems, *wanted])  # of two with one name the harness would silently use its own
    if not_bundled := sorted(taken.difference(task_names(), groups())):
        raise UserError(f"{harness.name} has a task named {not_bundled[0]!r} of its own; copy yours to a file of another name.")
    known_as = {name: f"{MODEL}_{name}" if name in taken else name for name in [*stems, *wanted]}
    files = {
        name: text for place, spec in specs.items() for name, text in harness.files(place, spec, known_as[spec.name]).items()
    }
    for name, members in wanted.items():
        files[f"{known_as[name]}.yaml"] = _group(known_as[name], [known_as[member] for member in members])
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            path = out / file
            if path.suffix != ".yaml":
                path.write_text(text, encoding="utf-8")
                continue
            if path.exists() and not path.read_text(encoding="utf-8").startswith(harness.header):
                raise UserError(f"{path} is not a file of ours; choose another folder.")
            path.write_text(harness.header + text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot write to {out}: {getattr(error, 'strerror', None) or error}.") from error
    return [known_as[name] for name in stems]


def _group(name: str, members: Iterable[str]) -> str:
    return f"group: {name}\ntask:\n" + "".join(f"  - {member}\n" for member in members)


def launch(harness: FolderHarness, arguments: Sequence[str]) -> int:
    """Runs the harness with its own flags; our tasks in `--tasks` are written to a temporary folder.

    Returns:
        Its exit code.

    Raises:
        UserError: the harness is not installed, or a task of ours cannot be used.
    """
    harness.check_installed()
    names = [word.strip() for value in _values(arguments, _TASKS) for word in value.split(",") if word.strip()]
    ours = [word for word in names if _is_ours(word)]
    others = [word for word in names if word not in ours]
    known = [*task_names(), *groups()]
    for word in others:
        if near_names(word, known, cutoff=NEAR) and word not in harness.names():
            raise UnknownNameError("task", word, known)
    includes = _values(arguments, _INCLUDE_PATH)
    unknown = [word for word in others if not word.startswith("list")]  # `--tasks list` lists the harness's
    if unknown and not includes and MODEL in _values(arguments, ("--model", "-M")):
        raise UserError(f"{unknown[0]} is not a task of lad_eval, which `--model {MODEL}` needs; `lad-eval ls tasks` lists them.")
    if not ours:
        return harness.run(arguments)
    if includes:
        raise UserError(
            f"{harness.name} takes one --include_path: write our tasks into that folder with "
            f"`lad-eval {harness.name} tasks --out <folder>`, and keep --include_path <folder>."
        )
    with Scratch(harness.package) as folder:
        written = write_tasks(harness, Path(folder), ours)
        return harness.run([*_without(arguments, _TASKS), "--tasks", ",".join([*written, *others]), *_INCLUDE_PATH, folder])


def _is_ours(word: str) -> bool:
    """Whether a word of `--tasks` is one of our tasks or groups."""
    try:
        resolve(word)
    except UnknownNameError:
        return False
    except UserError:
        if Path(word).suffix in (".yaml", ".yml"):
            raise
        return False
    return True


def _values(arguments: Sequence[str], flag: tuple[str, ...]) -> list[str]:
    """The values of a flag, given as `--flag value ...` or `--flag=value`."""
    values: list[str] | None = _parsed(arguments, flag)[0].value
    return values or []


def _without(arguments: Sequence[str], flag: tuple[str, ...]) -> list[str]:
    return _parsed(arguments, flag)[1]


def _parsed(arguments: Sequence[str], flag: tuple[str, ...]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flag, dest="value", nargs="+", action="extend")
    return parser.parse_known_args(list(arguments))
