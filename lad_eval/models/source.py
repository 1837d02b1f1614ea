"""Where a model's parts are, and its name; no other module derives a model's name.

All spellings of one folder (relative, through a link, with `~`, with a trailing slash) are one model with one name. This module
does not import torch.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lad_eval.errors import UserError
from lad_eval.files.checkpoints import ADAPTER_CONFIG, check_no_pointer, weight_files
from lad_eval.files.documents import parse
from lad_eval.models.tiny import FOLDERS

EMBEDDED = tuple(FOLDERS)
RANDOM = "random:"
KIT = "vlmeval:"
SERVED = "openai:"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CACHED = "models--"


@dataclass(frozen=True)
class Snapshot:
    """A commit of a hub repository.

    Attributes:
        repository: `org/name`.
        commit: 40 hex digits.
        subfolder: of the repository, with slashes; "" for its root.
    """

    repository: str
    commit: str
    subfolder: str = ""

    @property
    def name(self) -> str:
        return f"{self.repository}/{self.subfolder}" if self.subfolder else self.repository


@dataclass(frozen=True)
class Source:
    """The base and the adapter that a model is loaded from.

    Attributes:
        base: a built-in name, an absolute folder without links in its path, or a hub id.
        revision: of a base on the hub.
        adapter: folder of the PEFT adapter that is applied to the base; it may be the base's own. None: there is none.
    """

    base: str
    revision: str | None = None
    adapter: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The base's folder, if it is one."""
        return None if is_built_in(self.base) or not Path(self.base).is_dir() else Path(self.base)

    @property
    def name(self) -> str:
        """The model's name in tables, run folders and filters: `org/name`, `parent/folder`, `<base>+<adapter>`."""
        return self._joined(_place_name)

    @property
    def content_name(self) -> str:
        """The same without parent folders, for the fingerprint: a folder that is moved holds the same model."""
        return self._joined(_own_name)

    def _joined(self, named: Callable[[str], str]) -> str:
        base = named(self.base)
        if self.adapter is None:
            return base
        return f"{base}+{'adapter' if self.adapter == self.folder else named(str(self.adapter))}"


def source_of(model: str, *, adapter: str | None = None, revision: str | None = None) -> Source:
    """The source of a model's name; an adapter of a hub id is found once its configuration is in the local cache.

    Args:
        model: as the user gave it: a built-in name, a folder or a hub id.
        adapter: folder or hub id of a PEFT adapter; None: the one that the model's folder or repository holds, if any.
        revision: of the hub repository named `model`.

    Raises:
        UserError: the adapter's configuration is damaged or names no base, or an adapter is applied to an adapter.
    """
    folder = local_folder(model)
    local = folder if folder is not None else None if is_built_in(model) else cached_adapter(model, revision)
    holds_adapter = local is not None and (local / ADAPTER_CONFIG).is_file()
    if adapter is not None:
        if holds_adapter:
            raise UserError(f"{model} holds an adapter already; merge it into its base first, or leave --adapter out.")
        place = local_folder(adapter) or cached_adapter(adapter, None)
        return Source(model if folder is None else str(folder), revision, Path(adapter) if place is None else place)
    if local is None or not holds_adapter:
        return Source(model if folder is None else str(folder), revision)
    if (local / "config.json").is_file() and weight_files(local):
        return Source(str(local), None, local)
    base, at = _base_of(local)
    return Source(base, at, local)


def display_name(model: str, adapter: str | None = None, revision: str | None = None) -> str:
    """A model's name in tables, run folders, the leaderboard and filters; see `Source.name`.

    A name that is neither a folder here nor an adapter on the hub is returned unchanged.

    Raises:
        UserError: as `source_of`.
    """
    return source_of(model, adapter=adapter, revision=revision).name


def is_built_in(model: str) -> bool:
    """Whether the name is that of a model of this package, a harness or a server, even if there is a folder of that name."""
    return model in EMBEDDED or model.startswith((RANDOM, KIT, SERVED))


