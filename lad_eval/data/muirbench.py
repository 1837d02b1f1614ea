"""MuirBench (arXiv 2406.09411): questions over 2 to 9 images, each with a twin that no option answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.data.dataset import DataFile
from lad_eval.data.hub import Repository, parquet_rows
from lad_eval.data.questions import QuestionRow, QuestionSet, Unpacked, letter

REPOSITORY = Repository("MUIRBENCH/MUIRBENCH", "4c393cffc985c77d28de3b9045e2e5186920df80")
PART = "muirbench"
NONE_OPTION = "None of the choices provided"

_FILES = tuple(f"data/test-{number:05}-of-00005.parquet" for number in range(5))
_COLUMNS = ("idx", "task", "image_relation", "question", "options", "answer", "image_list", "counterpart_idx")
_MARKER = "<image>"


@dataclass(frozen=True)
class PublishedSplit:
    """What is known of the test split.

    Attributes:
        images: of all rows together.
        unanswerable: rows whose right option is `NONE_OPTION`; each is the twin of another row.
        image_options: rows whose options are images, apart from `NONE_OPTION`.
        tasks: rows by task.
        options: rows by their number of options.
        relations: rows by `image_relation`, where the order of the images is content.
    """

    images: int
    unanswerable: int
    image_options: int
    tasks: Mapping[str, int]
    options: Mapping[int, int]
    relations: Mapping[str, int]

    @property
    def rows(self) -> int:
        return sum(self.tasks.values())


PUBLISHED = PublishedSplit(
    images=11_264,
    unanswerable=1_300,
    image_options=1_442,
    tasks={
        "Image-Text Matching": 464,
        "Diagram Understanding": 398,
        "Difference Spotting": 340,
        "Visual Retrieval": 292,
        "Counting": 234,
        "Attribute Similarity": 196,
        "Scene Understanding": 186,
        "Action Understanding": 164,
        "Geographic Understanding": 100,
        "Visual Grounding": 84,
        "Cartoon Understanding": 78,
        "Ordering": 64,
    },
    options={3: 308, 4: 1_256, 5: 1_036},
    relations={"Temporal": 216, "Ordered_Pages": 348, "Narrative": 78},
)


@dataclass(frozen=True)
class _MuirBench(QuestionSet):
    published: PublishedSplit = PUBLISHED

    def unpacked(self, root: Path, part: str) -> Iterator[Unpacked]:
        for file in self.files:
            for values in parquet_rows(root / file.path, _COLUMNS, "MuirBench's"):
                row = QuestionRow(
                    id=str(values["idx"]),
                    part=str(values["task"]),
                    question=str(values["question"] or ""),
                    options=tuple(map(str, values["options"] or ())),
                    answer=letter(str(values["answer"])),
                    images=(),
                    relation=str(values["image_relation"] or ""),
                    counterpart=str(values["counterpart_idx"] or ""),
                )
                yield Unpacked(row, tuple(image["bytes"] for image in values["image_list"] or ()))

    def faults(self, part: str, rows: Sequence[QuestionRow]) -> list[str]:
        known = self.published
        relations = Counter(row.relation for row in rows)
        compared: list[tuple[str, object, object]] = [
            ("rows", len(rows), known.rows),
            ("images", sum(len(row.images) for row in rows), known.images),
            ("rows without an answer", sum(map(unanswerable, rows)), known.unanswerable),
            ("rows with images as options", sum(map(has_image_options, rows)), known.image_options),
            ("rows by task", dict(Counter(row.part for row in rows)), dict(known.tasks)),
            ("rows by number of options", dict(Counter(len(row.options) for row in rows)), dict(known.options)),
            ("rows by relation", {name: relations[name] for name in known.relations}, dict(known.relations)),
        ]
        differences = [
            f"{what}: {_shown(there)}, not {_shown(expected)}" for what, there, expected in compared if there != expected
        ]
        return differences + [fault for fault in (_twins(rows), _markers(rows)) if fault]

    def rows_of(self, part: str) -> int:
        return self.published.rows


def unanswerable(row: QuestionRow) -> bool:
    """Whether the right option says that none is right."""
    index = ord(row.answer) - ord("A") if len(row.answer) == 1 else -1
    return 0 <= index < len(row.options) and row.options[index].strip() == NONE_OPTION


def has_image_options(row: QuestionRow) -> bool:
    """Whether every option but `NONE_OPTION` is a marker."""
    texts = [text.strip() for text in row.options if text.strip() != NONE_OPTION]
    return bool(texts) and all(text == _MARKER for text in texts)


def _twins(rows: Sequence[QuestionRow]) -> str:
    by_id = {row.id: row for row in rows}
    for row in rows:
        twin = by_id.get(row.counterpart)
        if twin is None or twin.counterpart != row.id or unanswerable(twin) == unanswerable(row):
            return f"row {row.id} has no twin that differs in being answerable"
    return ""


def _markers(rows: Sequence[QuestionRow]) -> str:
    for row in rows:
        markers = sum(text.count(_MARKER) for text in (row.question, *row.options))
        if markers != len(row.images):
            return f"row {row.id} has {markers} markers for {len(row.images)} images"
    return ""


def _shown(value: object) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(value.items())) if isinstance(value, dict) else str(value)


MUIRBENCH = _MuirBench(
    name="muirbench",
    title="MuirBench",
    homepage="https://muirbench.github.io",
    licence="CC BY 4.0 (the questions; pictures under the terms of their sources)",
    files=tuple(
        DataFile(path, REPOSITORY.url(path), "a fifth of the questions, with their pictures", "CC BY 4.0") for path in _FILES
    ),
    revision=REPOSITORY.revision,
    repository=REPOSITORY,
    parts=(PART,),
)
