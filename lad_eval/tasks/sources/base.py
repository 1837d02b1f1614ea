"""Base classes of sources: validated options that open a source, and what a source may offer besides samples."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, field_validator

from lad_eval.data.dataset import root_of
from lad_eval.data.decoding import Treatment
from lad_eval.data.pictures import PictureFacts, picture_facts, picture_faults, read_picture
from lad_eval.errors import DataError, PictureError
from lad_eval.tasks.files import shown
from lad_eval.tasks.request import ImageSource, Sample, SampleSource, Split, showing

if TYPE_CHECKING:
    from PIL.Image import Image


class SourceOptions(BaseModel, ABC):
    """The keys of a task's `data:` for one kind of source; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> SampleSource:
        """The source itself.

        Args:
            setting: the task's setting.
            candidates: N, options per sample.
            samples: number of test samples; None: all.
            calibration_samples: number of calibration samples that the task needs.
            folder: of the task's YAML file; relative paths in the options start there.

        Raises:
            DataError: data is missing, unreadable or too little; a setting that the source does not know.
        """


class PublishedOptions(SourceOptions):
    """Of a published data set, whose candidates are given by the data.

    Attributes:
        revision: of the hub data set; only the one that this package knows.
        root: folder of the data set; None: where `lad-eval data prepare` put it.
        seed: of the random choice of calibration rows.
    """

    revision: StrictStr
    root: StrictStr | None = None
    seed: StrictInt = 0

    @classmethod
    @abstractmethod
    def known_revision(cls) -> str:
        """The revision that this package knows."""

    @field_validator("revision")
    @classmethod
    def _is_known(cls, revision: str) -> str:
        if revision != (known := cls.known_revision()):
            raise ValueError(f"unknown revision {revision!r}; this version of lad_eval knows {known}")
        return revision

    def folder_of(self, name: str, setting: str, folder: Path) -> Path:
        """The folder of the data set.

        Args:
            name: of the data set and of its source.
            setting: the task's.
            folder: of the task's YAML file, to which `root` is relative.

        Raises:
            DataError: another setting than "given".
        """
        if setting != "given":
            raise DataError(f"The source {name!r} has the setting 'given' only, not {setting!r}.")
        return root_of(name) if self.root is None else folder / Path(self.root).expanduser()


@runtime_checkable
class Checkable(Protocol):
    """A source that can check all its data, as `lad-eval validate` does."""

    def problems(self) -> list[str]:
        """Every fault in the data, one line each."""


@runtime_checkable
class Trainable(Protocol):
    """A source with samples to train a model on, none of which its tasks evaluate."""

    def training_samples(self, limit: int) -> Iterator[Sample]:
        """At most `limit` samples in a fixed order; `limit` only shortens the list. Their split is "calibration"."""


@runtime_checkable
class Illustrated(Protocol):
    """A source of picture files; `lad-eval validate` counts what decoding does to them."""

    def treatments(self) -> Iterable[Treatment]:
        """What is done to each picture that can be read, one after the other; a picture may have several."""


@runtime_checkable
class Noted(Protocol):
    """A source with notes that tables and `metrics.json` show with the figures."""

    def notes(self) -> list[str]:
        """One line each, such as "unpermuted: the options are not the ordinals"."""

    def counts(self) -> dict[str, int]:
        """Number of the data's rows by their use, such as {"rows": 132, "left out: no output": 2}."""


def digest_of_samples(source: SampleSource, *also: Any) -> str:
    """SHA-256 hex digest, 32 characters, of every sample of both splits: ids, pictures, captions, answers, identifiers, options.

    Args:
        source: whose samples.
        also: plain JSON values that determine the requests in addition to the samples.
    """
    total = hashlib.sha256(json.dumps(also).encode() if also else b"")
    for split in get_args(Split):
        for s in source.samples(split):
            with showing(s.id):
                content = [split, s.id, [i.digest for i in s.images], s.caption, s.gold]
            if s.identifiers is not None:
                content.append(list(s.identifiers))
            if s.options is not None:
                content.append({"options": list(s.options), "fixed": list(s.fixed), "bound": list(s.bound)})
            if s.cluster is not None:
                content.append({"cluster": s.cluster})
            total.update(json.dumps(content).encode() + b"\n")
    return total.hexdigest()[:32]


@dataclass(frozen=True)
class Picture:
    """A file; an `ImageSource`."""

    path: Path

    @cached_property
    def facts(self) -> PictureFacts:
        """Digest, size and mode of the file, read once.

        Raises:
            PictureError: it cannot be read or is not a picture by its first bytes.
        """
        return picture_facts(self.path, shown(self.path))

    @property
    def content_digest(self) -> str:
        """SHA-256 hex digest of the file's bytes, and of what decoding does to the pixels, if anything.

        Raises:
            PictureError: as of `facts`.
        """
        return self.facts.digest

    @property
    def digest(self) -> str:
        """The same; errors as of `facts`."""
        return self.content_digest

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; errors as of `facts`."""
        return self.facts.header.size

    def load(self) -> Image:
        """The picture in RGB; if necessary turned, flattened on white, scaled to 8 bits, or its first frame."""
        return read_picture(self.path, shown(self.path))

    def faults(self) -> list[str]:
        """Why it cannot be read, in one line; empty if it can."""
        return picture_faults(self.path, shown(self.path))


@dataclass(frozen=True)
class NamedPicture(Picture):
    """A picture that its data set identifies by its file name.

    Two files with the same content stay two candidates, as in published results on the data set.
    """

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex digest of the file's name and of `content_digest`; errors as of `facts`."""
        return hashlib.sha256(f"{self.path.name}\0{self.content_digest}".encode()).hexdigest()


_READ_ALIKE: dict[bytes, Literal["jpeg", "png"]] = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png"}
"""How files begin whose pixels every reader gets alike, if decoding changes nothing."""


def as_file(image: ImageSource) -> tuple[Literal["jpeg", "png"], bytes]:
    """An image for other programs: its own file, where decoding changes nothing; else a PNG of what our models are shown.

    Raises:
        PictureError: it cannot be read.
    """
    if isinstance(image, Picture) and image.facts.header.mode == "RGB" and not image.facts.header.treatments:
        content = image.path.read_bytes()
        for beginning, kind in _READ_ALIKE.items():
            if content.startswith(beginning):
                return kind, content
    buffer = io.BytesIO()
    image.load().save(buffer, format="PNG")
    return "png", buffer.getvalue()


def treatments_of(pictures: Iterable[Picture]) -> Iterator[Treatment]:
    """What decoding does to each of the pictures that can be read, one after the other."""
    for picture in pictures:
        with suppress(PictureError):
            yield from picture.facts.header.treatments
