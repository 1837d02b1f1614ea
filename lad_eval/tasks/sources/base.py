"""What a source of samples brings: options that are validated, and the way from them to samples."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict

from lad_eval.data.decoding import Treatment
from lad_eval.tasks.sample import Source, Split, showing


class SourceOptions(BaseModel, ABC):
    """The keys of a task's `data:` for one kind of source; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> Source:
        """The source itself.

        Args:
            setting: the task's setting.
            candidates: N, images a sample.
            samples: test samples asked for; None: all there are.
            calibration_samples: calibration samples that the task will ask for.
            folder: where the task's YAML file lies; relative paths in the options start there.

        Raises:
            DataError: data is missing, unreadable or too little; a setting that the source does not know.
        """


@runtime_checkable
class Checkable(Protocol):
    """A source that can look through all its data, as `lad-eval validate` wants it."""

    def problems(self) -> list[str]:
        """Every fault in the data, one line each."""


@runtime_checkable
class Illustrated(Protocol):
    """A source of picture files, of which `lad-eval validate` counts what decoding does to them."""

    def treatments(self) -> Iterable[Treatment]:
        """What is done to each picture that can be read, one after the other; a picture may have several."""


@runtime_checkable
class Noted(Protocol):
    """A source with something to tell that tables and `metrics.json` show beside the figures."""

    def notes(self) -> list[str]:
        """One line each, as "unpermuted: the options are not the ordinals"."""

    def counts(self) -> dict[str, int]:
        """Rows of the data by what became of them, as {"rows": 132, "left out: no output": 2}."""


def digest_of_samples(source: Source, *also: Any) -> str:
    """SHA-256 hex digest, 32 characters, of every sample of both splits: ids, pictures, captions, answers, identifiers.

    Args:
        source: whose samples.
        also: plain JSON values that determine the requests beside the samples.
    """
    total = hashlib.sha256(json.dumps(also).encode() if also else b"")
    for split in get_args(Split):
        for s in source.samples(split):
            with showing(s.id):
                content = [split, s.id, [i.digest for i in s.images], s.caption, s.gold]
            if s.identifiers is not None:
                content.append(list(s.identifiers))
            total.update(json.dumps(content).encode() + b"\n")
    return total.hexdigest()[:32]
