"""The tasks as a data set of VLMEvalKit: one row per sample and displayed order. Imports VLMEvalKit."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from lad_eval.data.pictures import picture_facts
from lad_eval.errors import PictureError, UnknownNameError, UserError
from lad_eval.files.atomic import sweep, write_atomically
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.vlmevalkit.names import dataset_name, stem
from lad_eval.plugins.vlmevalkit.scores import Score, score, write_scores
from lad_eval.run.folder.files import slug
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Request, showing
from lad_eval.tasks.task import Task
from lad_eval.version import __version__

if TYPE_CHECKING:
    from lad_eval.tasks.request import ImageSource

    Base = Any
else:
    Base = kit("vlmeval.dataset").ImageBaseDataset

_READABLE = {".jpg", ".jpeg", ".png", ".webp"}


class Pictures:
    """The file of each image: its own file if every reader gets the same pixels from it, otherwise a PNG named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sweep(folder)
        self._paths: dict[str, Path] = {}

    def path(self, image: ImageSource) -> Path:
        """The image's file, which may not be written yet."""
        if image.digest not in self._paths:
            path_of = getattr(image, "path", None)
            as_decoded = isinstance(path_of, Path) and path_of.suffix.lower() in _READABLE and _is_as_decoded(path_of)
            named = hashlib.sha256(image.digest.encode()).hexdigest()[:32]
            self._paths[image.digest] = path_of.resolve() if path_of is not None and as_decoded else self.folder / f"{named}.png"
        return self._paths[image.digest]

    def write(self, image: ImageSource) -> Path:
        """The image's file, written if it is missing.

        Raises:
            DataError: the image cannot be read.
        """
        path = self.path(image)
        if not path.is_file():
            picture = image.load()
            write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))
        return path


def _is_as_decoded(path: Path) -> bool:
    """Whether the file's pixels are what `ImageSource.load` gives: RGB, unchanged."""
    try:
        header = picture_facts(path).header
    except PictureError:
        return False
    return header.mode == "RGB" and not header.treatments


logger = logging.getLogger(__name__)

Message = list[dict[str, str]]


