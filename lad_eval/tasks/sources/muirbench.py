"""Tasks of MuirBench (arXiv 2406.09411): `source: muirbench`.

The data's markers for images become "image 1", "image 2", ..., numbered through question and options; all images stand before the
question. Rows differ in their number of options, so a task takes the rows of one number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StrictStr

from lad_eval.errors import DataError
from lad_eval.tasks.request import Option, Sample, SampleSource
from lad_eval.tasks.screen import MARKER, Screened, names_a_movable_place, screen
from lad_eval.tasks.sources.base import Picture, PublishedOptions
from lad_eval.tasks.sources.questions import RowsSource

if TYPE_CHECKING:
    from lad_eval.data.questions import QuestionRow

Answers = Literal["texts", "choices", "images"]


class MuirBenchOptions(PublishedOptions):
    """Which rows, and what their options are.

    Attributes:
        answers: `texts`: rows whose options are texts, as published. `choices`: rows whose options are images, with "None of the
            choices provided" as published. `images`: the answerable ones of these, without that option; another task than the
            published one.
        tasks: only rows of these tasks of the data; None: all.
    """

    answers: Answers
    tasks: Annotated[tuple[StrictStr, ...], Field(min_length=1)] | None = None

    @classmethod
    def known_revision(cls) -> str:
        from lad_eval.data.muirbench import REPOSITORY

        return REPOSITORY.revision

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> SampleSource:
        from lad_eval.data.muirbench import MUIRBENCH, PART
        from lad_eval.data.questions import read_rows

        root = self.folder_of("muirbench", setting, folder)
        rows = read_rows(MUIRBENCH, root, PART)
        known = sorted({row.part for row in rows})
        if unknown := [name for name in self.tasks or () if name not in known]:
            raise DataError(f"MuirBench has no task {unknown[0]!r}; it has {', '.join(known)}.")
        sample = _MADE[self.answers]
        return RowsSource(
            f"MuirBench, {self.answers}",
            [row for row in rows if self.tasks is None or row.part in self.tasks],
            lambda row: sample(row, root, candidates),
            calibration_samples=calibration_samples,
            salt=f"muirbench-1/{self.seed}",
        )


def _texts(row: QuestionRow, root: Path, candidates: int) -> Sample | str:
    screened = screen(row.question, row.options, len(row.images), row.relation)
    if any(isinstance(option, int) for option in screened.options):
        return "the options are images"
    if len(row.options) != candidates:
        return f"not {candidates} options"
    options = tuple(_numbered(row)[1:])
    return _sample(row, root, options, _gold(row), screened)


def _choices(row: QuestionRow, root: Path, candidates: int) -> Sample | str:
    screened = screen(row.question, row.options, len(row.images), row.relation)
    images = sorted(option for option in screened.options if isinstance(option, int))
    if not images:
        return "the options are texts"
    if len(row.options) != candidates:
        return f"not {candidates} options"
    if reason := _reason(row, images, screened):
        return reason
    # In the data's order images stand by their places; an option is the same one under any letter.
    ascending = iter(images)
    options = tuple(option if isinstance(option, str) else next(ascending) for option in screened.options)
    right = _gold(row)
    gold = None if right is None else options.index(screened.options[right])
    return _sample(row, root, options, gold, screened)


def _images(row: QuestionRow, root: Path, candidates: int) -> Sample | str:
    screened = screen(row.question, row.options, len(row.images), row.relation)
    images = tuple(sorted(option for option in screened.options if isinstance(option, int)))
    if not images:
        return "the options are texts"
    right = _gold(row)
    if right is not None and isinstance(screened.options[right], str):
        return "no image answers it"
    if len(images) != candidates:
        return f"not {candidates} images to choose from"
    if reason := _reason(row, images, screened):
        return reason
    gold = next((place for place, image in enumerate(images) if right is not None and image == screened.options[right]), None)
    return _sample(row, root, images, gold, screened)


_MADE: dict[Answers, Callable[[QuestionRow, Path, int], Sample | str]] = {"texts": _texts, "choices": _choices, "images": _images}


def _reason(row: QuestionRow, images: list[int] | tuple[int, ...], screened: Screened) -> str:
    """Why images that are options cannot change places; empty if they can."""
    if reason := screened.bound.images or screened.bound.options:
        return reason
    return "the question names an image by its place" if names_a_movable_place(row.question, images) else ""


def _sample(row: QuestionRow, root: Path, options: tuple[Option, ...], gold: int | None, screened: Screened) -> Sample | str:
    if gold is None:
        return "the answer is not a letter of the options"
    movable = [option for option in options if isinstance(option, int)]
    return Sample(
        id=row.id,
        images=tuple(Picture(root / image) for image in row.images),
        caption=_numbered(row)[0].strip(),
        gold=gold,
        options=options,
        fixed=tuple(image for image in range(len(row.images)) if image not in movable) if movable else (),
        bound=screened.bound,
        # A row and its twin ask the same of other images, and so depend on each other.
        cluster=min(row.id, row.counterpart),
    )


def _gold(row: QuestionRow) -> int | None:
    """The index of the right option."""
    index = ord(row.answer) - ord("A") if len(row.answer) == 1 else -1
    return index if 0 <= index < len(row.options) else None


def _numbered(row: QuestionRow) -> list[str]:
    """The question and the options, each marker replaced by the image's number."""
    number = 0

    def name(_: re.Match[str]) -> str:
        nonlocal number
        number += 1
        return f"image {number}"

    texts = (re.sub(rf"{MARKER}(?={MARKER})", f"{MARKER} ", text) for text in (row.question, *row.options))
    return [re.sub(MARKER, name, text) for text in texts]
