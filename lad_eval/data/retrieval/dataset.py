"""A data set of captioned pictures: from its files to an index, embeddings and annotation files."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.data.dataset import DataSet, PrepareOptions, Progress, Status
from lad_eval.data.pictures import picture_faults
from lad_eval.data.retrieval.annotations import CaptionIndex, cached_index, pictures_in
from lad_eval.data.retrieval.embeddings import BATCH_SIZE, Captioned, embed, embeddings_fingerprint, load_embeddings
from lad_eval.data.retrieval.protocols import (
    CALIBRATION,
    DEFAULT_ENCODER,
    POOL,
    SAMPLES,
    SEED,
    Order,
    Protocol,
    Setting,
    TooFewCandidatesError,
    TooFewImagesError,
)
from lad_eval.data.retrieval.store import (
    FOLDER,
    AnnotationSet,
    NoEmbeddingsError,
    Recipe,
    embeddings_folder,
    is_current,
    keep_set,
    make_set,
    read_set,
)
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.files.documents import read_json

NO_ENCODER = "none"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedSet(DataSet):
    """What COCO and Flickr8k have in common.

    Attributes:
        protocols: that it supports, the default first.
        sizes: numbers of candidates of the bundled tasks.
    """

    takes: frozenset[str] = frozenset({"encoder", "protocol", "device", "batch_size"})
    protocols: tuple[Protocol, ...] = ("strict",)
    sizes: tuple[int, ...] = (4, 8)

    @abstractmethod
    def download(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        """Downloads and unpacks the files that are missing.

        Raises:
            DataError: as `DataSet.prepare`.
        """

    @abstractmethod
    def read(self, root: Path) -> CaptionIndex:
        """Reads its files.

        Raises:
            DataError: a file is missing or damaged.
        """

    @abstractmethod
    def sources(self, root: Path) -> Sequence[Path]:
        """The files and the folder that `read` reads, whether they exist or not."""

    @abstractmethod
    def picture_folder(self, root: Path) -> Path:
        """The folder of the pictures, whether it exists or not."""

    def index(self, root: Path) -> CaptionIndex:
        """The result of `read`, cached until a file changes."""
        return cached_index(root / FOLDER / "index.json", self.sources(root), lambda: self.read(root))

    def annotations(self, root: Path, recipe: Recipe) -> AnnotationSet:
        """Samples by a recipe: the stored ones, else made now, and stored where that is possible.

        Raises:
            DataError: files, embeddings or pictures are missing, damaged or too few.
        """
        if (stored := read_set(root, recipe)) is not None:
            return stored
        try:
            made = make_set(root, recipe, self.index(root))
        except NoEmbeddingsError as error:
            raise NotPreparedError(
                f"{str(error).rstrip('.')};", f"lad-eval data prepare {self.name} --root {root} --encoder {recipe.encoder}"
            ) from None
        except (TooFewImagesError, TooFewCandidatesError) as error:
            raise type(error)(f"{root}: {error}") from None
        try:
            keep_set(root, recipe, made)
        except OSError as error:
            _LOG.warning("%s: annotations cannot be stored there (%s); every run computes them again.", root, error.strerror)
        return made

    def prepare(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        protocols = self._protocols(options)
        self.download(root, options, progress)
        index = self.index(root)
        if index.absent:
            _LOG.warning("%s: %s", root / index.folder, absent_line(index.absent))
        self._make(root, index, list(self._recipes(protocols, "random", None)), progress)
        if options.encoder == NO_ENCODER:
            return
        name = options.encoder or DEFAULT_ENCODER
        try:
            self._embed(root, index, name, options, progress)
        except DataError as error:
            if options.encoder is not None:
                raise
            _LOG.warning("Hard negatives are not mined, tasks of the random setting can be run. %s", error)
            return
        self._make(root, index, list(self._recipes(protocols, "adversarial", name)), progress)

    def verify(self, root: Path, progress: Progress) -> list[str]:
        try:
            index = self.read(root)
        except DataError as error:
            where = f"`lad-eval data status {self.name} --root {root}` says where to get it."
            return [f"{path}: missing; {where}" for path in self.sources(root) if not path.exists()] or [str(error)]
        faults = [f"{root / index.folder}: {absent_line(index.absent)}"] if index.absent else []
        with progress("Reading the pictures", len(index.names), unit="images") as advance:
            for name in index.names:
                faults += picture_faults(root / index.folder / name)
                advance(1)
        for folder in _folders(root / FOLDER / "embeddings"):
            try:
                embeddings = load_embeddings(folder)
            except (DataError, FileNotFoundError) as error:
                faults.append(f"{folder}: no finished embeddings; prepare again." if isinstance(error, OSError) else str(error))
                continue
            if missing := set(index.names).difference(embeddings.names):
                faults.append(f"{folder}: {len(missing)} images have no embedding, as {min(missing)}; prepare again.")
        for folder, recipe in _stored(root):
            stored = None if recipe is None else read_set(root, recipe)
            if recipe is None or stored is None:
                faults.append(f"{folder}: damaged or of another version; remove it and prepare again.")
            elif not is_current(stored, root, recipe, index):
                faults.append(f"{folder}: made of other captions, images or embeddings; prepare again.")
        return faults

    def status(self, root: Path) -> Status:
        files, complete = self._file_lines(root)
        lines = [*files]
        for folder in _folders(root / FOLDER / "embeddings"):
            done = embeddings_fingerprint(folder) is not None
            lines.append(f"embeddings of {folder.name}: {'there' if done else 'incomplete; prepare again to continue'}")
        made: dict[str, list[int]] = {}
        for _, recipe in _stored(root):
            if recipe is not None and recipe.order.samples == SAMPLES:
                with_encoder = f" (by {recipe.document['encoder']})" if recipe.encoder else ""
                made.setdefault(f"{recipe.protocol} {recipe.order.setting}{with_encoder}", []).append(recipe.order.candidates)
        lines += [f"samples, {what}: N = {', '.join(map(str, sorted(sizes)))}" for what, sizes in sorted(made.items())]
        prepared = (root / FOLDER / "index.json").is_file()
        if complete and not prepared:
            lines.append(f"not prepared here: run `lad-eval data prepare {self.name} --root {root}`")
        return Status(complete and prepared, tuple(lines))

    def _file_lines(self, root: Path) -> tuple[list[str], bool]:
        """A line for the pictures and for every other file, and whether all are there."""
        folder = self.picture_folder(root)
        try:
            lines = [f"{folder.name}/: {len(pictures_in(folder))} images"]
            complete = True
        except DataError:
            lines, complete = [f"{folder.name}/: missing{self._origin(0)}"], False
        for path in self.sources(root):
            if path != folder:
                there = path.is_file()
                lines.append(f"{path.relative_to(root).as_posix()}: {'there' if there else 'missing' + self._origin(1)}")
                complete = complete and there
        return lines, complete

    def _origin(self, number: int) -> str:
        return f"; from {self.files[number].url}"

    def _protocols(self, options: PrepareOptions) -> Sequence[Protocol]:
        if options.protocol is None:
            return self.protocols[:1]
        if options.protocol == "both":
            return self.protocols
        if options.protocol not in self.protocols:
            raise DataError(f"{self.name} has no protocol {options.protocol!r}; there is {' and '.join(self.protocols)}.")
        return (options.protocol,)

    def _recipes(self, protocols: Sequence[Protocol], setting: Setting, encoder: str | None) -> Iterator[Recipe]:
        for protocol in protocols:
            for candidates in self.sizes:
                yield Recipe(protocol, Order(setting, candidates, SAMPLES, CALIBRATION, POOL, SEED), encoder)

    def _make(self, root: Path, index: CaptionIndex, recipes: Sequence[Recipe], progress: Progress) -> None:
        setting = recipes[0].order.setting
        try:
            with progress(f"Drawing samples, {setting}", len(recipes), unit="tasks") as advance:
                for recipe in recipes:
                    stored = read_set(root, recipe)
                    if stored is None or not is_current(stored, root, recipe, index):
                        keep_set(root, recipe, _full(make_set(root, recipe, index)))
                    advance(1)
        except (TooFewImagesError, TooFewCandidatesError) as error:
            _LOG.warning("The bundled %s tasks cannot be run, tasks of your own with fewer samples can. %s", setting, error)
        except OSError as error:
            raise DataError(f"{root}: annotations cannot be written: {error.strerror}.") from None

    def _embed(self, root: Path, index: CaptionIndex, name: str, options: PrepareOptions, progress: Progress) -> None:
        from lad_eval.data.retrieval.encoder import load_encoder

        encoder = load_encoder(name, device=options.device, download=options.download)
        items = [Captioned(each, root / index.folder / each, index.captions[each]) for each in index.names]
        embed(items, encoder, embeddings_folder(root, name), progress, batch_size=options.batch_size or BATCH_SIZE)


def absent_line(count: int) -> str:
    """Note on samples that were drawn without some pictures of the data set."""
    many = f"{count} images with a caption are" if count > 1 else "1 image with a caption is"
    return f"{many} not there; samples drawn without them differ from those of the whole data set."


def _full(made: AnnotationSet) -> AnnotationSet:
    if len(made.test) < SAMPLES:
        raise TooFewImagesError(f"{len(made.test)} images are too few for {SAMPLES} samples.")
    return made


def _folders(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []


def _stored(root: Path) -> Iterator[tuple[Path, Recipe | None]]:
    """Folders with annotations, and the recipe of each; None where that is unknown."""
    for folder in _folders(root / FOLDER / "annotations"):
        recipe = None
        with contextlib.suppress(DataError, ValueError, KeyError, TypeError, AttributeError):
            written = read_json(folder / "provenance.json", error=DataError)["recipe"]
            written.pop("version")
            recipe = Recipe(written.pop("protocol"), encoder=written.pop("encoder"), order=Order(**written))
        yield folder, recipe
