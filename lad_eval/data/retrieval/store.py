"""Annotation files of a data set: made once by a recipe, stored with their origin, read by every run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lad_eval.data.retrieval.annotations import Annotation, CaptionIndex, dumps, read_annotations
from lad_eval.data.retrieval.embeddings import embeddings_fingerprint, encoder_folder, load_embeddings
from lad_eval.data.retrieval.mining import CAPTION_THRESHOLD, Miner
from lad_eval.data.retrieval.protocols import NamedSample, NamedSplits, Order, Protocol, official, strict
from lad_eval.errors import DataError
from lad_eval.files.atomic import write_text
from lad_eval.files.documents import read_json, write_json
from lad_eval.version import __version__

FOLDER = "lad_eval"
"""Folder below a data set's root for everything that is made of it."""
VERSION = 1
"""Raised whenever the same recipe and data give other samples."""
_TEST, _CALIBRATION, _PROVENANCE = "test.json", "calibration.json", "provenance.json"


class NoEmbeddingsError(DataError):
    """Hard negatives are requested and there are no embeddings of the encoder."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines annotation files, except for the data.

    Attributes:
        protocol: how samples are drawn.
        order: what is drawn.
        encoder: whose similarities choose hard negatives, by name; None in the random setting.
    """

    protocol: Protocol
    order: Order
    encoder: str | None = None

    def __post_init__(self) -> None:
        if (self.encoder is None) != (self.order.setting == "random"):
            raise ValueError("an encoder belongs to the adversarial setting, and to it only")

    @property
    def document(self) -> dict[str, Any]:
        """As JSON; an encoder's folder is named by its last part only, as its embeddings are."""
        encoder = None if self.encoder is None else encoder_folder(Path(), self.encoder).name
        return {"version": VERSION, "protocol": self.protocol, **asdict(self.order), "encoder": encoder}

    @property
    def name(self) -> str:
        """Name of the folder that holds its annotations."""
        digest = hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.protocol}-{self.order.setting}-n{self.order.candidates}-{digest}"


@dataclass(frozen=True)
class AnnotationSet:
    """Samples of both splits, pictures by bare file names, and where they come from."""

    test: tuple[Annotation, ...]
    calibration: tuple[Annotation, ...]
    provenance: dict[str, Any]


def annotations_folder(root: Path, recipe: Recipe) -> Path:
    """Where the annotations of a recipe are stored."""
    return root / FOLDER / "annotations" / recipe.name


def embeddings_folder(root: Path, encoder: str) -> Path:
    """Where the embeddings of an encoder are stored."""
    return encoder_folder(root / FOLDER / "embeddings", encoder)


def read_set(root: Path, recipe: Recipe) -> AnnotationSet | None:
    """Annotations that were made before; None if there are none, or they are damaged or of another version."""
    folder = annotations_folder(root, recipe)
    try:
        provenance = read_json(folder / _PROVENANCE, error=DataError)
        # Names in the file must not lead out of the folder.
        if provenance["recipe"] != recipe.document or provenance["sha256"].keys() != {_TEST, _CALIBRATION}:
            return None
        for name, digest in provenance["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                return None
        return AnnotationSet(tuple(read_annotations(folder / _TEST)), tuple(read_annotations(folder / _CALIBRATION)), provenance)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError):
        return None


def is_current(stored: AnnotationSet, root: Path, recipe: Recipe, index: CaptionIndex) -> bool:
    """Whether stored annotations are made of this index and of the embeddings that are there now, if there are any."""
    embeddings = None if recipe.encoder is None else embeddings_fingerprint(embeddings_folder(root, recipe.encoder))
    same = embeddings is None or stored.provenance["embeddings"] == embeddings
    return bool(same and stored.provenance["index"] == index.digest)


def make_set(root: Path, recipe: Recipe, index: CaptionIndex) -> AnnotationSet:
    """Draws and mines samples by a recipe; stores nothing.

    Raises:
        NoEmbeddingsError: there are no embeddings of the encoder.
        DataError: too few pictures or candidates, or damaged embeddings.
    """
    miner = _NoMining() if recipe.encoder is None else _miner(root, recipe, recipe.encoder, index)
    if recipe.protocol == "official":
        drawn = official(index.names, recipe.order, miner)
    else:
        drawn = strict(index.names, index.captions, recipe.order, miner, pool=index.test)
    lists = _annotated(drawn, index)
    provenance = {
        "recipe": recipe.document,
        "index": index.digest,
        "absent": index.absent,
        "embeddings": miner.fingerprint,
        "lad_eval": __version__,
        "sha256": {name: hashlib.sha256(dumps(part).encode()).hexdigest() for name, part in lists.items()},
    }
    return AnnotationSet(lists[_TEST], lists[_CALIBRATION], provenance)


def keep_set(root: Path, recipe: Recipe, made: AnnotationSet) -> None:
    """Writes annotations where `read_set` finds them; their origin is written last.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = annotations_folder(root, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in ((_TEST, made.test), (_CALIBRATION, made.calibration)):
        write_text(folder / name, dumps(part))
    write_json(folder / _PROVENANCE, made.provenance)


class _NoMining:
    fingerprint = None

    def __call__(self, *_: Any) -> list[list[str]]:
        raise AssertionError("the random setting mines nothing")


@dataclass(frozen=True, eq=False)
class _Mining(Miner):
    fingerprint: str | None = dataclasses.field(default=None, kw_only=True)


def _miner(root: Path, recipe: Recipe, encoder: str, index: CaptionIndex) -> _Mining:
    folder = embeddings_folder(root, encoder)
    try:
        embeddings = load_embeddings(folder)
    except FileNotFoundError:
        raise NoEmbeddingsError(f"{root} has no embeddings of the encoder {encoder}.") from None
    return _Mining(
        embeddings.names,
        embeddings.images,
        embeddings.texts,
        index.categories,
        rule="superset" if recipe.protocol == "official" else "identical",
        threshold=CAPTION_THRESHOLD,
        fingerprint=embeddings.fingerprint,
    )


def _annotated(drawn: NamedSplits, index: CaptionIndex) -> dict[str, tuple[Annotation, ...]]:
    return {
        name: tuple(_annotation(number, draw, index) for number, draw in enumerate(draws))
        for name, draws in ((_TEST, drawn.test), (_CALIBRATION, drawn.calibration))
    }


def _annotation(number: int, draw: NamedSample, index: CaptionIndex) -> Annotation:
    return Annotation(number, draw.images, draw.index, draw.anchor, index.captions[draw.anchor])
