"""A baseline: what a model answered to every sample of some tasks, and what it was asked, in a file that a person can diff."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.errors import UserError
from lad_eval.evidence import Ints
from lad_eval.metrics import UNPARSABLE, Grid, accuracy, consistency
from lad_eval.run.folder import read_json, write_atomically

NONE = "-"
"""Stands for a reply in which no answer was found."""

_LINES_DOWN_TO = 4  # below this depth a value has one line: a line a sample
_GOLD = "gold"


class BaselineError(UserError):
    """A baseline that cannot be read, or does not fit what it is used for."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Renewal(_Strict):
    """When the baseline was written, from what, and why."""

    date: str
    reason: str = Field(min_length=1)
    lad_eval: str
    commit: str | None


class Asked(_Strict):
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


class Figures(_Strict):
    """Figures of one method, in points; for people, as everything can be computed from the answers."""

    accuracy: float
    consistency: float
    unparsable: int


class TaskBaseline(_Strict):
    """One task's part of a baseline.

    Attributes:
        task: as it was named: a name, or the path of a YAML file.
        limit: how many samples were asked; None: all.
        candidates: N.
        orders: the T displayed orders, if all samples share them.
        fingerprint: what determined the model's evidence.
        evidence: SHA-256 of the stored evidence, by the names of its files; empty if none is kept.
        figures: by method.
        answers: by sample: {"gold": image, method: "image image ..."}, an image an order, `-` for no answer.
    """

    task: str
    limit: int | None
    candidates: int = Field(ge=2)
    asked: Asked
    orders: tuple[str, ...] = ()
    fingerprint: dict[str, Any]
    evidence: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, Figures] = Field(min_length=1)
    answers: dict[str, dict[str, int | str]] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> TaskBaseline:
        names = {_GOLD, *self.figures}
        for sample, answer in self.answers.items():
            if answer.keys() != names:
                raise ValueError(f"sample {sample!r} has {', '.join(sorted(answer))}, not {', '.join(sorted(names))}")
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
            ValueError: the answers are no images, or not equally many a sample.
        """
        words = [str(answer[method]).split() for answer in self.answers.values()]
        if len({len(row) for row in words}) != 1:
            raise ValueError(f"the answers of {method} are not equally many for all samples")
        chosen = np.asarray([[UNPARSABLE if word == NONE else int(word) for word in row] for row in words], dtype=np.int64)
        if not ((chosen >= UNPARSABLE) & (chosen < self.candidates)).all():
            raise ValueError(f"the answers of {method} must lie in 0..{self.candidates - 1}")
        return chosen


class Baseline(_Strict):
    """The whole file.

    Attributes:
        model: as it was named.
        options: of the model: dtype, attention implementation, ..., as keyword arguments of `Settings`.
        renewals: the newest last.
        tasks: by name.
    """

    format: Literal[1] = 1
    renewals: tuple[Renewal, ...] = Field(min_length=1)
    model: str
    options: dict[str, Any]
    tasks: dict[str, TaskBaseline] = Field(min_length=1)


def answers_of(grids: Mapping[str, Grid]) -> dict[str, dict[str, int | str]]:
    """Grids by method, all of the same samples, as `TaskBaseline.answers`."""
    first = next(iter(grids.values()))
    gold = gold_images(first)
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


def figures_of(grid: Grid) -> Figures:
    """The figures that stand beside the answers."""
    return Figures(
        accuracy=round(accuracy(grid.correct), 2),
        consistency=round(consistency(grid.chosen), 2),
        unparsable=int((grid.predicted == UNPARSABLE).sum()),
    )


def gold_images(grid: Grid) -> Ints:
    """Int[S], the image that is right; the same under all orders."""
    found: Ints = np.take_along_axis(grid.perm[:, 0], grid.gold[:, :1], axis=1)[:, 0]
    return found


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
        raise BaselineError(f"There is no baseline {path}; --write makes one, with --model, --tasks and --reason.")
    try:
        return Baseline.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BaselineError(
            f"{path} is damaged: {where}: {first['msg'].removeprefix('Value error, ')}; restore it or --write it anew."
        ) from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes the file, whole or not at all; a line a sample."""
    text = _text(baseline.model_dump(mode="json"), 0) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


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
