"""Tasks of BLINK whose answers are images (arXiv 2404.12390): `source: blink`.

An option names an image by its place: "(B) the third image". The question and its options stay as they are when images change
places; the right letter moves with the right image. An image that no option names is a reference and keeps its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import StrictStr

from lad_eval.tasks.prompts import identifiers
from lad_eval.tasks.request import Sample, SampleSource
from lad_eval.tasks.screen import names_a_movable_place, screen
from lad_eval.tasks.sources.base import Picture, PublishedOptions
from lad_eval.tasks.sources.questions import RowsSource

if TYPE_CHECKING:
    from lad_eval.data.questions import QuestionRow


class BlinkOptions(PublishedOptions):
    """One of BLINK's configs.

    Attributes:
        task: name of the config.
    """

    task: StrictStr

    @classmethod
    def known_revision(cls) -> str:
        from lad_eval.data.blink import REPOSITORY

        return REPOSITORY.revision

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> SampleSource:
        from lad_eval.data.blink import BLINK
        from lad_eval.data.questions import read_rows

        root = self.folder_of("blink", setting, folder)
        rows = read_rows(BLINK, root, self.task)

        def sample_of(row: QuestionRow) -> Sample | str:
            return image_choice(row, root, candidates)

        salt = f"blink-1/{self.seed}/{self.task}"
        return RowsSource(f"BLINK, {self.task}", rows, sample_of, calibration_samples=calibration_samples, salt=salt)


def image_choice(row: QuestionRow, root: Path, candidates: int) -> Sample | str:
    """A row whose options name images, as a sample with the data's own text; or why it is none."""
    screened = screen(row.question, row.options, len(row.images), row.relation)
    options = [option for option in screened.options if isinstance(option, int)]
    if len(options) != len(row.options):
        return "the options do not name the images one by one"
    if len(options) != candidates:
        return f"not {candidates} options"
    if reason := screened.bound.images or screened.bound.options:
        return reason
    movable = sorted(options)
    if names_a_movable_place(row.question, movable):
        return "the question names an image by its place"
    letters = dict(zip(options, identifiers("A..", candidates), strict=True))
    if row.answer not in letters.values():
        return "the answer is not a letter of the options"
    if not row.prompt.strip():
        return "no text"
    names = tuple(letters[image] for image in movable)
    fixed = tuple(image for image in range(len(row.images)) if image not in movable)
    return Sample(
        id=row.id,
        images=tuple(Picture(root / image) for image in row.images),
        caption=row.prompt.strip(),
        gold=names.index(row.answer),
        identifiers=names,
        options=tuple(movable) if fixed else None,
        fixed=fixed,
    )
