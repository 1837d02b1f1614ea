"""Tasks of MMIU whose answers are images (arXiv 2408.02718): `source: mmiu`.

A row has its own question, and letters that name images by position: "B: the second image". Where that is all that the
text says about the order, the images can be shown in any: the text stays, "the first image" is the one shown first, so the
right letter moves with the right image. Where an option or a question says anything else, no row of the task is permuted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, StrictStr

from lad_eval.errors import DataError
from lad_eval.tasks.prompts import MAX_CANDIDATES, identifiers
from lad_eval.tasks.request import Sample, SampleSource, Split
from lad_eval.tasks.screen import plain
from lad_eval.tasks.sources.base import Picture, PublishedOptions, digest_of_samples
from lad_eval.tasks.sources.questions import RowsSource

if TYPE_CHECKING:
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
        words = plain(text)
        number = _image_of(words)
        if number is None or not 1 <= number <= n or number in by_image or letter in by_image.values():
            return None
        by_image[number] = letter
        exact = exact and _EXACT.fullmatch(words) is not None
    return Letters(tuple(by_image[number] for number in range(1, n + 1)), exact)


def refers_to_order(text: str) -> bool:
    """Whether a question names images by position other than by quoting the options, such as "more like the first image"."""
    return _SPEAKS_OF_ORDER.search(_QUOTED_OPTION.sub(" ", plain(text))) is not None


def _image_of(words: str) -> int | None:
    """1-based number of the image that an option's text names."""
    if match := _DIGITS.fullmatch(words):
        return int(match[1])
    match = _WORD.fullmatch(words)
    return _ORDINALS.get(match[1]) if match else None


Part = Literal["question", "context"]

# The end of every question in MMIU's own evaluation.
CLOSING = "Please answer the option directly like A,B,C,D..."


class MmiuOptions(PublishedOptions):
    """One of MMIU's tasks, and the columns that make up its question.

    Attributes:
        task: name in the data set.
        text: its columns that are shown, in this order, above the options.
    """

    task: StrictStr
    text: Annotated[tuple[Part, ...], Field(min_length=1, max_length=2)] = ("context", "question")

    @classmethod
    def known_revision(cls) -> str:
        from lad_eval.data.mmiu import REVISION

        return REVISION

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> SampleSource:
        root = self.folder_of("mmiu", setting, folder)
        return MmiuSource(
            root=root,
            task=self.task,
            text=self.text,
            candidates=candidates,
            calibration_samples=calibration_samples,
            seed=self.seed,
        )


class MmiuSource(RowsSource):
    """Rows of one task; `permutable` is False if a row's text fits the data's order only."""

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
        self._candidates = candidates
        super().__init__(
            f"MMIU in {root}, {task!r}",
            rows,
            self._sample_of,
            calibration_samples=calibration_samples,
            salt=f"mmiu-1/{seed}/{task}",
        )
        used = {sample.id for split in get_args(Split) for sample in self.samples(split)}
        self._fixed = [row for row in rows if _id(row) in used and self._refers_to_order(row)]
        self.permutable = not self._fixed

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits, and of whether they may be permuted."""
        return digest_of_samples(self, "mmiu-1", self.permutable)

    def notes(self) -> list[str]:
        """How many rows are left out and why, and why the task runs unpermuted if it does."""
        lines = super().notes()
        if self._fixed:
            many = f"{len(self._fixed)} rows refer" if len(self._fixed) > 1 else "1 row refers"
            lines.append(
                f"unpermuted, so consistency says nothing: {many} to the order other than by options such as 'the first image', "
                f"first {_id(self._fixed[0])}."
            )
        return lines

    def _sample_of(self, row: MmiuRow) -> Sample | str:
        """The row as a sample, whose caption is the whole question; or why it cannot be used."""
        from lad_eval.data.mmiu import place

        if row.output is None:
            return "no output"
        if len(row.images) != self._candidates:
            return f"not {self._candidates} images"
        letters = read_letters(row.options, self._candidates)
        if letters is None:
            return "the options do not name the images one by one"
        if row.output not in letters.names:
            return "the output is not a letter of the options"
        if not (question := self._shown(row)):
            return "no text"
        paths = [place(self._root, stored) for stored in row.images]
        if None in paths:
            return "an image's path leads out of the folder"
        return Sample(
            id=_id(row),
            images=tuple(Picture(path) for path in paths if path is not None),
            caption="\n".join((question, row.options.strip(), CLOSING)),
            gold=letters.names.index(row.output),
            identifiers=letters.names,
        )

    def _refers_to_order(self, row: MmiuRow) -> bool:
        letters = read_letters(row.options, self._candidates)
        return letters is None or not letters.exact or refers_to_order(self._shown(row))

    def _shown(self, row: MmiuRow) -> str:
        parts = {"question": row.question, "context": row.context}
        return "\n".join(text for part in self._text if (text := parts[part].strip()))


def _id(row: MmiuRow) -> str:
    return f"{row.task}_{row.number}"
