"""Reads task definitions: YAML with `include:`, with the file that each key came from."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError, did_you_mean
from lad_eval.terminal import visible

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 1_000_000
MAX_NODES = 20_000
"""Most keys, values and lists of a file, counted again for every alias that repeats them."""
MAX_DEPTH = 40
MAX_NAME = 200
_MAX_INTEGER = 2**63
_DIGITS = re.compile(r"[-+0-9_:.]+")


class SpecError(UserError):
    """A task definition that cannot be used; `problems` holds every fault, one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(map(visible, problems))  # keys and values of a file may hold line breaks
        more = len(self.problems) - 1
        rest = f" (and {more} more; `lad-eval validate` shows all)" if more else ""
        super().__init__(self.problems[0] + rest)


@dataclass(frozen=True)
class Document:
    """A YAML file with the parts it includes merged below it.

    Attributes:
        path: the file itself.
        values: the merged keys, without `include`.
        origins: for every dotted key the file that set it.
    """

    path: Path
    values: Mapping[str, Any]
    origins: Mapping[str, Path]

    def origin(self, key: str) -> Path:
        """The file that set a dotted key or the nearest key around it; the document's own file if none did."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return self.path


def shown(path: Path) -> str:
    """A path for messages: relative if it is below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in one YAML file, without following its includes.

    Raises:
        SpecError: the file is missing, unreadable, not YAML, not a mapping of names, or has a key twice.
    """
    import yaml

    where = shown(path)
    text = _text(path)
    try:
        _check_size(text)
        values = yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SpecError([f"{where}: {line}{error.problem or 'not YAML'}."]) from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise SpecError([f"{where}: not YAML: {' '.join(str(error).split())}."]) from None
    if not isinstance(values, dict):
        raise SpecError([f"{where}: must be a mapping of keys to values, as `candidates: 4`."])
    for key in values:
        if not isinstance(key, str):
            raise SpecError([f"{where}: {key}: a key must be text; put it in quotes."])
    if problem := _unusable(values):
        raise SpecError([f"{where}: {problem}"])
    return values


def _text(path: Path) -> str:
    where = shown(path)
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise SpecError([f"{where}: not a file."])
        if path.stat().st_size > MAX_BYTES:
            raise SpecError([f"{where}: more than {MAX_BYTES} bytes, too long for the definition of a task."])
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError([f"{where}: no such file."]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{where}: not UTF-8 text (byte {error.start})."]) from None
    except OSError as error:
        raise SpecError([f"{where}: cannot be read: {error.strerror}."]) from None
    except ValueError:  # a NUL in the name
        raise SpecError([f"{where!r}: cannot be the name of a file."]) from None


def _check_size(text: str) -> None:
    """Refuses YAML whose aliases expand to more than a task needs, before it is loaded.

    Raises:
        MarkedYAMLError: a node contains itself, nests too deeply, or there are too many.
    """
    import yaml

    sizes: dict[str, tuple[int, int]] = {}
    # For each open list or mapping: its anchor, its nodes so far, its depth so far.
    open_nodes: list[tuple[str | None, int, int]] = [(None, 0, 0)]

    def add(nodes: int, depth: int, mark: Any) -> None:
        anchor, before, deepest = open_nodes[-1]
        open_nodes[-1] = (anchor, before + nodes, max(deepest, depth))
        problem = None
        if sum(count for _, count, _ in open_nodes) > MAX_NODES:
            problem = f"more than {MAX_NODES} values, each counted as often as aliases repeat it"
        elif len(open_nodes) + depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} deep"
        if problem is not None:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    events: Iterable[Any] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for event in events:
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _, _ in open_nodes):
                raise yaml.MarkedYAMLError(problem=f"*{event.anchor} contains itself", problem_mark=mark)
            # An alias without an anchor is reported by the loader.
            add(*sizes.get(str(event.anchor), (1, 0)), mark)
        elif isinstance(event, yaml.CollectionStartEvent):
            add(1, 1, mark)
            open_nodes.append((event.anchor, 0, 0))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, nodes, depth = open_nodes.pop()
            add(nodes, depth + 1, mark)
            if anchor is not None:
                sizes[anchor] = (nodes + 1, depth + 1)
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_NAME and _DIGITS.fullmatch(event.value):
                raise yaml.MarkedYAMLError(problem="the number is too long", problem_mark=mark)
            add(1, 0, mark)
            if event.anchor is not None:
                sizes[event.anchor] = (1, 0)


def _unusable(value: Any, key: str = "") -> str | None:
    """Message for the first value that no key of a task can have, with its key; None if there is none."""
    if isinstance(value, dict):
        for name, inner in value.items():
            where = f"{key}.{name}".strip(".")
            if problem := _unusable(name, where) or _unusable(inner, where):
                return problem
    elif isinstance(value, list):
        return next(filter(None, (_unusable(inner, key) for inner in value)), None)
    elif isinstance(value, str) and (bad := next((c for c in value if c == "\0" or "\ud800" <= c <= "\udfff"), None)):
        return f"{key[:MAX_NAME]}: holds the character {visible(bad)}, which text cannot contain; remove it."
    elif isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        return f"{key[:MAX_NAME]}: the number is too great."
    return None


def read_document(path: Path) -> Document:
    """A YAML file with its `include:` (one relative path or a list of them) merged below.

    Mappings are merged key by key; of the rest, the including file wins over the included, a later include over an earlier.
    `reported` is not taken over.

    Raises:
        SpecError: as for `read_yaml`, or an include is missing, is not a path or includes itself.
    """
    values, origins = _read(path, ())
    return Document(path, values, origins)


def _read(path: Path, outer: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, Path]]:
    document = read_yaml(path)
    chain = (*outer, path.resolve())
    parts = document.pop("include", [])
    if isinstance(parts, str):
        parts = [parts]
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise SpecError([f"{shown(path)}: include: must be a relative path or a list of them."])
    values: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for part in parts:
        if len(part) > 10 * MAX_NAME:
            raise SpecError([f"{shown(path)}: include: {part[:40]!r}... is too long for a path."])
        target = path.parent / part
        if target.resolve() in chain:
            raise SpecError([f"{shown(path)}: include: {part!r} includes itself."])
        if not target.is_file():
            near = did_you_mean(part, (p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES and p != path))
            raise SpecError([f"{shown(path)}: include: no such file: {part!r}.{near}"])
        included, places = _read(target, chain)
        # Published figures are of that one task; they do not apply to a changed one.
        included.pop("reported", None)
        _merge(values, origins, included, places)
    _merge(values, origins, document, dict.fromkeys(_dotted(document), path))
    return values, origins


def _merge(below: dict[str, Any], below_origins: dict[str, Path], above: Mapping[str, Any], origins: Mapping[str, Path]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            below[key] = dict(below[key])
            _merge(below[key], {}, value, {})
        else:
            below[key] = value
    below_origins.update(origins)


def _dotted(values: Mapping[Any, Any], prefix: str = "") -> Iterable[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


@functools.cache
def _loader() -> Any:
    """A safe loader that refuses duplicate keys, which YAML's own loaders accept silently."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                    continue
                if key_node.tag == "tag:yaml.org,2002:bool" and key_node.value == "on":
                    # YAML 1.1 reads `on:` as True.
                    key_node.tag = "tag:yaml.org,2002:str"
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                    )
                seen.add(key_node.value)
            return super().construct_mapping(node, deep)

    return Loader
