"""Multiple-choice questions over several images, with the images inside Parquet files: unpacked once, with an index of the rows.

`ROOT/pictures/PART/ROW_K.jpg` are the images, `ROOT/lad_eval/PART.json` the rows; an index is written last, after every count
that is known of the published data has been compared.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from lad_eval.data.dataset import Advance, DataSet, PrepareOptions, Progress, Status
from lad_eval.data.hub import Repository
from lad_eval.data.pictures import picture_faults
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.files.atomic import sweep, write_atomically
from lad_eval.files.documents import read_json, write_json

_FORM = 1
_SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp"}


@dataclass(frozen=True)
class QuestionRow:
    """A row of the data.

    Attributes:
        id: as the data has it.
        part: config or task that it belongs to.
        question: its text, with markers `<image>` where the data has them.
        prompt: the whole question with its options as the data words it; empty if the data has none.
        options: their texts, in the order of the letters A, B, ...
        answer: the letter of the right option.
        images: paths below the data set's root, in the data's order.
        relation: what the data says about the images.
        counterpart: id of the row that belongs to it, if the data has pairs.
    """

    id: str
    part: str
    question: str
    options: tuple[str, ...]
    answer: str
    images: tuple[str, ...]
    prompt: str = ""
    relation: str = ""
    counterpart: str = ""


class Unpacked(NamedTuple):
    """A row, and the bytes of its images."""

    row: QuestionRow
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class QuestionSet(DataSet):
    """A data set of such questions.

    Attributes:
        repository: on the hub.
        parts: of which an index is made, in this order.
    """

    repository: Repository = field(kw_only=True)
    parts: tuple[str, ...] = field(kw_only=True)

    @abstractmethod
    def unpacked(self, root: Path, part: str) -> Iterator[Unpacked]:
        """The rows of a part, with their images' bytes."""

    @abstractmethod
    def faults(self, part: str, rows: Sequence[QuestionRow]) -> list[str]:
        """How the rows of a part differ from what is published, one line each."""

    def check_files(self, root: Path) -> None:
        """Refuses files that are known to be wrong; called before anything is unpacked."""

    def prepare(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        if all(index_of(root, part).is_file() for part in self.parts):
            return
        for file in self.files:
            if file.required or (root / file.path).is_file():
                self.repository.obtain(file, root, options, progress)
        self.check_files(root)
        for part in self.parts:
            if not index_of(root, part).is_file():
                self._unpack(root, part, progress)

    def _unpack(self, root: Path, part: str, progress: Progress) -> None:
        """Writes the images that are not there yet, compares the counts, and writes the index."""
        folder = root / "pictures" / part
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            rows = []
            with progress(f"unpacking {part}", self.rows_of(part), unit="rows") as advance:
                rows = [self._placed(root, folder, each, advance) for each in self._rows(root, part)]
            if faults := self.faults(part, rows):
                raise DataError(f"{self.title}, {part}: not as published: {'; '.join(faults)}.")
            index_of(root, part).parent.mkdir(exist_ok=True)
            document = {"form": _FORM, "revision": self.revision, "rows": [asdict(row) for row in rows]}
            write_json(index_of(root, part), document)
        except OSError as error:
            raise DataError(f"{error.filename or folder}: cannot be written: {error.strerror or error}.") from None

    def _rows(self, root: Path, part: str) -> Iterator[Unpacked]:
        """The rows of a part; a file whose columns hold something else than they should is refused."""
        number = 0
        try:
            for number, each in enumerate(self.unpacked(root, part), start=1):  # noqa: B007 read where the next row fails
                yield _with_pictures(each)
        except (TypeError, AttributeError, KeyError) as error:
            raise DataError(
                f"{self.title}, {part}: near row {number or 1}, its Parquet file holds something else than a question with its "
                "pictures; remove the file, so that it can be fetched again."
            ) from error

    @abstractmethod
    def rows_of(self, part: str) -> int:
        """How many rows a part should have."""

    def _placed(self, root: Path, folder: Path, each: Unpacked, advance: Advance) -> QuestionRow:
        paths = []
        for number, content in enumerate(each.images):
            name = "".join(c if c.isalnum() or c in "-_" else "_" for c in each.row.id)
            suffix = next((suffix for start, suffix in _SUFFIXES.items() if content.startswith(start)), "img")
            path = folder / f"{name}_{number + 1}.{suffix}"
            if not path.is_file() or path.stat().st_size != len(content):
                write_atomically(path, lambda temporary, content=content: temporary.write_bytes(content))  # type: ignore[misc]
            paths.append(path.relative_to(root).as_posix())
        advance(1)
        return replace(each.row, images=tuple(paths))

    def verify(self, root: Path, progress: Progress) -> list[str]:
        problems: list[str] = []
        for part in self.parts:
            try:
                rows = read_rows(self, root, part)
            except DataError as error:
                problems.append(str(error))
                continue
            problems += [f"{part}: {fault}." for fault in self.faults(part, rows)]
            with progress(f"reading the pictures of {part}", len(rows), unit="rows") as advance:
                for row in rows:
                    problems += [fault for image in row.images for fault in picture_faults(root / image)]
                    advance(1)
        return problems

    def status(self, root: Path) -> Status:
        there = {part: index_of(root, part).is_file() for part in self.parts}
        lines = [f"{part}: {'unpacked' if done else 'not unpacked'}" for part, done in there.items()]
        if not all(there.values()):
            lines += [
                f"{file.path}: {'there' if (root / file.path).is_file() else f'missing; it comes from {file.url}'}"
                for file in self.files
                if file.required
            ]
        return Status(all(there.values()), tuple(lines))


def _with_pictures(each: Unpacked) -> Unpacked:
    if not all(isinstance(content, bytes) for content in each.images):
        raise TypeError("a picture is no bytes")
    return each


def index_of(root: Path, part: str) -> Path:
    """The file that lists the rows of a part."""
    return root / "lad_eval" / f"{part}.json"


def read_rows(dataset: QuestionSet, root: Path, part: str) -> list[QuestionRow]:
    """The rows of a part that was prepared.

    Raises:
        DataError: there is no such part, or its index is damaged.
        NotPreparedError: it was not prepared.
    """
    if part not in dataset.parts:
        raise DataError(f"{dataset.title} has no part {part!r}; there are {', '.join(dataset.parts)}.")
    path = index_of(root, part)
    if not path.is_file():
        command = f"lad-eval data prepare {dataset.name} --root {root}"
        raise NotPreparedError(f"{path} is missing;", command)
    document = read_json(path, error=DataError)
    try:
        if document["form"] != _FORM or document["revision"] != dataset.revision:
            raise DataError(
                f"{path} is of another version of lad_eval or of the data; remove it and prepare {dataset.name} again."
            )
        return [_row(values) for values in document["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); remove it, prepare {dataset.name} again.") from None


def _row(values: Mapping[str, Any]) -> QuestionRow:
    return QuestionRow(**{**values, "options": tuple(values["options"]), "images": tuple(values["images"])})


def letter(text: str) -> str:
    """A letter without its parentheses: "(A)" is A."""
    return text.strip().strip("()").strip()
