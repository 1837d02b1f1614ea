"""Samples of annotation files, of a prepared data set or the user's own: which of N pictures does the caption describe?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictInt, StrictStr

from lad_eval.data.dataset import root_of
from lad_eval.data.decoding import Treatment
from lad_eval.data.pictures import PictureFolder, locate, path_parts
from lad_eval.data.retrieval.annotations import Annotation, file_name, read_annotations, sample_ids
from lad_eval.data.retrieval.protocols import DEFAULT_ENCODER, POOL, SAMPLES, SEED, SETTINGS, Order, Protocol
from lad_eval.errors import DataError
from lad_eval.tasks.files import shown
from lad_eval.tasks.leakage import choose_distinct
from lad_eval.tasks.request import Sample, Split
from lad_eval.tasks.sources.base import NamedPicture, SourceOptions, digest_of_samples, treatments_of


class AnnotatedSource:
    """Samples of annotation files.

    A sample's id is its right picture's name: the file name or, for a picture in a subfolder, its path. So samples of
    several tasks on one data set have the same id if they are about the same image. From the second sample of a picture on, `#2`,
    `#3`, ... is appended (`annotations.sample_ids`).
    """

    def __init__(
        self,
        *,
        test: Sequence[Annotation],
        calibration: Sequence[Annotation],
        images: Path,
        candidates: int,
        samples: int | None,
        calibration_samples: int,
        where: str,
        notes: Sequence[str] = (),
        pictures: Mapping[str, NamedPicture] | None = None,
    ) -> None:
        """Takes the samples of files or of a data set; no picture is opened yet.

        Args:
            test: samples to evaluate.
            calibration: samples to calibrate on, of other right pictures.
            images: folder of the pictures.
            candidates: N, that every sample must have.
            samples: number of test samples; None: all.
            calibration_samples: number of calibration samples.
            where: name of the files in error texts.
            notes: lines that tables show with the figures.
            pictures: that were looked up already, by name.

        Raises:
            DataError: too few samples, another N, or a picture that is missing or outside the folder.
        """
        sizes = {len(annotation.image_ids) for annotation in (*test, *calibration)}
        if sizes - {candidates}:
            raise DataError(f"{where}: samples have {max(sizes - {candidates})} images; set `candidates:` to that.")
        if len(test) < (samples or 1):
            raise DataError(f"{where}: there are {len(test)} test samples, not {samples or 1}; lower `samples:`.")
        if len(calibration) < calibration_samples:
            raise DataError(
                f"{where}: there are {len(calibration)} calibration samples, not {calibration_samples}; "
                "lower `calibration.samples`."
            )
        self.images = images
        self._notes = tuple(notes)
        self._lists: dict[Split, Sequence[Annotation]] = {"test": test[:samples], "calibration": calibration}
        names = dict.fromkeys(name for entries in self._lists.values() for entry in entries for name in entry.image_ids)
        self._pictures = {**_pictures(images, sorted(names), where), **(pictures or {})}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits: ids, pictures, captions, answers."""
        return digest_of_samples(self)

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples in the files' order."""
        entries = self._lists[split]
        for number, (annotation, name) in enumerate(zip(entries, sample_ids(entries), strict=True)):
            if limit is not None and number >= limit:
                return
            pictures = tuple(self._pictures[each] for each in annotation.image_ids)
            yield Sample(id=name, images=pictures, caption=annotation.caption, gold=annotation.index, split=split)

    def notes(self) -> list[str]:
        """What was left out of the data, and of the samples."""
        return list(self._notes)

    def counts(self) -> dict[str, int]:
        """Samples that are evaluated."""
        return {"test": len(self._lists["test"])}

    def problems(self) -> list[str]:
        """Every picture that cannot be read."""
        return [fault for picture in self._pictures.values() for fault in picture.faults()]

    def treatments(self) -> Iterator[Treatment]:
        """What decoding does to every picture."""
        return treatments_of(self._pictures.values())


def _pictures(images: Path, names: Sequence[str], where: str) -> dict[str, NamedPicture]:
    folder = PictureFolder(images)
    if outside := [name for name in names if folder.leads_outside(name)]:
        raise DataError(f"{where}: the name {outside[0]!r} leads out of the folder of images {shown(images)}.")
    paths = {name: folder.find(name) for name in names}
    if missing := [name for name, path in paths.items() if path is None]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(f"{shown(images / missing[0])}: no such image{more}, but {where} names it.")
    return {name: NamedPicture(path) for name, path in paths.items() if path is not None}


