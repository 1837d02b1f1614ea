"""MMIU (arXiv 2408.02718): a Parquet file of questions and seven zips of pictures, as in its data set on the hub."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lad_eval.data.archives import differences, top_folders, unpack
from lad_eval.data.dataset import DataFile, DataSet, PrepareOptions, Progress, Status
from lad_eval.data.download import fetch, missing
from lad_eval.data.hub import Repository, parquet_rows
from lad_eval.data.pictures import picture_faults
from lad_eval.errors import DataError

REPOSITORY = "FanqingM/MMIU-Benchmark"
REVISION = "03bf7d143d920e97a757f606b6b7baee161b019b"
HUB = Repository(REPOSITORY, REVISION)
QUESTIONS = "all.parquet"
PUBLISHED_ROWS = 11_698
# The hub's names of the tasks that this package defines; each has its pictures in its own folder below one archive's.
TASKS = (
    "forensic_detection_forgerynet",
    "forensic_detection_blink",
    "visual_quality_assessment_ve_lol_l",
    "emotion_recognition_expw",
    "emotion_recognition_findingemo",
    "text2image_retrieval",
)
NEEDED = ("Low-level-semantic", "High-level-sub-semantic", "High-level-obj-semantic")
OTHERS = ("Discrete-temporal", "Continuous-temporal", "2D-spatial", "3D-spatial")

_COLUMNS = ("task", "options", "question", "context", "input_image_path", "output")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MmiuRow:
    """A question of the Parquet file; `number` counts the rows of its task from 0."""

    task: str
    number: int
    question: str
    context: str
    options: str
    images: tuple[str, ...]
    output: str | None


def read_rows(root: Path, tasks: Collection[str] | None = None) -> list[MmiuRow]:
    """The rows of some tasks, or of all, in the file's order.

    Raises:
        DataError: the file is missing, damaged, or lacks a column.
    """
    path = root / QUESTIONS
    if not path.is_file():
        raise missing(MMIU.files[0], root)
    rows: list[MmiuRow] = []
    numbers: dict[str, int] = {}
    for values in parquet_rows(path, _COLUMNS, f"MMIU's {QUESTIONS}"):
        task = str(values["task"])
        number = numbers[task] = numbers.get(task, -1) + 1
        if tasks is None or task in tasks:
            rows.append(_row(task, number, values))
    return rows


def place(root: Path, stored: str) -> Path | None:
    """The file of an image by its path in the Parquet file, `./Low-level-semantic/...`; None if it leads out of the folder."""
    parts = PurePosixPath(stored)
    if not stored.strip() or parts.is_absolute() or ".." in parts.parts or "\\" in stored:
        return None
    return root / parts


def _row(task: str, number: int, values: Mapping[str, Any]) -> MmiuRow:
    output = values["output"]
    return MmiuRow(
        task=task,
        number=number,
        question=str(values["question"] or ""),
        context=str(values["context"] or ""),
        options=str(values["options"] or ""),
        images=tuple(map(str, values["input_image_path"] or ())),
        # Some tools write a missing value as a word or as a NaN.
        output=None if output is None or str(output).strip().lower() in ("", "none", "nan") else str(output).strip(),
    )


@dataclass(frozen=True)
class _Mmiu(DataSet):
    def prepare(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        HUB.obtain(self.files[0], root, options, progress)
        rows = read_rows(root, TASKS)
        if lacking := [task for task in TASKS if not any(row.task == task for row in rows)]:
            _LOG.warning("%s has no row of %s.", root / QUESTIONS, ", ".join(lacking))
        for file in self.files[1:]:
            self._pictures(file, root, rows, options, progress)
        if not any(_present(root, row) for row in rows):
            raise DataError(
                f"{root}: no row of {QUESTIONS} has its images there; they belong in folders as {root / NEEDED[0] / TASKS[0]}."
            )

    def _pictures(self, file: DataFile, root: Path, rows: Sequence[MmiuRow], options: PrepareOptions, progress: Progress) -> None:
        """Unpacks an archive that is there, or is in the hub's cache; fetches it only for pictures that are missing."""
        there = root / file.path
        archive = there if there.is_file() else self._missing_archive(file, root, rows, options, progress)
        if archive is not None and (count := unpack(archive, _folder(archive, root), progress)):
            _LOG.info("%s: %d pictures unpacked.", archive.name, count)

    def _missing_archive(
        self, file: DataFile, root: Path, rows: Sequence[MmiuRow], options: PrepareOptions, progress: Progress
    ) -> Path | None:
        """Downloads a missing archive; None if it is not needed, or if some of its pictures are there and the network is not."""
        folder = file.path.removesuffix(".zip")
        named = {path for row in rows for path in row.images if PurePosixPath(path).parts[:1] == (folder,)}
        lacking = sorted(path for path in named if not _all_there(root, [path]))
        if not lacking:
            return None
        cached = HUB.cached(file.path)
        if cached is not None or options.download:
            return cached or fetch(file, root, progress)
        first = PurePosixPath(lacking[0])
        if len(lacking) == len(named):
            raise missing(file, root, f", and so {len(lacking)} pictures, as {first}")
        _LOG.warning(
            "%s: %d of %d pictures are missing, as %s; rows that show them are left out. They are in %s.",
            *(root / folder, len(lacking), len(named), first.name, file.url),
        )
        return None

    def verify(self, root: Path, progress: Progress) -> list[str]:
        try:
            rows = read_rows(root)
        except DataError as error:
            return [str(error)]
        faults = []
        if len(rows) != PUBLISHED_ROWS:
            faults.append(f"{root / QUESTIONS}: {len(rows)} rows, not {PUBLISHED_ROWS} as published.")
        evaluated = [row for row in rows if row.task in TASKS]
        faults += [f"{root / QUESTIONS}: {row.task} row {row.number} has no output." for row in evaluated if row.output is None]
        for file in self.files[1:]:
            if (root / file.path).is_file():
                faults += differences(root / file.path, _folder(root / file.path, root), progress)
        stored = sorted({path for row in evaluated for path in row.images})
        with progress("reading the pictures", len(stored), unit="pictures") as advance:
            for path in stored:
                faults += _picture_faults(root, path)
                advance(1)
        return faults

    def status(self, root: Path) -> Status:
        lines = [line for file in self.files if (line := _file_line(file, root))]
        try:
            rows = read_rows(root, TASKS)
        except DataError as error:
            return Status(False, (*lines, str(error)) if (root / QUESTIONS).is_file() else tuple(lines))
        ready = all(any(_present(root, row) for row in rows if row.task == task) for task in TASKS)
        return Status(ready, (*lines, *_tasks(root, rows)))


