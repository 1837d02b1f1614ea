"""Tasks of MMIU whose answers are images (arXiv 2408.02718): `source: mmiu`.

A row has its own question, and letters that name images by position: "B: the second image". Where that is all that the
text says about the order, the images can be shown in any: the text stays, "the first image" is the one shown first, so the
right letter moves with the right image. Where an option or a question says anything else, no row of the task is permuted.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StrictInt, StrictStr, field_validator

from lad_eval.errors import DataError
from lad_eval.tasks.leakage import choose_distinct
from lad_eval.tasks.prompts import MAX_CANDIDATES, identifiers
from lad_eval.tasks.request import Sample, SampleSource, Split
from lad_eval.tasks.sources.base import Picture, SourceOptions, digest_of_samples, treatments_of

if TYPE_CHECKING:
    from lad_eval.data.decoding import Treatment
    from lad_eval.data.mmiu import MmiuRow


_ORDINALS = {name: number for number, name in enumerate(identifiers("first..", MAX_CANDIDATES), start=1)}
_OPTION = re.compile(r"\s*([A-Z])\s*[:.)]\s*(.*)")
_THING = r"(?:image|picture|photo|photograph)"
_EXACT = re.compile(r"the ([a-z-]+) image")
_WORD = re.compile(rf"(?:the )?([a-z-]+)(?: {_THING})?")
_DIGITS = re.compile(rf"(?:the )?(?:{_THING} ?)?[#(]?(\d+)(?:st|nd|rd|th)?\)?(?: {_THING})?")
_SPEAKS_OF_ORDER = re.compile(
    rf"\b(?:{'|'.join(map(re.escape, _ORDINALS))}|last|previous|next|\d+(?:st|nd|rd|th)) {_THING}s?\b|\b{_THING} ?#?\d+\b"
)
_QUOTED_OPTION = re.compile(r"\b[a-z] ?[:.)] ?the [a-z-]+ image\b")


@dataclass(frozen=True)
class Letters:
    """The options of a question about N images.

    Attributes:
        names: the letter of every position, the first image's first.
        exact: whether every option is exactly an ordinal, "the first image", ignoring case, spaces and a final full stop.
    """

    names: tuple[str, ...]
    exact: bool


def read_letters(options: str, n: int) -> Letters | None:
    """The options in a text, one per line; None unless they name the N images one by one."""
    by_image: dict[int, str] = {}
    exact = True
    pairs = [match.groups() for line in options.splitlines() if (match := _OPTION.fullmatch(line))]
    if len(pairs) != n or len(pairs) != sum(bool(line.strip()) for line in options.splitlines()):
        return None
    for letter, text in pairs:
        plain = _plain(text)
        number = _image_of(plain)
        if number is None or not 1 <= number <= n or number in by_image or letter in by_image.values():
            return None
        by_image[number] = letter
        exact = exact and _EXACT.fullmatch(plain) is not None
    return Letters(tuple(by_image[number] for number in range(1, n + 1)), exact)


def refers_to_order(text: str) -> bool:
    """Whether a question names images by position other than by quoting the options, such as "more like the first image"."""
    return _SPEAKS_OF_ORDER.search(_QUOTED_OPTION.sub(" ", _plain(text))) is not None


def _image_of(plain: str) -> int | None:
    """1-based number of the image that an option's text names."""
    if match := _DIGITS.fullmatch(plain):
        return int(match[1])
    match = _WORD.fullmatch(plain)
    return _ORDINALS.get(match[1]) if match else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


Part = Literal["question", "context"]

# The end of every question in MMIU's own evaluation.
CLOSING = "Please answer the option directly like A,B,C,D..."

_SPLITS: tuple[Split, ...] = ("test", "calibration")


class MmiuOptions(SourceOptions):
    """One of MMIU's tasks, and the columns that make up its question.

    Attributes:
        task: name in the data set.
        text: its columns that are shown, in this order, above the options.
        revision: of the hub data set; only the one that this package knows.
        root: folder of the data set; None: where `lad-eval data prepare mmiu` put it.
        seed: of the random choice of calibration rows.
    """

    task: StrictStr
    text: Annotated[tuple[Part, ...], Field(min_length=1, max_length=2)] = ("context", "question")
    revision: StrictStr
    root: StrictStr | None = None
    seed: StrictInt = 0

    @field_validator("revision")
    @classmethod
    def _known_revision(cls, revision: str) -> str:
        from lad_eval.data.mmiu import REVISION

        if revision != REVISION:
            raise ValueError(f"unknown revision {revision!r}; this version of lad_eval knows {REVISION}")
        return revision

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> SampleSource:
        from lad_eval.data.dataset import root_of

        if setting != "given":
            raise DataError(f"The source 'mmiu' has the setting 'given' only, not {setting!r}.")
        root = root_of("mmiu") if self.root is None else folder / Path(self.root).expanduser()
        return MmiuSource(
            root=root,
            task=self.task,
            text=self.text,
            candidates=candidates,
            calibration_samples=calibration_samples,
            seed=self.seed,
        )


@dataclass(frozen=True)
class _Question:
    """A row that can be used."""

    row: MmiuRow
    letters: Letters
    images: tuple[Picture, ...]
    gold: int


