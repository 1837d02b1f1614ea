"""Reuses evidence of other runs of the same model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence.files import PARQUET, read_parquet
from lad_eval.evidence.store import EvidenceStore
from lad_eval.evidence.table import Evidence, difference, fingerprint_digest
from lad_eval.run.folder.files import slug
from lad_eval.tasks.request import Request
from lad_eval.terminal import counted

logger = logging.getLogger(__name__)


def reuse_evidence(store: EvidenceStore, requests: Iterable[Request], folders: Iterable[Path]) -> int:
    """Copies rows of finished evidence into a store, for those requests that it lacks; returns their number.

    A request's key is a digest of the model's inputs, so if the models' fingerprints are equal, so is the answer. A
    row is copied only if its sample, displayed order and gold position are the request's too. A folder whose evidence cannot be
    read is skipped: it is another run's. If nothing is reused although the requests were answered before, a line says why.

    Args:
        store: open; only evidence with its fingerprint is copied.
        requests: of the run.
        folders: of other runs.
    """
    have = store.keys()
    missing = {request.key: request for request in requests if request.key not in have}
    taken = 0
    unused: dict[Path, str] = {}
    for folder in folders:
        if not missing:
            break
        try:
            if folder.resolve() == store.folder.resolve():
                continue
            evidence = read_parquet(folder / PARQUET)
            if not missing.keys() & set(evidence.key.tolist()):
                continue
            if fingerprint_digest(evidence.fingerprint) != fingerprint_digest(store.fingerprint):
                unused[folder] = difference(evidence.fingerprint, store.fingerprint)
                continue
            fitting = _fitting(evidence, missing)
        except (EvidenceError, OSError):
            continue
        if len(fitting):
            taken += store.append(fitting)
            for key in fitting.key.tolist():
                missing.pop(key)
            logger.info("%s taken from %s.", counted(len(fitting), "answer"), folder)
    if unused and not taken and not have:
        newest = max(unused, key=lambda folder: (folder / PARQUET).stat().st_mtime_ns)
        logger.info(
            "The model is run again: the answers in %s are not reused, because %s (there, and now).",
            newest,
            unused[newest],
            extra={"once": f"not reused: {unused[newest]}"},  # the same for every task and condition
        )
    return taken


def sibling_runs(out: Path, folder: Path, model: str, holding: str = PARQUET) -> list[Path]:
    """Folders with finished evidence of a model's other runs, of the same kind as `folder`: a run's own, or a condition's.

    Args:
        out: of all runs.
        folder: of this run, or of one of its conditions.
        model: its name without a location, as in its fingerprint, so that runs of a moved folder are found.
        holding: glob of a file that they must have.
    """
    model_folder, _, _, *condition = folder.relative_to(out).parts
    last = slug(model)
    names = [path.name for path in out.iterdir() if path.name in (model_folder, last) or path.name.endswith(f"-{last}")]
    return sorted(path.parent for name in names for path in (out / name).glob("/".join(["*/*", *condition, holding])))


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
