"""A folder of pictures and a captions file, made into N-way retrieval: which of N pictures does the caption describe?

A task on pictures of one's own, beside a folder `photos`:

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import StrictInt, StrictStr

from lad_eval.data.protocols import DEFAULT_ENCODER, SETTINGS, TooFewCandidatesError, plain
from lad_eval.errors import DataError
from lad_eval.tasks.files import did_you_mean, shown
from lad_eval.tasks.sample import Sample, Split
from lad_eval.tasks.sources.base import SourceOptions, digest_of_samples
from lad_eval.tasks.sources.captions import read_captions
from lad_eval.tasks.sources.picture import Picture

if TYPE_CHECKING:
    from lad_eval.data.embeddings import Embeddings

_LOG = logging.getLogger(__name__)
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_SPLITS: tuple[Split, ...] = ("test", "calibration")


class FolderOptions(SourceOptions):
    """Where the pictures and their captions lie (relative to the YAML file), and the seed of the draw.

    Attributes:
        images: folder of the pictures.
        captions: captions file.
        seed: of the shuffle, the wrong candidates of the random setting, and the places.
        encoder: CLIP or SigLIP model that chooses the wrong candidates of the adversarial setting.
    """

    images: StrictStr
    captions: StrictStr
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
        )


@dataclass(frozen=True)
class _Pool:
    """Anchors, and the pictures (by caption) from which the wrong candidates are drawn."""

    anchors: Sequence[str]
    by_caption: dict[str, list[str]]


class FolderSource:
    """N-way samples of single pictures with captions.

    Every picture is the right answer of at most one sample. The names are shuffled once with the seed; the first make the
    calibration, the rest the test. Where there are enough, calibration has pictures of its own, max(calibration samples, 2 N),
    none of which is shown in a test sample; else only the right answers are disjoint, and a warning says so. The wrong
    candidates differ from the right one and from each other in their captions (upper case, spaces and a final point aside).
    With an encoder they are the pictures most like the right one among those whose captions are not (`data.mining`), else they
    are drawn. The right answer stands at every place once in every N samples. Every sample is drawn with a generator of its own,
    so that a limit only shortens the list.
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
    ) -> None:
        """Reads the captions and looks for every picture; none is opened yet.

        Raises:
            DataError: folder, captions file or a picture is missing, a caption is missing, there are too few pictures, or no
                embeddings by the encoder.
        """
        if not images.is_dir():
            near = did_you_mean(images.name, (p.name for p in images.parent.glob("*") if p.is_dir()))
            raise DataError(f"{shown(images)}: no such folder of images.{near}")
        self.captions = read_captions(captions)
        self.pictures = {name: Picture(images / name) for name in self.captions}
        if missing := [picture for picture in self.pictures.values() if not picture.path.is_file()]:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"{shown(missing[0].path)}: no such image{more}, but {shown(captions)} has a caption for it.")
        strangers = [p.name for p in images.iterdir() if p.suffix.lower() in _PICTURES and p.name not in self.pictures]
        if strangers:
            _LOG.warning("%s: %d images without a caption are left out, as %s.", shown(images), len(strangers), min(strangers))
        self.candidates = candidates
        self.seed = seed
        self._where = shown(captions)
        self._pools = self._split(calibration_samples)
        self._embeddings: Embeddings | None = None
        if encoder is not None:
            # These need numpy, for which listing tasks should not wait.
            from lad_eval.data.embeddings_own import load_own

            self._embeddings = load_own(images, self.captions, encoder, captions_file=captions)
        found = len(self._pools["test"].anchors)
        if samples is not None and samples > found:
            raise DataError(
                f"{self._where}: {found} images are left for test samples, not {samples}; lower `samples:` or leave it out."
            )
        self._counts: dict[Split, int] = {"test": found if samples is None else samples, "calibration": calibration_samples}

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
        count = self._counts[split] if limit is None else min(limit, self._counts[split])
        for index, anchor in enumerate(pool.anchors[:count]):
            generator = random.Random(f"folder-1/{self.seed}/{split}/{self.candidates}/{anchor}")
            names = (
                self._draw(anchor, pool, generator)
                if self._embeddings is None
                else generator.sample(self._hard[anchor], self.candidates - 1)
            )
            names.insert(self._place(split, index), anchor)
            pictures = tuple(self.pictures[name] for name in names)
            self._refuse_twins(pictures)
            yield Sample(id=anchor, images=pictures, caption=self.captions[anchor], gold=names.index(anchor), split=split)

    def problems(self) -> list[str]:
        """Every picture that cannot be read, and every file that is the same picture as another."""
        found = []
        seen: dict[str, Picture] = {}
        for picture in self.pictures.values():
            try:
                picture.load()
                twin = seen.setdefault(picture.digest, picture)
            except DataError as error:
                found.append(str(error))
                continue
            if twin is not picture:
                found.append(_twins(twin, picture))
        return found

    def _split(self, calibration: int) -> dict[Split, _Pool]:
        names = sorted(self.captions)
        random.Random(f"folder-1/{self.seed}").shuffle(names)
        if len(names) <= calibration:
            raise DataError(
                f"{self._where}: {len(names)} images are too few: calibration takes {calibration}, and none is left to test."
            )
        own = max(calibration, 2 * self.candidates)
        kept, rest = self._by_caption(names[:own]), self._by_caption(names[own:])
        if min(len(kept), len(rest)) >= self.candidates and len(names) - own >= own:
            return {"calibration": _Pool(names[:calibration], kept), "test": _Pool(names[own:], rest)}
        every = self._by_caption(names)
        if len(every) < self.candidates:
            raise DataError(
                f"{self._where}: {len(names)} images with {len(every)} different captions are too few "
                f"for {self.candidates} candidates."
            )
        _LOG.warning(
            "%s: %d images are too few to keep those of calibration apart; only the right answers are disjoint.",
            self._where,
            len(names),
        )
        return {"calibration": _Pool(names[:calibration], every), "test": _Pool(names[calibration:], every)}

    def _by_caption(self, names: Sequence[str]) -> dict[str, list[str]]:
        grouped: dict[str, list[str]] = {}
        for name in names:
            grouped.setdefault(plain(self.captions[name]), []).append(name)
        return grouped

    def _draw(self, anchor: str, pool: _Pool, generator: random.Random) -> list[str]:
        """Names of N - 1 pictures whose captions differ from the anchor's and from each other."""
        drawn = generator.sample(list(pool.by_caption), self.candidates)
        others = [caption for caption in drawn if caption != plain(self.captions[anchor])][: self.candidates - 1]
        return [generator.choice(pool.by_caption[caption]) for caption in others]

    @cached_property
    def _hard(self) -> dict[str, list[str]]:
        """Names of the N - 1 hardest negatives of every anchor."""
        from lad_eval.data.mining import Miner

        assert self._embeddings is not None
        mine = Miner(self._embeddings.names, self._embeddings.images, self._embeddings.texts)
        found: dict[str, list[str]] = {}
        for split in _SPLITS:
            pool = self._pools[split]
            anchors = pool.anchors[: self._counts[split]]
            # One picture a caption, so that the wrong candidates differ among themselves too.
            shown = [names[0] for names in pool.by_caption.values()]
            try:
                mined = mine(anchors, shown, self.candidates - 1)
            except TooFewCandidatesError as error:
                if split == "test":
                    raise
                _LOG.warning("%s: calibration takes hard negatives from the test's images too. %s", self._where, error)
                mined = mine(anchors, sorted(self.captions), self.candidates - 1)
            found.update(zip(anchors, mined, strict=True))
        return found

    def _place(self, split: Split, index: int) -> int:
        """Where the right answer stands: at every place once in every N samples, so that recalls by place weigh the same."""
        block, turn = divmod(index, self.candidates)
        generator = random.Random(f"folder-1/{self.seed}/{split}/{self.candidates}/places/{block}")
        return generator.sample(range(self.candidates), self.candidates)[turn]

    def _refuse_twins(self, pictures: Sequence[Picture]) -> None:
        seen: dict[str, Picture] = {}
        for picture in pictures:
            if (twin := seen.setdefault(picture.digest, picture)) is not picture:
                raise DataError(_twins(twin, picture))


def _twins(a: Picture, b: Picture) -> str:
    return f"{shown(a.path)} and {shown(b.path)} are the same picture; remove one and its caption."