def local_folder(model: str) -> Path | None:
    """The folder that a name stands for, absolute and without links in its path; None for anything else."""
    if not model or is_built_in(model):
        return None
    path = Path(model).expanduser()
    return path.resolve() if path.is_dir() else None


def snapshot_of(folder: PurePath) -> Snapshot | None:
    """The commit that a folder of the hub's cache holds: `.../models--org--name/snapshots/<40 hex digits>[/subfolder]`."""
    parts = folder.parts
    for place in range(len(parts) - 2):
        repository, between, commit = parts[place : place + 3]
        if repository.startswith(_CACHED) and between == "snapshots" and _COMMIT.fullmatch(commit):
            return Snapshot(repository.removeprefix(_CACHED).replace("--", "/", 1), commit, "/".join(parts[place + 3 :]))
    return None


def cached_adapter(repository: str, revision: str | None) -> Path | None:
    """Folder in the hub's cache that holds a repository's adapter; None if there is none."""
    if not HUB_ID.fullmatch(repository):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(repository, ADAPTER_CONFIG, revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent.resolve() if isinstance(path, str) else None


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's configuration.

    Raises:
        UserError: it is missing, a Git LFS pointer or not a JSON object.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        nested = sorted(file.parent.name for file in folder.glob(f"*/{ADAPTER_CONFIG}"))
        hint = f"; its subfolder {nested[0]} holds one" if nested else ""
        raise UserError(f"{folder} is not a PEFT adapter: it has no {ADAPTER_CONFIG}{hint}.")
    check_no_pointer(path)
    try:
        config = parse(path.read_bytes(), constants=True)
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object; save the adapter again with save_pretrained.")
    return config


def _base_of(adapter: Path) -> tuple[str, str | None]:
    """The base that an adapter names, and its revision on the hub."""
    config = read_adapter_config(adapter)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base.strip():
        raise UserError(
            f"The adapter {adapter} does not name its base model (base_model_name_or_path in {ADAPTER_CONFIG}); "
            "name it with --model <base> --adapter <this folder>."
        )
    for folder in (local_folder(base), local_folder(str(adapter / Path(base).expanduser()))):
        if folder is not None and folder != adapter:
            return str(folder), None
    cached = snapshot_of(PurePath(base))  # a path in the cache of the machine that trained it
    if cached is not None and not cached.subfolder:
        return cached.repository, cached.commit
    revision = config.get("revision")
    return base, revision if isinstance(revision, str) else None


def _place_name(place: str) -> str:
    path = _path_of(place)
    if path is None:
        return place
    if cached := snapshot_of(path):
        return cached.name
    return "/".join(part for part in (path.parent.name, path.name) if part) or path.anchor


def _own_name(place: str) -> str:
    path = _path_of(place)
    if path is None:
        return place
    cached = snapshot_of(path)
    return path.name if cached is None else cached.name


def _path_of(place: str) -> Path | None:
    """The path of a part of a source, whether or not it exists; None for built-in names and hub ids."""
    if is_built_in(place):
        return None
    path = Path(place)
    return path if path.is_absolute() or path.is_dir() else None


_CONFIGS = ("config.json", ADAPTER_CONFIG)


def hub_has_address() -> bool:
    """Whether the hub's host name resolves here, or a proxy is set that may resolve it."""
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def check_hub_model(name: str, revision: str | None) -> None:
    """Refuses a model of the hub that is not in the local cache while the hub cannot be reached.

    Raises:
        UserError: it is not.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in _CONFIGS):
        return
    if constants.HF_HUB_OFFLINE or not hub_has_address():
        raise UserError(unreachable(name))


def unreachable(name: str) -> str:
    """Message for a model that is neither in the local cache nor can be downloaded."""
    return (
        f"{name} is not in the local cache and the hub cannot be reached: download it on a machine with a network "
        f"(`hf download {name} --local-dir <folder>`) and pass that folder as the model."
    )
