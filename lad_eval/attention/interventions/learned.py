"""The state that an intervention learned, with the calibration samples and the model it was learned from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError, UserError
from lad_eval.files.atomic import write_atomically
from lad_eval.files.tensors import read_tensors, tensors_as_bytes

RELEARN = "remove it, and it is learned again."
"""What to do about a file that cannot be used."""


@dataclass(frozen=True)
class LearnedState:
    """Learned arrays and their origin; equality and hash are those of the digest, which covers both.

    Attributes:
        intervention: name of the intervention that learned it.
        digest: hex.
        arrays: finite floats by name.
        sample_ids: of the calibration samples, sorted.
        images: digests of their pictures, sorted.
        origin: JSON-serialisable facts that determine it: the intervention's parameters, the model, the requests.
        passes: number of prompts that the model ran for it.
    """

    intervention: str
    digest: str
    arrays: Mapping[str, npt.NDArray[np.float64]] = field(compare=False)
    sample_ids: tuple[str, ...] = field(compare=False)
    images: tuple[str, ...] = field(compare=False)
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)
    passes: int = field(default=0, compare=False)

    @classmethod
    def of(
        cls,
        intervention: str,
        arrays: Mapping[str, npt.ArrayLike],
        sample_ids: Sequence[str],
        images: Sequence[str],
        *,
        origin: Mapping[str, Any] | None = None,
        passes: int = 0,
    ) -> LearnedState:
        """The state with its digest.

        Raises:
            UserError: a number is not finite.
        """
        floats = {name: np.ascontiguousarray(values, dtype=np.float64) for name, values in arrays.items()}
        if wrong := [name for name, values in floats.items() if not np.isfinite(values).all()]:
            raise UserError(f"What {intervention} learned is not finite ({', '.join(wrong)}); calibrate it on other samples.")
        made_from: Mapping[str, Any] = json.loads(json.dumps(dict(origin or {}), sort_keys=True))
        facts = [intervention, list(sample_ids), list(images), made_from, passes]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for name in sorted(floats):
            digest.update(f"\n{name} {list(floats[name].shape)}\n".encode())
            digest.update(floats[name].tobytes())
        return cls(intervention, digest.hexdigest(), floats, tuple(sample_ids), tuple(images), made_from, passes)

    def check_disjoint(self, label: str, sample_ids: Sequence[str], images: Sequence[str]) -> None:
        """Refuses evaluated samples and pictures that were calibrated on.

        Raises:
            EvidenceError: there are some.
        """
        if shared := sorted({*sample_ids} & {*self.sample_ids}):
            names = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
            raise EvidenceError(
                f"{len(shared)} evaluated samples were also calibrated on by {label} ({names}): calibrate it on other samples."
            )
        if pictures := {*images} & {*self.images}:
            raise EvidenceError(
                f"{len(pictures)} pictures of evaluated samples were also calibrated on by {label}: calibrate it on others."
            )

    def check_origin(self, origin: Mapping[str, Any], path: Path) -> None:
        """Refuses a state of other parameters, another model or other requests.

        Args:
            origin: of a state that would be learned now.
            path: that it was read from, for the error's text.

        Raises:
            EvidenceError: it was learned from something else.
        """
        now = json.loads(json.dumps(dict(origin)))
        if other := sorted(key for key in {*now, *self.origin} if now.get(key) != self.origin.get(key)):
            raise EvidenceError(
                f"{path} was learned from something else (differs in {', '.join(other)}); move it away, choose another "
                "folder, or start over with --overwrite always."
            )

    def save(self, path: Path) -> None:
        """Writes one safetensors file.

        Raises:
            UserError: the file cannot be written.
        """
        metadata: dict[str, str] = {
            "intervention": self.intervention,
            "sample_ids": json.dumps(self.sample_ids),
            "images": json.dumps(self.images),
            "origin": json.dumps(self.origin),
            "passes": str(self.passes),
        }
        content = tensors_as_bytes(self.arrays, metadata)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error

    @classmethod
    def load(cls, path: Path, intervention: str) -> LearnedState:
        """What `save` wrote.

        Raises:
            UserError: the file is missing or damaged, or belongs to another intervention.
        """
        try:
            tensors, metadata = read_tensors(path)
            arrays = _finite_floats(tensors)
            owner = metadata["intervention"]
            sample_ids, images = (_texts(json.loads(metadata[name])) for name in ("sample_ids", "images"))
            origin, passes = dict(json.loads(metadata["origin"])), int(metadata["passes"])
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} is not the learned state of an intervention, or is damaged; {RELEARN}") from error
        if owner != intervention:
            raise UserError(f"{path} is what {owner} learned, and cannot be used by {intervention}; {RELEARN}")
        return cls.of(intervention, arrays, sample_ids, images, origin=origin, passes=passes)


def _finite_floats(arrays: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[np.float64]]:
    if not all(values.dtype == np.float64 and np.isfinite(values).all() for values in arrays.values()):
        raise ValueError("not finite floats")
    return arrays


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("no list of texts")
    return values