class LADDataset(Base):  # type: ignore[misc]  # VLMEvalKit has no types
    """A task of lad_eval.

    The rows' `index` is a digest of the question, of the task's definition and data, and of lad_eval's version: VLMEvalKit
    resumes from any result file of the same name, and answers to other questions must not count.

    Attributes:
        tasks: data set name -> task name or YAML path.
        opened: tasks that are already open, since VLMEvalKit creates the data set again for every model.
        task: the task, its data opened.
        requests: the row's index -> request, in the order of the rows.
        permutation: the row's index -> number of the displayed order.
        data: columns index, g_index (sample), perm_id, perm, image_path, question, caption, identifiers, answer, split.
    """

    TYPE = "Retrieval"
    MODALITY = "IMAGE"
    DEFAULT_JUDGE = "exact_matching"
    force_use_dataset_prompt = True
    tasks: ClassVar[dict[str, str]] = {}
    opened: ClassVar[dict[str, Task]] = {}

    task: Task
    requests: Mapping[str, Request]
    permutation: Mapping[str, int]

    # VLMEvalKit overwrites arguments that share a name with its flags (limit, mode, config, ...); none here does.
    def __init__(self, dataset: str = "ScenesRetrieval_Random_N4", skip_noimg: bool = True) -> None:
        super().__init__(dataset if dataset in self.tasks else dataset_name(stem(dataset)), skip_noimg)

    @classmethod
    def supported_datasets(cls) -> list[str]:
        """Names that VLMEvalKit's `--data` takes."""
        return list(cls.tasks)

    def load_data(self, dataset: str) -> pd.DataFrame:
        """The rows, sample by sample.

        Raises:
            UserError: the data is missing, unreadable or too small.
        """
        if dataset not in self.tasks:
            raise UnknownNameError("task", dataset, self.tasks)
        name = self.tasks[dataset]
        self.task = self.opened[name] if name in self.opened else load_task(name)
        planned = plan(self.task)
        for note in getattr(planned, "notes", ()):
            logger.warning("%s", note)
        by_key = {request.key: request for request in planned.requests}
        self._pictures = Pictures(Path(self.img_root).parent / slug(f"lad_eval {self.task.name}"))
        made = digest_of(self.task)
        self.requests = {row_index(made, by_key[key]): by_key[key] for key in planned.evaluated}
        self.permutation = dict(zip(self.requests, planned.permutation_index, strict=True))
        rows = [self._row(index, request) for index, request in self.requests.items()]
        self._by_content = {self._content(row["image_path"], row["question"]): row["index"] for row in rows}
        table: pd.DataFrame = pd.DataFrame(rows)
        return table

    def build_prompt(self, line: Any) -> Message:
        """The images in displayed order, then the question."""
        row = self.data.iloc[line] if isinstance(line, int) else line
        return self.message(self.requests[str(row["index"])])

    def message(self, request: Request) -> Message:
        """A request as a VLMEvalKit message; missing image files are written."""
        with showing(request.sample_id):
            images = [{"type": "image", "value": str(self._pictures.write(image))} for image in request.images]
        return [*images, {"type": "text", "value": request.question}]

    def dump_image(self, line: Any) -> list[str]:
        """Paths of a row's images, written where they are missing."""
        return [part["value"] for part in self.message(self.requests[str(line["index"])]) if part["type"] == "image"]

    def request_of(self, message: list[dict[str, Any]]) -> Request:
        """The request behind a message of `build_prompt`.

        Raises:
            UserError: it does not belong to this data set.
        """
        images = [str(part["value"]) for part in message if part["type"] == "image"]
        text = "".join(str(part["value"]) for part in message if part["type"] == "text")
        index = self._by_content.get(self._content(images, text))
        if index is None:
            raise UserError(f"The question is not one of {self.dataset_name}; lad_eval's models answer its tasks unchanged.")
        return self.requests[index]

    def share(self, rank: int, processes: int) -> list[Request]:
        """The requests that VLMEvalKit gives to one of several processes, in its order."""
        return [self.requests[str(index)] for index in self.data["index"].iloc[rank::processes]]

    def evaluate(self, eval_file: str, **judge_kwargs: Any) -> pd.DataFrame:
        """The metrics of a prediction file as a table of one row; no judge model is used.

        `<file>_acc.csv` (VLMEvalKit's score table) is written next to the file, and for our models their evidence.

        Raises:
            UserError: the file cannot be read or answers other questions.
        """
        measured: Score = score(self.requests, self.permutation, eval_file)
        for warning in measured.warnings:
            logger.warning("%s", warning)
        write_scores(eval_file, self.dataset_name, measured)
        table: pd.DataFrame = measured.table
        return table

    def _row(self, index: str, request: Request) -> dict[str, Any]:
        return {
            "index": index,
            "g_index": request.sample_id,
            "perm_id": self.permutation[index],
            "perm": " ".join(map(str, request.permutation.order)),
            "image_path": [str(self._pictures.path(image)) for image in request.images],
            "question": request.question,
            "identifiers": " ".join(request.identifiers),
            "answer": request.identifiers[request.gold_position],
            "split": request.split,
        }

    @staticmethod
    def _content(images: list[str], text: str) -> str:
        return "\0".join([*images, text])


def digest_of(task: Task) -> str:
    """Hex digest of what determines a task's answers besides the model: definition, data, lad_eval's version."""
    other = [] if task.other is None else sorted(task.other.fingerprint.items())
    definition = repr([sorted(task.fingerprint.items()), other, __version__])
    return hashlib.sha256(definition.encode()).hexdigest()


def row_index(made: str, request: Request) -> str:
    """A row's index; it begins with a letter, since tables turn digits (and digits with an e) into numbers."""
    return "q" + hashlib.sha256(f"{made}{request.key}".encode()).hexdigest()[:16]