def _folder(archive: Path, root: Path) -> Path:
    """Where an archive is unpacked: a folder named by its stem, unless its members begin with that already."""
    return root if top_folders(archive) == {archive.stem} else root / archive.stem


def _all_there(root: Path, stored: Iterable[str]) -> bool:
    return all((path := place(root, each)) is not None and path.is_file() for each in stored)


def _present(root: Path, row: MmiuRow) -> bool:
    return bool(row.images) and _all_there(root, row.images)


def _tasks(root: Path, rows: Sequence[MmiuRow]) -> list[str]:
    """One line per task: its rows, and how many lack something."""
    lines = []
    for task in TASKS:
        of_task = [row for row in rows if row.task == task]
        lacking = sum(not _present(root, row) for row in of_task)
        mute = sum(row.output is None for row in of_task)
        pictures = f"{lacking} with missing images" if lacking else "all images there"
        lines.append(f"{task}: {len(of_task)} rows, {pictures}" + (f", {mute} without output" if mute else ""))
    return lines


def _file_line(file: DataFile, root: Path) -> str | None:
    """State of a file; None for one that is missing and not needed."""
    if (root / file.path).is_file():
        return f"{file.path}: there"
    folder = file.path.removesuffix(".zip")
    if folder != file.path and (root / folder).is_dir():
        return f"{file.path}: unpacked to {folder}/"
    return f"{file.path}: missing ({file.purpose}); it comes from {file.url}" if file.required else None


def _picture_faults(root: Path, stored: str) -> list[str]:
    path = place(root, stored)
    return picture_faults(path) if path is not None else [f"{root / QUESTIONS}: the image {stored!r} leads out of the folder."]


def _files() -> Iterator[DataFile]:
    licence = "CC BY 4.0 (the questions; pictures under the terms of their sources)"
    yield DataFile(QUESTIONS, HUB.url(QUESTIONS), "questions, options and answers of all tasks", licence)
    for stem in (*NEEDED, *OTHERS):
        needed = stem in NEEDED
        yield DataFile(
            f"{stem}.zip",
            HUB.url(f"{stem}.zip"),
            "pictures of the tasks in this package" if needed else "pictures of tasks that this package does not define",
            licence,
            required=needed,
            manual=f"Or unpack it yourself into {stem}/.",
        )


MMIU = _Mmiu(
    name="mmiu",
    title="MMIU: Multimodal Multi-image Understanding",
    homepage="https://mmiu-bench.github.io",
    licence="CC BY 4.0 (the questions; pictures under the terms of their sources)",
    files=tuple(_files()),
    revision=REVISION,
)
