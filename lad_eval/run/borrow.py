"""Evidence that other runs of the same model hold already: the same request is not asked twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence import Evidence, fingerprint_digest
from lad_eval.evidence_files import PARQUET, keys_of, read_parquet
from lad_eval.store import EvidenceStore
from lad_eval.tasks.request import Request

logger = logging.getLogger(__name__)


def borrow(store: EvidenceStore, requests: Iterable[Request], folders: Iterable[Path]) -> int:
    """Copies rows of finished evidence into a store, for those requests that it lacks; returns their number.

    A request's key is a digest of all that the model is shown, so where the models' fingerprints are equal, so is the answer. A
    row is taken only if its sample, displayed order and right position are the request's too. A folder whose evidence cannot be
    read is passed over: it is not this run's.

    Args:
        store: open; its fingerprint says whose evidence will do.
        requests: what the run asks.
        folders: of other runs.
    """
    have = store.keys()
    missing = {request.key: request for request in requests if request.key not in have}
    taken = 0
    for folder in folders:
        if not missing:
            break
        try:
            if folder.resolve() == store.folder.resolve():
                continue
            header, keys = keys_of(folder / PARQUET)
            if header is None or fingerprint_digest(header.fingerprint) != fingerprint_digest(store.fingerprint):
                continue
            if not missing.keys() & set(keys):
                continue
            found = _fitting(read_parquet(folder / PARQUET), missing)
        except (EvidenceError, OSError):
            continue
        if len(found):
            taken += store.append(found)
            for key in found.key.tolist():
                missing.pop(key)
            logger.info("%d answers are those of %s.", len(found), folder)
    return taken


def neighbours(out: Path, folder: Path) -> list[Path]:
    """Folders in which the other runs of a model keep finished evidence, made as in `folder`: a run's own, or a condition's."""
    model, _, _, *condition = folder.relative_to(out).parts
    return sorted(path.parent for path in (out / model).glob("/".join(["*/*", *condition, PARQUET])))


def _fitting(evidence: Evidence, missing: Mapping[str, Request]) -> Evidence:
    """The rows that answer a missing request, each key once."""
    rows: dict[str, int] = {}
    for row, key in enumerate(evidence.key.tolist()):
        request = missing.get(key)
        if request is not None and key not in rows and _fits(evidence, row, request):
            rows[key] = row
    return evidence.select(np.asarray(list(rows.values()), dtype=np.int64))


def _fits(evidence: Evidence, row: int, request: Request) -> bool:
    return (
        evidence.sample_id[row] == request.sample_id
        and evidence.split[row] == request.split
        and evidence.gold_position[row] == request.gold_position
        and tuple(evidence.perm[row].tolist()) == request.permutation.order
    )
