"""The definition of a data set: its files, and how it is prepared, checked and described.

To add one: a module with a constant of a subclass of `DataSet`, and its place in `DATASETS`.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol

from lad_eval.errors import DataError, NotPreparedError
from lad_eval.files.documents import read_json, write_json

DATASETS = {
    "coco": "lad_eval.data.coco:COCO",
    "flickr8k": "lad_eval.data.flickr8k:FLICKR8K",
    "mmiu": "lad_eval.data.mmiu:MMIU",
    "blink": "lad_eval.data.blink:BLINK",
    "muirbench": "lad_eval.data.muirbench:MUIRBENCH",
}

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows the progress of long work; `lad_eval.run.progress.progress` is one."""

    def __call__(self, label: str, total: int, done: int = 0, *, unit: str = "requests") -> AbstractContextManager[Advance]:
        """Yields a function to call with the number of further units done; `unit` may be "bytes", which is shown as MB, GB."""


@dataclass(frozen=True)
class DataFile:
    """A file of a data set, as its publisher offers it.

    Attributes:
        path: where it belongs, relative to the data set's root, with forward slashes.
        url: where it is downloaded from; None: no program can download it, and `manual` says how to get it.
        purpose: what it is for, as in "the pictures".
        licence: under which it may be used.
        bytes: its size, where publicly known.
        sha256: hex digest, where publicly known.
        md5: hex digest, where only this one is publicly known.
        required: False: the data set can be used without it.
        manual: how to get it by hand, in one sentence, shown when it is missing.
    """

    path: str
    url: str | None
    purpose: str
    licence: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    required: bool = True
    manual: str | None = None

    @property
    def name(self) -> str:
        """The last part of `path`."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class PrepareOptions:
    """What a user may choose in `lad-eval data prepare`; None: the data set decides.

    Attributes:
        download: False: nothing is downloaded, only files at the root are used.
        encoder: CLIP or SigLIP model (hub id or folder) for embeddings.
        protocol: which samples are drawn.
        device: of the encoder.
        batch_size: pictures or captions that the encoder takes at once.
    """

    download: bool = True
    encoder: str | None = None
    protocol: Literal["official", "strict", "both"] | None = None
    device: str | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Status:
    """What of a data set is there.

    Attributes:
        ready: whether tasks can be run on it.
        lines: one per file or step, as shown to the user.
    """

    ready: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class DataSet(ABC):
    """A data set that `lad-eval data` knows.

    Attributes:
        name: its key in `DATASETS`.
        title: in words.
        homepage: where its authors present it.
        licence: in one sentence.
        files: that it consists of.
        revision: pinned revision, where its publisher has revisions.
        takes: fields of `PrepareOptions`, besides `download`, that it understands; others are refused.
    """

    name: str
    title: str
    homepage: str
    licence: str
    files: tuple[DataFile, ...]
    revision: str | None = None
    takes: frozenset[str] = frozenset()

    @abstractmethod
    def prepare(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        """Prepares the data set so that tasks can be run on it; what is done already is not done again.

        Args:
            root: an existing folder. Files there are used, the others downloaded unless `options.download` is False.
            options: as the user gave them.
            progress: shows steps that take long.

        Raises:
            DataError: a file is missing and cannot be fetched, or is damaged; the text names file, url and place.
        """

    @abstractmethod
    def verify(self, root: Path, progress: Progress) -> list[str]:
        """Reads everything, and returns every fault in one line; empty if there are none."""

    @abstractmethod
    def status(self, root: Path) -> Status:
        """What is there, from a quick check: existence and sizes, no contents."""

    def check_options(self, options: PrepareOptions) -> None:
        """Refuses options that the user gave and this data set does not take.

        Raises:
            DataError: there is such an option.
        """
        options_set = [f.name for f in fields(options) if f.name != "download" and getattr(options, f.name) is not None]
        if strange := [name for name in options_set if name not in self.takes]:
            flags = ", ".join("--" + name.replace("_", "-") for name in strange)
            raise DataError(f"{flags}: not an option of {self.name}; leave it out.")


def load_dataset(name: str) -> DataSet:
    """A data set by name; its module is imported on demand.

    Raises:
        DataError: there is no such data set.
    """
    if name not in DATASETS:
        raise DataError(f"Unknown data set {name!r}; there are {', '.join(DATASETS)}.")
    module, _, constant = DATASETS[name].partition(":")
    dataset: DataSet = getattr(importlib.import_module(module), constant)
    return dataset


VARIABLE = "LAD_EVAL_DATA"


def home() -> Path:
    """Where folders are remembered: `$LAD_EVAL_DATA`, else `lad_eval` in the user's cache (`$XDG_CACHE_HOME`, `~/.cache`)."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and to be ignored.
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "lad_eval"


def default_root(name: str) -> Path:
    """The folder of a data set when the user names none and none is remembered."""
    return home() / name


def remember(name: str, root: Path) -> None:
    """Remembers that a data set is at `root`.

    Raises:
        DataError: the note cannot be written.
    """
    note = _note(name)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"format": 1, "name": name, "root": str(root.absolute())})
    except OSError as error:
        raise DataError(f"{note}: cannot be written: {error.strerror}; set {VARIABLE} to a folder that can.") from None


def remembered(name: str) -> Path | None:
    """Where a data set was prepared, whether or not it is still there; None: nowhere.

    Raises:
        DataError: the note is damaged.
    """
    note = _note(name)
    if not note.exists():
        return None
    root = read_json(note, what=f"where {name} lies", cure=f"Remove it, then {_cure(name)}", error=DataError).get("root")
    if not isinstance(root, str) or "\0" in root:
        raise DataError(f"{note} is damaged; remove it, then {_cure(name)}")
    return Path(root)


def root_of(name: str) -> Path:
    """The folder of a prepared data set.

    Raises:
        NotPreparedError: it was not prepared, or the folder is gone; the text has the command to run.
    """
    root = remembered(name)
    if root is None:
        raise NotPreparedError(f"The data set {name!r} is not prepared;", _command(name))
    if not root.is_dir():
        raise NotPreparedError(f"The data set {name!r} was prepared in {root}, which is gone;", _command(name))
    return root


def _note(name: str) -> Path:
    return home() / f"{name}.json"


def _cure(name: str) -> str:
    return f"run `{_command(name)}`."


def _command(name: str) -> str:
    return f"lad-eval data prepare {name} --root <folder>"
