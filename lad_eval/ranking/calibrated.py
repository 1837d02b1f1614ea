"""What a ranker learns for one number of images, how it ranks with it, and how that is stored in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from lad_eval.attention.interventions import LEARNED, Intervention
from lad_eval.errors import UserError
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.files.documents import read_json, write_json
from lad_eval.methods import EvidenceMethod, PurifiedAttention, make_evidence_method
from lad_eval.tasks.prompts import IdentifierStyle

FORMAT = 1
DESCRIPTION = "ranker.json"
_ATTENTION = "attention"
_CURE = "Give a folder that Ranker.save wrote, or calibrate and save again."


@dataclass(frozen=True)
class Ranking:
    """N images ranked by one caption; every array follows the order in which the images were given.

    Attributes:
        probabilities: Float[N], sums to 1: what the method makes of the model's answer.
        plain_probabilities: Float[N], sums to 1: the model's own answer, position bias included.
        attention: Float[N], sums to 1: the model's attention with its preference for positions removed (LAD's posterior over
            images, arXiv 2605.11591, Eq. 12); None for a model that gives no attention.
    """

    probabilities: Floats
    plain_probabilities: Floats
    attention: Floats | None

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.2f}" for share in self.probabilities)
        return f"Ranking(best={self.best}, plain_best={self.plain_best}, probabilities=[{shares}])"

    @property
    def order(self) -> Ints:
        """Int[N]: indices of the images, the best first; ties in the order given."""
        return np.argsort(-self.probabilities, kind="stable").astype(np.int64)

    @property
    def best(self) -> int:
        """Index of the image that the method chooses."""
        return int(self.probabilities.argmax())

    @property
    def plain_best(self) -> int:
        """Index of the image that the model alone would have chosen."""
        return int(self.plain_probabilities.argmax())


@dataclass(frozen=True)
class Calibrated:
    """What was learned for one number of images."""

    method: EvidenceMethod
    intervention: Intervention | None
    attention: PurifiedAttention | None

    def ranking(self, row: Evidence, plain_row: Evidence) -> Ranking:
        """A ranking from a row under the method's condition, and one of the model as it is."""
        plain = np.exp(plain_row.log_probs[0])
        attention = None if self.attention is None else np.exp(self.attention.predict_log_proba(plain_row)[0])
        return Ranking(np.exp(self.method.predict_log_proba(row)[0]), plain / plain.sum(), attention)


def save_calibrated(folder: Path, facts: Mapping[str, Any], learned: Mapping[int, Calibrated]) -> None:
    """Writes what was learned, and last the description that says so.

    Args:
        folder: made if it is missing; a ranker that it holds is replaced.
        facts: of the ranker, JSON-serialisable: model, fingerprint, method, prompt and identifiers.
        learned: by number of images.

    Raises:
        UserError: it cannot be written.
    """
    states = list(folder.glob(f"n*/{LEARNED}"))
    try:  # the old files are removed first, so that no description is left with other states
        for stale in (folder / DESCRIPTION, *folder.glob("n*.safetensors"), *states):
            stale.unlink(missing_ok=True)
        for emptied in {state.parent for state in states}:
            emptied.rmdir()
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}.") from error
    for n, calibrated in learned.items():
        calibrated.method.save(folder / f"n{n}.safetensors")
        if calibrated.intervention is not None:
            calibrated.intervention.save_learned(folder / f"n{n}")
        if calibrated.attention is not None:
            calibrated.attention.save(folder / f"n{n}-{_ATTENTION}.safetensors")
    with_attention = [n for n in sorted(learned) if learned[n].attention is not None]
    document = {"format": FORMAT, **facts, "sizes": sorted(learned), "attention": with_attention}
    try:
        write_json(folder / DESCRIPTION, document)
    except OSError as error:
        raise UserError(f"Cannot write {folder / DESCRIPTION}: {error.strerror or error}.") from error


def load_calibrated(folder: Path, document: Mapping[str, Any]) -> dict[int, Calibrated]:
    """What `save_calibrated` wrote, by number of images.

    Args:
        folder: where it was written.
        document: its description, from `read_description`.

    Raises:
        UserError: a file is missing or damaged.
    """
    named = make_evidence_method(document["method"])
    learned = {}
    for n in document["sizes"]:
        method = type(named).load(folder / f"n{n}.safetensors")
        method.condition, intervention = named.condition, named.condition.intervention
        if intervention is not None and not (intervention := intervention.load_learned(folder / f"n{n}")).is_ready:
            raise UserError(f"{folder / f'n{n}'} lacks what {intervention.label} learned. {_CURE}")
        states = folder / f"n{n}-{_ATTENTION}.safetensors"
        attention = PurifiedAttention.load(states) if n in document["attention"] else None
        learned[int(n)] = Calibrated(method, intervention, attention)
    return learned


def read_description(folder: Path) -> dict[str, Any]:
    """The facts of a saved ranker.

    Raises:
        UserError: the folder holds none, or it is damaged or of another version.
    """
    path = folder / DESCRIPTION
    document = read_json(path, what="a ranker", cure=_CURE)
    expected = {
        "format": int,
        "model": str,
        "fingerprint": dict,
        "method": str,
        "prompt": str,
        "identifiers": str,
        "sizes": list,
        "attention": list,
    }
    if any(not isinstance(document.get(key), kind) for key, kind in expected.items()):
        raise UserError(f"{path} does not describe a ranker. {_CURE}")
    if document["format"] != FORMAT:
        raise UserError(f"{path} has format {document['format']}, and this version reads {FORMAT}. {_CURE}")
    if not all(isinstance(n, int) and n > 1 for n in document["sizes"]) or document["identifiers"] not in get_args(
        IdentifierStyle
    ):
        raise UserError(f"{path} is damaged. {_CURE}")
    return document
