"""Reads task definitions: YAML with `include:`, every key remembered with the file it came from."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError

SUFFIXES = (".yaml", ".yml")


class SpecError(UserError):
    """A task definition that cannot be used; `problems` holds every fault found, one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
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
    """A path as a reader wants it: relative where it lies below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with a leading space, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that one YAML file holds, its includes not followed.

    Raises:
        SpecError: the file is missing, unreadable, not YAML, not a mapping of names, or has a key twice.
    """
    import yaml

    where = shown(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError([f"{where}: no such file."]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{where}: not UTF-8 text (byte {error.start})."]) from None
    except OSError as error:
        raise SpecError([f"{where}: cannot be read: {error.strerror}."]) from None
    try:
        values = yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SpecError([f"{where}: {line}{error.problem or 'not YAML'}."]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError([f"{where}: not YAML: {' '.join(str(error).split())}."]) from None
    if not isinstance(values, dict):
        raise SpecError([f"{where}: must be a mapping of keys to values, as `candidates: 4`."])
    for key in values:
        if not isinstance(key, str):
            raise SpecError([f"{where}: {key}: a key must be text; put it in quotes."])
    return values


def read_document(path: Path) -> Document:
    """A YAML file with its `include:` (one relative path or a list of them) merged below.

    Mappings are merged key by key; of the rest, the including file wins over the included, a later include over an earlier.
    `reported` is not taken over.

    Raises:
        SpecError: as for `read_yaml`, or an include is missing, is no path or includes itself.
    """
    values, origins = _read(path, ())
    return Document(path, values, origins)


def _read(path: Path, outer: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, Path]]:
    own = read_yaml(path)
    chain = (*outer, path.resolve())
    parts = own.pop("include", [])
    if isinstance(parts, str):
        parts = [parts]
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise SpecError([f"{shown(path)}: include: must be a relative path or a list of them."])
    values: dict[str, Any] = {}
    origins: dict[str, Path] = {}
    for part in parts:
        target = path.parent / part
        if target.resolve() in chain:
            raise SpecError([f"{shown(path)}: include: {part!r} includes itself."])
        if not target.is_file():
            near = did_you_mean(part, (p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES and p != path))
            raise SpecError([f"{shown(path)}: include: no such file: {part!r}.{near}"])
        included, places = _read(target, chain)
        # Figures were published of that one task; with anything changed they are not this one's.
        included.pop("reported", None)
        _merge(values, origins, included, places)
    _merge(values, origins, own, dict.fromkeys(_dotted(own), path))
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
    """A safe loader that refuses a key given twice, which YAML's own loaders pass over in silence."""
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
