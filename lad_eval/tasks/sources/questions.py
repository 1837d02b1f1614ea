"""Samples from rows of a data set: which rows can be used, which are for calibration, and how many are left out and why."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from lad_eval.errors import DataError
from lad_eval.tasks.leakage import choose_distinct
from lad_eval.tasks.request import Sample, Split
from lad_eval.tasks.sources.base import Picture, digest_of_samples, treatments_of

if TYPE_CHECKING:
    from lad_eval.data.decoding import Treatment

_SPLITS: tuple[Split, ...] = ("test", "calibration")

Row = TypeVar("Row")


class RowsSource:
    """Samples of rows, except for rows that cannot be used; these are counted by reason and never guessed.

    Calibration rows are drawn, if possible among those whose right image is not another row's (where texts are to be chosen from:
    none of whose images another row shows); the others are the test rows, in the data's order, without those that depend on a
    calibration row.
    """

    def __init__(
        self,
        title: str,
        rows: Sequence[Row],
        sample_of: Callable[[Row], Sample | str],
        *,
        calibration_samples: int,
        salt: str,
    ) -> None:
        """Makes the samples, which reads every image's bytes.

        Args:
            title: what the rows are, for errors.
            rows: in the data's order.
            sample_of: a row as a test sample, or why it cannot be used.
            calibration_samples: how many rows are for calibration.
            salt: of their draw: the data, the task and the seed.

        Raises:
            DataError: too few rows can be used.
        """
        self._rows = len(rows)
        self._left_out: Counter[str] = Counter()
        samples: list[Sample] = []
        for row in rows:
            made = _readable(sample_of(row))
            if isinstance(made, str):
                self._left_out[made] += 1
            else:
                samples.append(made)
        if len(samples) <= calibration_samples:
            raise DataError(
                f"{title}: {len(samples)} of {len(rows)} rows can be used, too few: calibration takes {calibration_samples}"
                f"{self._why()}"
            )
        learned = _drawn(samples, calibration_samples, salt)
        clusters = {samples[index].cluster for index in learned} - {None}
        test = [s for index, s in enumerate(samples) if index not in learned and s.cluster not in clusters]
        if dropped := len(samples) - len(learned) - len(test):
            self._left_out["its counterpart is for calibration"] = dropped
        self._samples: dict[Split, list[Sample]] = {
            "test": test,
            "calibration": [replace(s, split="calibration") for index, s in enumerate(samples) if index in learned],
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits."""
        return digest_of_samples(self, "rows-1")

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples in a fixed order. `limit` only shortens the list."""
        yield from self._samples[split][:limit]

    def notes(self) -> list[str]:
        """How many rows are left out and why."""
        out = self._left_out.total()
        return [f"{out} of {self._rows} rows left out{self._why()}"] if out else []

    def counts(self) -> dict[str, int]:
        """Rows in all, rows by split, and rows left out by reason."""
        counted = {"rows": self._rows}
        counted.update({split: len(self._samples[split]) for split in _SPLITS})
        counted.update({f"left out: {reason}": count for reason, count in self._left_out.items()})
        return counted

    def problems(self) -> list[str]:
        """Every image of the used rows that cannot be decoded."""
        return [fault for picture in self._pictures() for fault in picture.faults()]

    def treatments(self) -> Iterator[Treatment]:
        """What decoding does to every image of the used rows."""
        return treatments_of(self._pictures())

    def _pictures(self) -> list[Picture]:
        shown = (image for split in _SPLITS for sample in self._samples[split] for image in sample.images)
        return list(dict.fromkeys(image for image in shown if isinstance(image, Picture)))

    def _why(self) -> str:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self._left_out.most_common())
        return f": {reasons}." if reasons else "."


def _readable(made: Sample | str) -> Sample | str:
    """The sample, if its images can be read and are different ones."""
    if isinstance(made, str):
        return made
    if any(isinstance(image, Picture) and not image.path.is_file() for image in made.images):
        return "an image is missing"
    try:
        digests = {image.digest for image in made.images}
    except DataError:
        return "an image cannot be read"
    return made if len(digests) == len(made.images) else "one picture is shown twice"


def _drawn(samples: Sequence[Sample], count: int, salt: str) -> set[int]:
    """Indices of random calibration samples; those that share a decisive image with another sample are replaced."""
    decisive = [_decisive(sample) for sample in samples]
    often = Counter(digest for digests in decisive for digest in digests)
    drawn = random.Random(salt).sample(range(len(samples)), count)
    rest = sorted(set(range(len(samples))) - set(drawn))
    random.Random(f"{salt}/instead").shuffle(rest)
    shared = [any(often[digest] > 1 for digest in digests) for digests in decisive]
    return set(choose_distinct([*drawn, *rest], lambda index: shared[index], count).filled)


def _decisive(sample: Sample) -> set[str]:
    """Digests of the image that is the answer, or of all where the answer is a text."""
    right = sample.choices[sample.gold]
    return {image.digest for image in ([sample.images[right]] if isinstance(right, int) else sample.images)}