class RetrievalOptions(SourceOptions):
    """How the samples of a data set are drawn.

    Attributes:
        protocol: `official`, as in the released code, or `strict`, as in the paper (`lad_eval.data.retrieval.protocols`).
        encoder: CLIP or SigLIP model that chooses hard negatives; for a model folder its last part suffices.
        n_seq: number of samples to draw, of which the task uses the first; None: as many as the task uses. `official` draws other
            adversarial samples for another number.
        pool: pictures from which samples are made.
        seed: of all draws.
        root: folder of the data set, relative to the YAML file; None: where `lad-eval data prepare` put it.
    """

    dataset: ClassVar[str]

    protocol: Protocol
    encoder: Annotated[StrictStr, Field(min_length=1)] = DEFAULT_ENCODER
    n_seq: Annotated[StrictInt, Field(ge=1)] | None = None
    pool: Annotated[StrictInt, Field(ge=2)] = POOL
    seed: StrictInt = SEED
    root: StrictStr | None = None

    def open(
        self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path
    ) -> AnnotatedSource:
        # Imported here because listing tasks should not wait for numpy.
        from lad_eval.data.dataset import load_dataset
        from lad_eval.data.retrieval.dataset import CaptionedSet, absent_line
        from lad_eval.data.retrieval.store import Recipe

        known = next((name for name in SETTINGS if name == setting), None)
        if known is None:
            raise DataError(f"The source {self.dataset!r} has the settings {' and '.join(SETTINGS)}, not {setting!r}.")
        if samples is not None and self.n_seq is not None and samples > self.n_seq:
            raise DataError(f"samples: {samples} is more than data.n_seq: {self.n_seq}, the samples that are drawn.")
        root = root_of(self.dataset) if self.root is None else folder / Path(self.root).expanduser()
        order = Order(known, candidates, self.n_seq or samples or SAMPLES, calibration_samples, self.pool, self.seed)
        captioned = load_dataset(self.dataset)
        assert isinstance(captioned, CaptionedSet)
        made = captioned.annotations(root, Recipe(self.protocol, order, None if known == "random" else self.encoder))
        return AnnotatedSource(
            test=made.test,
            calibration=made.calibration,
            images=captioned.picture_folder(root),
            candidates=candidates,
            samples=samples,
            calibration_samples=calibration_samples,
            where=f"{self.dataset} in {shown(root)}",
            notes=[absent_line(absent)] if (absent := made.provenance.get("absent")) else (),
        )


class AnnotationsOptions(SourceOptions):
    """Annotation files in the released code's form; paths are relative to the YAML file.

    Attributes:
        file: the samples.
        images: folder of the images; paths in the file are shortened from the left until they exist below it.
        calibration: samples to calibrate on; None: the first samples of `file`, and none with one of
            their right images is evaluated. An image that is also a right one under another name is skipped.
    """

    file: StrictStr
    images: StrictStr
    calibration: StrictStr | None = None

    def open(
        self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path
    ) -> AnnotatedSource:
        path = folder / Path(self.file).expanduser()
        images = folder / Path(self.images).expanduser()
        if not images.is_dir():
            raise DataError(f"{shown(images)}: no such folder of images.")
        everything = _read_below(path, images)
        pictures: dict[str, NamedPicture] = {}
        if self.calibration is not None:
            learned = _read_below(folder / Path(self.calibration).expanduser(), images)
        else:
            by_target = {annotation.target: annotation for annotation in reversed(everything)}
            pictures = _pictures(images, sorted(by_target), shown(path))
            first = list(dict.fromkeys(annotation.target for annotation in everything))
            learned = [by_target[target] for target in _without_copies(first, pictures, calibration_samples)]
        targets = {annotation.target for annotation in learned}
        test = [annotation for annotation in everything if annotation.target not in targets]
        excluded = len(everything) - len(test)
        return AnnotatedSource(
            test=test,
            calibration=learned,
            images=images,
            candidates=candidates,
            samples=samples,
            calibration_samples=calibration_samples,
            where=shown(path),
            notes=[f"{excluded} of {len(everything)} samples not evaluated: calibration uses their images."] if excluded else (),
            pictures=pictures,
        )


def _read_below(path: Path, images: Path) -> list[Annotation]:
    """The samples of an annotation file, pictures by their paths below a folder, or by file names alone."""
    annotations = read_annotations(path)
    spelled = {each: "/".join(path_parts(each)) for annotation in annotations for each in annotation.image_ids}
    located = locate(PictureFolder(images), spelled.values())
    there = any(each.path is not None for each in located.values())
    names = {each: located[name].name if there else file_name(each) for each, name in spelled.items()}
    renamed = [annotation.renamed(names) for annotation in annotations]
    for number, annotation in enumerate(renamed):
        if len(set(annotation.image_ids)) < len(annotation.image_ids):
            raise DataError(f"{shown(path)}: entry {number}: image_ids names a picture of {shown(images)} twice.")
    return renamed


def _without_copies(names: Sequence[str], pictures: Mapping[str, NamedPicture], count: int) -> tuple[str, ...]:
    """The first names without a copy of their picture among the other names; if these are too few, then the others."""
    contents = {name: _content(pictures[name]) for name in names}
    often = Counter(contents.values())
    return choose_distinct(names, lambda name: often[contents[name]] > 1, count).filled


def _content(picture: NamedPicture) -> str:
    """Content digest; the path if the file cannot be read, which `problems` and the first request report."""
    try:
        return picture.content_digest
    except DataError:
        return str(picture.path)


class CocoOptions(RetrievalOptions):
    """Retrieval on COCO's validation pictures of 2014."""

    dataset: ClassVar[str] = "coco"


class Flickr8kOptions(RetrievalOptions):
    """Retrieval on Flickr8k's test pictures. The released code has no samples of it, so `strict` is the only protocol."""

    dataset: ClassVar[str] = "flickr8k"

    protocol: Literal["strict"] = "strict"
