"""RunSpec: everything that determines the evidence of a run; its digest names the run's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from lad_eval.tasks.task import Task

# Keys of a definition on which no request and no row of evidence depends.
_NO_CONSEQUENCE = {"description", "data", "citation", "reported", "metadata"}


class RunSpec(BaseModel):
    """What was run, on which model.

    Methods, bootstrap seed, batch size and device are absent: the same evidence serves every decision, and the others do not
    change the requests.

    Attributes:
        model: the name to show, see `lad_eval.models.source.display_name`.
        fingerprint: the facts that determine the model's evidence.
        task: name of the task.
        definition: the task's definition, without keys on which no request depends.
        digests: of the definition and of the data's content.
        limit: number of samples that are evaluated, from the first; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    model: str
    fingerprint: dict[str, Any]
    task: str
    definition: dict[str, Any]
    digests: dict[str, str]
    limit: int | None = None

    @classmethod
    def of(cls, model: str, fingerprint: Mapping[str, Any], task: Task, limit: int | None) -> RunSpec:
        return cls(
            model=model,
            fingerprint=dict(fingerprint),
            task=task.name,
            definition=task.spec.model_dump(mode="json", exclude=_NO_CONSEQUENCE),
            digests=task.fingerprint,
            limit=limit,
        )

    def document(self) -> dict[str, Any]:
        """The spec as plain JSON."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Hex digest, 16 characters, of the document, whatever the order of its keys."""
        return digest_of(self.document())


def digest_of(document: Mapping[str, Any]) -> str:
    """`RunSpec.digest` of a spec as a document, including those of earlier versions."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