class MmiuSource:
    """Rows of one task, except those that cannot be used; these are counted by reason and never guessed.

    Calibration rows are drawn with the seed, if possible among those whose right picture is not another row's right picture; the
    others are the test rows, in the data's order. `permutable` is False if a row's text fits the data's order only.
    """

    def __init__(
        self, *, root: Path, task: str, text: Sequence[Part], candidates: int, calibration_samples: int, seed: int = 0
    ) -> None:
        """Reads the rows, and the bytes of every image.

        Raises:
            DataError: no data, no such task, or too few usable rows.
        """
        from lad_eval.data.mmiu import read_rows

        rows = read_rows(root, {task})
        if not rows:
            known = ", ".join(sorted({row.task for row in read_rows(root)}))
            raise DataError(f"MMIU in {root} has no rows of a task {task!r}; it has {known}.")
        self.task = task
        self._text = tuple(text)
        self._root = root
        self._rows = len(rows)
        self._left_out: Counter[str] = Counter()
        usable = [k for row in rows if (k := self._usable(row, candidates)) is not None]
        if len(usable) <= calibration_samples:
            raise DataError(
                f"MMIU in {root}: {len(usable)} of {len(rows)} rows of {task!r} can be used, too few: calibration takes "
                f"{calibration_samples}{self._why()}"
            )
        self._fixed = [k.row for k in usable if not k.letters.exact or refers_to_order(self._shown(k.row))]
        self.permutable = not self._fixed
        learned = self._drawn(usable, calibration_samples, seed)
        self._questions: dict[Split, list[_Question]] = {
            "test": [k for index, k in enumerate(usable) if index not in learned],
            "calibration": [k for index, k in enumerate(usable) if index in learned],
        }

    def _drawn(self, usable: Sequence[_Question], count: int, seed: int) -> set[int]:
        """Indices of random calibration rows; rows that share their right picture with another row are replaced."""
        right = [k.images[k.gold].content_digest for k in usable]
        often = Counter(right)
        drawn = random.Random(f"mmiu-1/{seed}/{self.task}").sample(range(len(usable)), count)
        rest = sorted(set(range(len(usable))) - set(drawn))
        random.Random(f"mmiu-1/{seed}/{self.task}/instead").shuffle(rest)
        return set(choose_distinct([*drawn, *rest], lambda index: often[right[index]] > 1, count).filled)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits, and of whether they may be permuted."""
        return digest_of_samples(self, "mmiu-1", self.permutable)

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples in a fixed order; the caption is the whole question. `limit` only shortens the list."""
        for usable in self._questions[split][:limit]:
            row = usable.row
            yield Sample(
                id=f"{row.task}_{row.number}",
                images=usable.images,
                caption="\n".join((self._shown(row), row.options.strip(), CLOSING)),
                gold=usable.gold,
                split=split,
                identifiers=usable.letters.names,
            )

    def notes(self) -> list[str]:
        """How many rows are left out and why, and why the task runs unpermuted if it does."""
        lines = []
        if out := self._left_out.total():
            lines.append(f"{out} of {self._rows} rows left out{self._why()}")
        if self._fixed:
            first = self._fixed[0]
            many = f"{len(self._fixed)} rows refer" if len(self._fixed) > 1 else "1 row refers"
            lines.append(
                f"unpermuted, so consistency says nothing: {many} to the order other than by options such as 'the first image', "
                f"first {first.task}_{first.number}."
            )
        return lines

    def counts(self) -> dict[str, int]:
        """Rows in all, rows by split, and rows left out by reason."""
        counted = {"rows": self._rows}
        counted.update({split: len(self._questions[split]) for split in _SPLITS})
        counted.update({f"left out: {reason}": count for reason, count in self._left_out.items()})
        return counted

    def problems(self) -> list[str]:
        """Every image of the used rows that cannot be decoded."""
        return [fault for picture in self._pictures() for fault in picture.faults()]

    def treatments(self) -> Iterator[Treatment]:
        """What decoding does to every image of the used rows."""
        return treatments_of(self._pictures())

    def _pictures(self) -> list[Picture]:
        """The images of the used rows, each once."""
        return list(dict.fromkeys(p for split in _SPLITS for usable in self._questions[split] for p in usable.images))

    def _usable(self, row: MmiuRow, candidates: int) -> _Question | None:
        """The row as a question; None, with the reason counted, if it cannot be used."""
        reason, usable = self._reason(row, candidates)
        if usable is None:
            self._left_out[reason] += 1
        return usable

    def _reason(self, row: MmiuRow, candidates: int) -> tuple[str, _Question | None]:
        from lad_eval.data.mmiu import place

        if row.output is None:
            return "no output", None
        if len(row.images) != candidates:
            return f"not {candidates} images", None
        letters = read_letters(row.options, candidates)
        if letters is None:
            return "the options do not name the images one by one", None
        if row.output not in letters.names:
            return "the output is not a letter of the options", None
        if not self._shown(row):
            return "no text", None
        paths = [place(self._root, stored) for stored in row.images]
        if None in paths:
            return "an image's path leads out of the folder", None
        pictures = tuple(Picture(path) for path in paths if path is not None and path.is_file())
        if len(pictures) < candidates:
            return "an image is missing", None
        try:
            digests = {picture.digest for picture in pictures}
        except DataError:
            return "an image cannot be read", None
        if len(digests) < candidates:
            return "one picture is shown twice", None
        return "", _Question(row, letters, pictures, letters.names.index(row.output))

    def _shown(self, row: MmiuRow) -> str:
        parts = {"question": row.question, "context": row.context}
        return "\n".join(text for part in self._text if (text := parts[part].strip()))

    def _why(self) -> str:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self._left_out.most_common())
        return f": {reasons}." if reasons else "."
