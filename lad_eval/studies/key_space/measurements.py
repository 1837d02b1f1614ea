"""What was measured, a file each, so that a killed call goes on and the page can be made again without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lad_eval.attention.keys import STAGES, Stage
from lad_eval.errors import UserError
from lad_eval.files.documents import read_json, write_json
from lad_eval.studies.key_space.capture import Captured
from lad_eval.studies.key_space.measure import (
    Gap,
    HeadGaps,
    Histogram,
    Link,
    Map,
    measure_gap,
    measure_heads,
    measure_histogram,
    measure_link,
    measure_map,
)

MODEL, CONTROL = "model", "random weights"

Measurement = Gap | Link | Histogram | Map | HeadGaps


@dataclass(frozen=True)
class Entry:
    """One measurement of a model: the name of its file, what it is, and how it is made from keys of the task and of another."""

    name: str
    kind: type[Measurement]
    measure: Callable[[Captured, Captured | None], Measurement]


def entries(stages: Mapping[int, str], points: int, *, heads: bool, seed: int) -> list[Entry]:
    """Everything that is measured of one model.

    Args:
        stages: by layer, as `Captured.stages`.
        points: of a modality in each picture; 0: no pictures.
        heads: each head alone, too.
        seed: of projections, splits and permutations.
    """
    listed: list[Entry] = []
    for layer, name in stages.items():
        present = STAGES if name != "none" else STAGES[1:]
        listed += [Entry(f"{layer}-gap-{stage}", Gap, partial(_gap, layer, stage, seed)) for stage in present]
        listed.append(Entry(f"{layer}-link", Link, partial(_link, layer)))
        listed.append(Entry(f"{layer}-scores", Histogram, partial(_histogram, layer)))
        if points:
            listed.append(Entry(f"{layer}-map-{points}", Map, partial(_map, layer, present[0], points, seed)))
        if heads:
            listed.append(Entry(f"{layer}-heads", HeadGaps, partial(_heads, layer, seed)))
    return listed


def _gap(layer: int, stage: Stage, seed: int, keys: Captured, elsewhere: Captured | None) -> Gap:
    return measure_gap(keys, layer, stage, seed, elsewhere)


def _link(layer: int, keys: Captured, _: Captured | None) -> Link:
    return measure_link(keys, layer)


def _histogram(layer: int, keys: Captured, _: Captured | None) -> Histogram:
    return measure_histogram(keys, layer)


def _map(layer: int, stage: Stage, points: int, seed: int, keys: Captured, _: Captured | None) -> Map:
    return measure_map(keys, layer, stage, points, seed)


def _heads(layer: int, seed: int, keys: Captured, _: Captured | None) -> HeadGaps:
    return measure_heads(keys, layer, seed)


@dataclass(frozen=True)
class Measured:
    """What was measured of one model.

    Attributes:
        weights: MODEL or CONTROL.
        gaps: by (layer, stage).
        links: by layer.
        histograms: by layer.
        maps: of every layer, at its first stage; none where no pictures are wanted.
        heads: by layer; none where heads are not measured alone.
    """

    weights: str
    gaps: dict[tuple[int, str], Gap]
    links: dict[int, Link]
    histograms: dict[int, Histogram]
    maps: tuple[Map, ...]
    heads: dict[int, HeadGaps]

    @classmethod
    def of(cls, weights: str, values: Sequence[Measurement]) -> Measured:
        """Sorted by what they are."""
        return cls(
            weights,
            {(one.layer, one.stage): one for one in values if isinstance(one, Gap)},
            {one.layer: one for one in values if isinstance(one, Link)},
            {one.layer: one for one in values if isinstance(one, Histogram)},
            tuple(one for one in values if isinstance(one, Map)),
            {one.layer: one for one in values if isinstance(one, HeadGaps)},
        )


def path_of(place: Path, weights: str, entry: Entry) -> Path:
    """The file of one measurement of the model or its control."""
    return place / weights.replace(" ", "-") / f"{entry.name}.json"


def missing(place: Path, weights: str, wanted: Sequence[Entry]) -> list[Entry]:
    """Those that are not stored."""
    return [entry for entry in wanted if not path_of(place, weights, entry).is_file()]


def store(place: Path, weights: str, entry: Entry, value: Measurement) -> None:
    """Writes one measurement; NaN, which JSON does not have, as null."""
    write_json(path_of(place, weights, entry), _without_nan(asdict(value)))


def read(place: Path, weights: str, wanted: Sequence[Entry]) -> Measured:
    """All of one model.

    Raises:
        UserError: a file is missing or damaged.
    """
    return Measured.of(weights, [_read(path_of(place, weights, entry), entry.kind) for entry in wanted])


def _read(path: Path, kind: type[Measurement]) -> Measurement:
    cure = "Delete it and run without --stored, and it is measured again."
    document = read_json(path, what="a measurement", cure=cure)
    try:
        value: Measurement = TypeAdapter(kind).validate_python(_with_nan(document))
    except ValidationError as error:
        raise UserError(f"Cannot read {path} (a measurement): it does not hold what it should. {cure}") from error
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_nan(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_nan(one) for one in value]
    return math.nan if value is None else value
