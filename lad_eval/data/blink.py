"""BLINK (arXiv 2404.12390): the configs whose answers are images, from the val split of its data set on the hub.

The answers of the test split are not published. Until 3 September 2025 about nine in ten answers of Relative_Reflectance were
wrong (issue 13 of the authors' repository); a copy of that time is recognised by them and refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lad_eval.data.dataset import DataFile
from lad_eval.data.hub import Repository, parquet_rows
from lad_eval.data.questions import QuestionRow, QuestionSet, Unpacked, letter
from lad_eval.errors import DataError

REPOSITORY = Repository("BLINK-Benchmark/BLINK", "a3666eb249237ba3d5eca8db21176cc47967e040")
PARTS = ("Forensic_Detection", "Art_Style", "Jigsaw", "Visual_Similarity")
ERRATUM = "Relative_Reflectance"
WRONG_ANSWERS = {"A": 40, "B": 42, "C": 52}
"""How often each letter was the answer in the file with the wrong answers."""

_IMAGES = tuple(f"image_{number}" for number in range(1, 5))
_COLUMNS = ("idx", "question", "choices", "answer", "prompt", *_IMAGES)


class PublishedConfig(NamedTuple):
    """What is known of a config's val split.

    Attributes:
        rows: in all.
        images: of each row.
        answers: how often each letter is the answer.
    """

    rows: int
    images: int
    answers: Mapping[str, int]


PUBLISHED = {
    "Forensic_Detection": PublishedConfig(132, 4, {"A": 33, "B": 35, "C": 34, "D": 30}),
    "Art_Style": PublishedConfig(117, 3, {"A": 55, "B": 62}),
    "Jigsaw": PublishedConfig(150, 3, {"A": 79, "B": 71}),
    "Visual_Similarity": PublishedConfig(135, 3, {"A": 64, "B": 71}),
}


@dataclass(frozen=True)
class _Blink(QuestionSet):
    published: Mapping[str, PublishedConfig] = field(default_factory=lambda: PUBLISHED)
    erratum_rows: int = 134
    wrong_answers: Mapping[str, int] = field(default_factory=lambda: WRONG_ANSWERS)

    def check_files(self, root: Path) -> None:
        path = root / _path(ERRATUM)
        answers = Counter(letter(str(row["answer"])) for row in parquet_rows(path, ["answer"], f"BLINK's {ERRATUM}"))
        if answers == self.wrong_answers:
            raise DataError(
                f"{path} has the answers of before 3 September 2025, most of which are wrong; remove this copy of BLINK, so that "
                f"revision {self.revision} can be fetched."
            )
        if answers.total() != self.erratum_rows:
            raise DataError(f"{path}: {answers.total()} rows, not {self.erratum_rows} as published.")

    def unpacked(self, root: Path, part: str) -> Iterator[Unpacked]:
        for values in parquet_rows(root / _path(part), _COLUMNS, f"BLINK's {part}"):
            row = QuestionRow(
                id=str(values["idx"]),
                part=part,
                question=str(values["question"] or ""),
                options=tuple(map(str, values["choices"] or ())),
                answer=letter(str(values["answer"])),
                images=(),
                prompt=str(values["prompt"] or ""),
            )
            yield Unpacked(row, tuple(values[name]["bytes"] for name in _IMAGES if values[name] is not None))

    def faults(self, part: str, rows: Sequence[QuestionRow]) -> list[str]:
        expected, answers = self.published[part], Counter(row.answer for row in rows)
        images = Counter(len(row.images) for row in rows)
        differences = [] if len(rows) == expected.rows else [f"{len(rows)} rows, not {expected.rows}"]
        if set(images) != {expected.images}:
            differences.append(f"rows of {', '.join(map(str, sorted(images)))} images, not {expected.images}")
        if answers != expected.answers:
            differences.append(f"answers {_counts(answers)}, not {_counts(expected.answers)}")
        return differences

    def rows_of(self, part: str) -> int:
        return self.published[part].rows


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts))


def _path(config: str) -> str:
    return f"{config}/val-00000-of-00001.parquet"


def _file(config: str, purpose: str) -> DataFile:
    return DataFile(_path(config), REPOSITORY.url(_path(config)), purpose, "Apache-2.0")


BLINK = _Blink(
    name="blink",
    title="BLINK",
    homepage="https://zeyofu.github.io/blink",
    licence="Apache-2.0 (as its data set says; pictures under the terms of their sources)",
    files=(
        _file(ERRATUM, "which shows whether the copy has the corrected answers"),
        *(_file(part, "questions, answers and pictures of a task") for part in PARTS),
    ),
    revision=REPOSITORY.revision,
    repository=REPOSITORY,
    parts=PARTS,
)
