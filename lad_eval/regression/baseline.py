"""A baseline: a model's answers to every sample of some tasks, and what determines the questions, in a diffable file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.errors import UserError
from lad_eval.evidence.table import Ints
from lad_eval.files.atomic import sweep, write_text
from lad_eval.files.documents import read_json
from lad_eval.metrics import UNPARSABLE, Grid, accuracy, consistency
from lad_eval.models.base import ImagePreparation

NONE = "-"
"""Marks a reply without an answer."""

_LINES_DOWN_TO = 4  # below this depth a value has one line: one line per sample
_GOLD = "gold"


class BaselineError(UserError):
    """A baseline that cannot be read, or does not fit what it is used for."""


class _BaselinePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Renewal(_BaselinePart):
    """When the baseline was written, from what, and why."""

    date: str
    reason: str = Field(min_length=1)
    lad_eval: str
    commit: str | None


class QuestionDigests(_BaselinePart):
    """What determines the questions of a task; none of it may change while `version` stays.

    Attributes:
        version: of the task's definition.
        definition: digest of the definition.
        data: digest of the data's content.
        prompt: the question's text with its {caption} open.
        requests: digest of the keys of all requests: texts, pictures, orders, calibration.
    """

    version: int
    definition: str
    data: str
    prompt: str
    requests: str


class BaselineFigures(_BaselinePart):
    """Metrics of one method, in points; for people to read, since all can be computed from the answers."""

    accuracy: float
    consistency: float
    unparsable: int


class TaskBaseline(_BaselinePart):
    """One task's part of a baseline.

    Attributes:
        task: as given: a name, or the path of a YAML file.
        limit: how many samples were run; None: all.
        candidates: N.
        orders: the T displayed orders, if all samples share them.
        fingerprint: what determined the model's evidence.
        evidence: SHA-256 of the stored evidence, by the names of its files; empty if none is kept.
        figures: by method.
        answers: by sample: {"gold": image, method: "image image ..."}, one image per order, `-` for no answer.
    """

    task: str
    limit: Annotated[int, Field(ge=1, le=2**53)] | None
    candidates: int = Field(ge=2, le=2**20)
    asked: QuestionDigests
    orders: tuple[str, ...] = ()
    fingerprint: dict[str, Any]
    evidence: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, BaselineFigures] = Field(min_length=1)
    answers: dict[str, dict[str, int | str]] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> TaskBaseline:
        names = {_GOLD, *self.figures}
        for sample, answer in self.answers.items():
            if answer.keys() != names:
                raise ValueError(f"sample {sample!r} has {', '.join(sorted(answer))}, not {', '.join(sorted(names))}")
        gold = [answer[_GOLD] for answer in self.answers.values()]
        if not all(isinstance(image, int) and 0 <= image < self.candidates for image in gold):
            raise ValueError(f"{_GOLD} must be an image, one of 0..{self.candidates - 1}")
        for method in self.figures:
            self.chosen(method)
        return self

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.figures)

    @property
    def samples(self) -> list[str]:
        return list(self.answers)

    @property
    def gold(self) -> Ints:
        """Int[S], images."""
        return np.asarray([answer[_GOLD] for answer in self.answers.values()], dtype=np.int64)

    def chosen(self, method: str) -> Ints:
        """Int[S, T], images or UNPARSABLE.

        Raises:
            ValueError: the answers are not images, or their number differs between samples.
        """
        words = [str(answer[method]).split() for answer in self.answers.values()]
        if len({len(row) for row in words}) != 1:
            raise ValueError(f"the answers of {method} are not equally many for all samples")
        images = [[UNPARSABLE if word == NONE else int(word) for word in row] for row in words]
        if not all(UNPARSABLE <= image < self.candidates for row in images for image in row):
            raise ValueError(f"the answers of {method} must lie in 0..{self.candidates - 1}")
        return np.asarray(images, dtype=np.int64)


class Options(_BaselinePart):
    """How the model of a baseline is loaded; fields of `Settings`.

    A file must not enable code that comes with a model: `trust_remote_code` can only be false here, and true only on the command
    line.
    """

    dtype: Literal["auto", "float32", "float16", "bfloat16"] | None = None
    attn: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_|.-]{1,100}$")
    revision: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_./-]{1,200}$")
    adapter: str | None = Field(default=None, min_length=1, max_length=4096)
    image_preparation: ImagePreparation | None = None
    trust_remote_code: Literal[False] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=2**63)] | None = None

    def settings(self) -> dict[str, Any]:
        """The options that the file sets."""
        return {name: value for name, value in self if value is not None}


class Baseline(_BaselinePart):
    """The whole file.

    Attributes:
        model: as it was named.
        options: of the model.
        renewals: the newest last.
        tasks: by name.
    """

    format: Literal[1] = 1
    renewals: tuple[Renewal, ...] = Field(min_length=1)
    model: str
    options: Options
    tasks: dict[str, TaskBaseline] = Field(min_length=1)


def answers_of(grids: Mapping[str, Grid]) -> dict[str, dict[str, int | str]]:
    """Grids by method, all of the same samples, as `TaskBaseline.answers`."""
    first = next(iter(grids.values()))
    gold = first.gold_image
    return {
        sample: {
            _GOLD: int(gold[row]),
            **{
                name: " ".join(NONE if i == UNPARSABLE else str(i) for i in grid.chosen[row].tolist())
                for name, grid in grids.items()
            },
        }
        for row, sample in enumerate(first.sample_id.tolist())
    }


def figures_of(grid: Grid) -> BaselineFigures:
    """The figures that are stored with the answers."""
    return BaselineFigures(
        accuracy=round(accuracy(grid.correct), 2),
        consistency=round(consistency(grid.chosen), 2),
        unparsable=int((grid.predicted == UNPARSABLE).sum()),
    )


def shared_orders(grid: Grid) -> tuple[str, ...]:
    """The T displayed orders, if all samples have the same; else none."""
    if not (grid.perm == grid.perm[:1]).all():
        return ()
    return tuple(" ".join(map(str, order)) for order in grid.perm[0].tolist())


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file.

    Raises:
        BaselineError: it is missing or damaged; one line that says where.
    """
    if not path.is_file():
        raise BaselineError(
            f"There is no baseline {path}; make one: "
            f'`lad-eval check {path} --write --reason "..." --model <folder or hub id> --tasks ...`.'
        )
    again = f'`lad-eval check {path} --write --reason "..." --model <folder or hub id> --tasks ...`'
    cure = f"Restore it from version control, or move it away and write a new one: {again}."
    try:
        return Baseline.model_validate(read_json(path, what="the baseline", cure=cure, error=BaselineError))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden" and first["loc"][0] == "options":
            known = ", ".join(Options.model_fields)
            raise BaselineError(f"{path}: {where} is not an option of a baseline; there are {known}.") from error
        if first["loc"][:2] == ("options", "trust_remote_code"):
            raise BaselineError(
                f"{path}: trust_remote_code is not an option of a baseline: a file must not enable code that comes with a "
                f"model. Remove it, and pass --trust-remote-code if you trust the model."
            ) from error
        raise BaselineError(f"{path} is damaged: {where}: {first['msg'].removeprefix('Value error, ')}. {cure}") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes the file atomically; one line per sample."""
    text = _text({**baseline.model_dump(mode="json"), "options": baseline.options.settings()}, 0) + "\n"
    sweep(path.parent, path.name)
    write_text(path, text)


def _text(value: Any, depth: int) -> str:
    if isinstance(value, dict) and value and depth < _LINES_DOWN_TO:
        inner = [f"{' ' * (depth + 1)}{_short(key)}: {_text(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict) and depth < _LINES_DOWN_TO:
        inner = [" " * (depth + 1) + _text(item, _LINES_DOWN_TO) for item in value]
        return "[\n" + ",\n".join(inner) + "\n" + " " * depth + "]"
    return _short(value)


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
