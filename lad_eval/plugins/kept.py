"""Evidence that a harness asks for piece by piece, kept where `lad-eval run` keeps its own, so that each serves the other."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lad_eval.evidence import Evidence
from lad_eval.models.base import VLM
from lad_eval.run.collect import in_batches
from lad_eval.run.folder import claim, ensure_writable, folder_of
from lad_eval.run.progress import progress
from lad_eval.run.spec import RunSpec
from lad_eval.run.world import World
from lad_eval.store import EvidenceStore
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task


class KeptEvidence:
    """What a model was asked on a task: every request once, whatever the method, the call or the process that needs it.

    Of several processes each writes a file of its own. Get one from `kept_evidence`.

    Attributes:
        folder: `<store>/<model>/<task>/<hash>`, the folder of the same run by `lad-eval run` without a limit.
    """

    def __init__(self, task: Task, spec: RunSpec, folder: Path) -> None:
        world = World.from_environment()
        self.folder = folder
        self._leads = world.leads
        self._store = EvidenceStore(folder, spec.fingerprint, task=task.fingerprint, rank=None if world.size == 1 else world.rank)
        self._store.open()
        weakref.finalize(self, self._store.close)
        claim(folder, spec)
        self._parts: list[Evidence] = []
        self._where: dict[str, tuple[int, int]] = {}
        if self._store.keys():
            self._remember(self._store.load())

    def of(self, model: VLM, requests: Sequence[Request], label: str, *, show_progress: bool = True) -> Evidence:
        """One row a request, in their order; what is missing is asked and stored, batch by batch.

        Args:
            model: the one whose evidence this is.
            requests: at least one.
            label: what the progress bar calls it.
            show_progress: on stderr, by the leading process.

        Raises:
            UserError: an image cannot be read, memory or the disk does not suffice.
        """
        missing = list({r.key: r for r in requests if r.key not in self._where}.values())
        if missing:
            shown = show_progress and self._leads and len(missing) > 1
            with progress(label, len(missing), shown=shown) as advance:
                for part in in_batches(model, missing):
                    self._store.append(part)
                    self._remember(part)
                    advance(len(part))
        return self._rows([request.key for request in requests])

    def _remember(self, part: Evidence) -> None:
        self._where.update({key: (len(self._parts), row) for row, key in enumerate(part.key.tolist())})
        self._parts.append(part)

    def _rows(self, keys: Sequence[str]) -> Evidence:
        wanted: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            wanted.setdefault(self._where[key][0], []).append(place)
        found = Evidence.concatenate([self._parts[n].select([self._where[keys[p]][1] for p in at]) for n, at in wanted.items()])
        order = np.argsort([place for at in wanted.values() for place in at])
        return found.select(order)


_OPEN: weakref.WeakValueDictionary[Path, KeptEvidence] = weakref.WeakValueDictionary()


def kept_evidence(model: VLM, task: Task, store: Path) -> KeptEvidence:
    """The evidence of a model on a task below `store`; methods of one process that look at the same share it.

    Raises:
        UserError: the folder cannot be written to, another process uses it, or it holds something else.
    """
    ensure_writable(store)
    spec = RunSpec.of(model.name, model.fingerprint, task, None)
    folder = folder_of(store, spec).resolve()
    kept = _OPEN.get(folder)
    if kept is None:
        kept = _OPEN[folder] = KeptEvidence(task, spec, folder)
    return kept
