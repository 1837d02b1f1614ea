"""A folder of pictures and a captions file, made into N-way retrieval: which of N pictures does the caption describe?

A task on your own pictures, in a folder `photos` next to the file:

    name: my_photos
    source: folder
    candidates: 4
    data:
      images: photos
      captions: photos/captions.json
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import StrictBool, StrictInt, StrictStr

from lad_eval.data.retrieval.protocols import DEFAULT_ENCODER, SETTINGS, TooFewCandidatesError, plain
from lad_eval.errors import DataError
from lad_eval.tasks.files import shown
from lad_eval.tasks.leakage import choose_distinct
from lad_eval.tasks.request import Sample, Split, showing
from lad_eval.tasks.sources.base import Picture, SourceOptions, digest_of_samples, treatments_of
from lad_eval.tasks.sources.captioned_images import CaptionChoice, absent_line, read_captioned_images

if TYPE_CHECKING:
    from lad_eval.data.decoding import Treatment
    from lad_eval.data.retrieval.embeddings import Embeddings

_LOG = logging.getLogger(__name__)
_SPLITS: tuple[Split, ...] = ("test", "calibration")


class FolderOptions(SourceOptions):
    """Where the pictures and their captions lie (relative to the YAML file), and the seed of the draw.

    Attributes:
        images: folder of the pictures.
        captions: captions file.
        caption: which of several captions of an image are used: the first, one drawn at random, or all, one sample per caption.
        allow_outside: whether names in the captions file may lead out of the folder.
        seed: of the shuffle, the wrong candidates of the random setting, the positions, and the captions that are drawn.
        encoder: CLIP or SigLIP model that chooses the wrong candidates of the adversarial setting.
    """

    images: StrictStr
    captions: StrictStr
    caption: CaptionChoice = "first"
    allow_outside: StrictBool = False
    seed: StrictInt = 0
    encoder: StrictStr = DEFAULT_ENCODER

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> FolderSource:
        if setting not in SETTINGS:
            raise DataError(f"The source 'folder' has the settings {' and '.join(SETTINGS)}, not {setting!r}.")
        return FolderSource(
            images=folder / Path(self.images).expanduser(),
            captions=folder / Path(self.captions).expanduser(),
            candidates=candidates,
            samples=samples,
            calibration_samples=calibration_samples,
            seed=self.seed,
            encoder=self.encoder if setting == "adversarial" else None,
            caption=self.caption,
            allow_outside=self.allow_outside,
        )


@dataclass(frozen=True)
class _Pool:
    """Pictures of a split.

    Attributes:
        anchors: right pictures, in the order of the samples.
        groups: pictures from which the wrong candidates are drawn, those with a caption in common together.
        spares: right pictures that take the places of anchors that are passed over.
    """

    anchors: Sequence[str]
    groups: Sequence[Sequence[str]]
    spares: Sequence[str] = ()


class FolderSource:
    """N-way samples of single pictures with captions.

    Every picture is the right answer of at most one sample, or of one for each of its captions. The names are shuffled once by
    the seed; the first make the calibration, the rest the test. Where there are enough, calibration has pictures of its own,
    max(calibration samples, 2 N), none of which is shown in a test sample; else only the right answers are disjoint, and a
    warning says so. The wrong candidates differ from the right one and from each other in all their captions (upper case, spaces
    and a final point aside). With an encoder they are the pictures most similar to the right one among those whose captions are
    not (`lad_eval.data.retrieval.mining`), else they are drawn. The right answer stands at every place once in every N samples.
    Every sample is drawn with a generator of its own, so that a limit only shortens the list. With all captions, the samples of
    the first captions come first, then those of the second.

    A file that is, byte for byte, a right picture of the test under another name is not used for calibration while another
    picture of the calibration split can take its place.
    """

    def __init__(
        self,
        *,
        images: Path,
        captions: Path,
        candidates: int,
        samples: int | None,
        calibration_samples: int,
        seed: int = 0,
        encoder: str | None = None,
        caption: CaptionChoice = "first",
        allow_outside: bool = False,
    ) -> None:
        """Reads the captions and looks for every picture; none is opened yet.

        Raises:
            DataError: the folder or the captions file is missing or unusable (`read_captioned_images`), there are too few
                pictures, or no embeddings by the encoder.
        """
        captioned = read_captioned_images(images, captions, allow_outside=allow_outside)
        self.captions = captioned.chosen(caption, seed)
        self.pictures = {name: Picture(path) for name, path in captioned.paths.items()}
        self._group_of = _groups(captioned.captions)
        several = any(len(captions) > 1 for captions in captioned.captions.values())
        # Embeddings are of the first captions, so they do not show which pictures share another caption.
        self._group_bits = _bits(self._group_of) if several else None
        self.candidates = candidates
        self.seed = seed
        self._where = shown(captions)
        self._notes = [absent_line(len(captioned.absent), len(captioned.paths), captioned.absent[0])] if captioned.absent else []
        self._pools = self._split(calibration_samples)
        self._embeddings: Embeddings | None = None
        if encoder is not None:
            # Imported here because listing tasks should not wait for numpy.
            from lad_eval.data.retrieval.embeddings import load_own

            self._embeddings = load_own(images, captioned.paths, captioned.first, encoder, captions_file=captions)
        self._questions: dict[Split, list[tuple[str, int]]] = {"test": self._rounds(self._pools["test"].anchors)}
        available = len(self._questions["test"])
        if samples is not None and samples > available:
            what = "captions" if caption == "all" else "images"
            raise DataError(
                f"{self._where}: {available} {what} are left for test samples, not {samples}; lower `samples:` or leave it out."
            )
        self._counts: dict[Split, int] = {"test": available if samples is None else samples, "calibration": calibration_samples}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits: ids, pictures' bytes, captions, answers."""
        return digest_of_samples(self)

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples in a fixed order.

        Raises:
            DataError: a picture cannot be read, or two files of a sample are the same picture.
        """
        pool = self._pools[split]
        for index, (anchor, turn) in enumerate(self._anchors(split)[:limit]):
            id_ = anchor if turn == 0 else f"{anchor}#{turn + 1}"
            generator = random.Random(f"folder-1/{self.seed}/{split}/{self.candidates}/{id_}")
            names = (
                self._draw(anchor, pool, generator)
                if self._embeddings is None
                else generator.sample(self._hard[anchor], self.candidates - 1)
            )
            names.insert(self._place(split, index), anchor)
            pictures = tuple(self.pictures[name] for name in names)
            with showing(id_):
                self._refuse_twins(pictures)
            yield Sample(id=id_, images=pictures, caption=self.captions[anchor][turn], gold=names.index(anchor), split=split)

    def notes(self) -> list[str]:
        """How many pictures of the captions file are missing."""
        return list(self._notes)

    def counts(self) -> dict[str, int]:
        """Nothing: every picture with a caption is used."""
        return {}

    def problems(self) -> list[str]:
        """Every picture that cannot be read, and every file that is the same picture as another."""
        lines = []
        seen: dict[str, Picture] = {}
        for picture in self.pictures.values():
            try:
                picture.load()
                twin = seen.setdefault(picture.digest, picture)
            except DataError as error:
                lines.append(str(error))
                continue
            if twin is not picture:
                lines.append(_twins(twin, picture))
        return lines

    def treatments(self) -> Iterator[Treatment]:
        """What decoding does to every picture."""
        return treatments_of(self.pictures.values())

    def _split(self, calibration: int) -> dict[Split, _Pool]:
        names = sorted(self.captions)
        random.Random(f"folder-1/{self.seed}").shuffle(names)
        if len(names) <= calibration:
            raise DataError(
                f"{self._where}: {len(names)} images are too few: calibration takes {calibration}, and none is left to test."
            )
        share = max(calibration, 2 * self.candidates)
        calibrating, rest = self._grouped(names[:share]), self._grouped(names[share:])
        if min(len(calibrating), len(rest)) >= self.candidates and len(names) - share >= share:
            spares = names[calibration:share]
            return {"calibration": _Pool(names[:calibration], calibrating, spares), "test": _Pool(names[share:], rest)}
        every = self._grouped(names)
        if len(every) < self.candidates:
            raise DataError(
                f"{self._where}: {len(names)} images with {len(every)} different captions are too few "
                f"for {self.candidates} candidates."
            )
        _LOG.warning(
            "%s: %d images are too few for separate calibration images; only the right answers are disjoint.",
            self._where,
            len(names),
        )
        return {"calibration": _Pool(names[:calibration], every), "test": _Pool(names[calibration:], every)}

    def _grouped(self, names: Sequence[str]) -> list[list[str]]:
        grouped: dict[int, list[str]] = {}
        for name in names:
            grouped.setdefault(self._group_of[name], []).append(name)
        return list(grouped.values())

    def _rounds(self, anchors: Sequence[str]) -> list[tuple[str, int]]:
        """Every anchor with the index of its first caption, then every anchor that has a second one with index 1, and so on."""
        longest = max((len(self.captions[name]) for name in anchors), default=0)
        return [(name, turn) for turn in range(longest) for name in anchors if turn < len(self.captions[name])]

    def _anchors(self, split: Split) -> list[tuple[str, int]]:
        """Anchors and indices of their captions, in the order of the samples; for calibration the first captions only."""
        if split == "test":
            return self._questions["test"][: self._counts["test"]]
        if "calibration" not in self._questions:
            self._questions["calibration"] = [(name, 0) for name in self._calibrated_on()]
        return self._questions["calibration"]

    def _calibrated_on(self) -> tuple[str, ...]:
        """Right pictures of calibration: if possible none that is in the test under another name."""
        pool = self._pools["calibration"]
        evaluated = {self._content(name) for name, _ in self._anchors("test")}
        candidates = (*pool.anchors, *pool.spares)
        count = self._counts["calibration"]
        return choose_distinct(candidates, lambda name: self._content(name) in evaluated, count).filled

    def _content(self, anchor: str) -> str:
        """Content digest of a right picture."""
        with showing(anchor):
            return self.pictures[anchor].content_digest

    def _draw(self, anchor: str, pool: _Pool, generator: random.Random) -> list[str]:
        """Names of N - 1 pictures that have no caption in common with the anchor or with each other."""
        drawn = generator.sample(pool.groups, self.candidates)
        group_shown = self._group_of[anchor]
        others = [group for group in drawn if self._group_of[group[0]] != group_shown][: self.candidates - 1]
        return [generator.choice(group) for group in others]

    @cached_property
    def _hard(self) -> dict[str, list[str]]:
        """Names of the N - 1 hardest negatives of every anchor."""
        from lad_eval.data.retrieval.mining import Miner

        assert self._embeddings is not None
        mine = Miner(self._embeddings.names, self._embeddings.images, self._embeddings.texts, self._group_bits, rule="identical")
        negatives: dict[str, list[str]] = {}
        for split in _SPLITS:
            anchors = list(dict.fromkeys(name for name, _ in self._anchors(split)))
            # One picture per group, so that the wrong candidates differ among themselves too.
            shown = [group[0] for group in self._pools[split].groups]
            try:
                mined = mine(anchors, shown, self.candidates - 1)
            except TooFewCandidatesError as error:
                if split == "test":
                    raise
                _LOG.warning("%s: calibration takes hard negatives from the test's images too. %s", self._where, error)
                mined = mine(anchors, sorted(self.captions), self.candidates - 1)
            negatives.update(zip(anchors, mined, strict=True))
        return negatives

    def _place(self, split: Split, index: int) -> int:
        """Position of the right answer: each position once in every N samples, so that recalls by position weigh the same."""
        block, turn = divmod(index, self.candidates)
        generator = random.Random(f"folder-1/{self.seed}/{split}/{self.candidates}/places/{block}")
        return generator.sample(range(self.candidates), self.candidates)[turn]

    def _refuse_twins(self, pictures: Sequence[Picture]) -> None:
        seen: dict[str, Picture] = {}
        for picture in pictures:
            if (twin := seen.setdefault(picture.digest, picture)) is not picture:
                raise DataError(_twins(twin, picture))


def _groups(captions: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """A number for every picture, equal for pictures that have a caption in common, directly or through others."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    with_caption: dict[str, str] = {}
    for name, texts in captions.items():
        for text in texts:
            parent[root(name)] = root(with_caption.setdefault(plain(text), name))
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(root(name), len(numbers)) for name in captions}


def _bits(numbers: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """The positions of the one bits of every number: sets that are equal where the numbers are."""
    return {name: frozenset(place for place in range(n.bit_length()) if n >> place & 1) for name, n in numbers.items()}


def _twins(a: Picture, b: Picture) -> str:
    return f"{shown(a.path)} and {shown(b.path)} are the same picture; remove one and its caption."
