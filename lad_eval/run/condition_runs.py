"""The condition runs of a run: the requests that each condition needs, run one condition after the other."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lad_eval.attention.interventions import LEARNED, Intervention
from lad_eval.errors import Interrupted, UserError
from lad_eval.evidence.files import PARQUET
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Reply
from lad_eval.evidence.replies_store import ReplyStore, read_replies
from lad_eval.evidence.store import EvidenceStore
from lad_eval.methods import PLAIN, Condition, Method
from lad_eval.models.base import REQUESTS_A_CALL, VLM, ReadsProbes, Writer, calibration_origin
from lad_eval.run.collect import calibrate_intervention, fingerprint_under, plan_for, run_requests, run_with_probes, under
from lad_eval.run.condition_results import ConditionResults
from lad_eval.run.decide import PlanIndex, probes_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.folder.files import condition_folder
from lad_eval.run.folder.reuse import reuse_evidence, sibling_runs
from lad_eval.run.folder.usage import noted
from lad_eval.run.progress import Overall, Portion, progress
from lad_eval.tasks.plan import Plan
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task
from lad_eval.terminal import counted

EVIDENCE = "evidence"


@dataclass(frozen=True)
class ConditionRun:
    """The requests that the methods of one condition need.

    Attributes:
        condition: of all its methods.
        methods: by the names that tables show.
        task: with the condition's prompt variants.
        plan: of all their requests.
        folder: of its answers: the run's own folder for the unchanged question and model.
        intervention: of the condition, with its learned state once it is calibrated.
    """

    condition: Condition
    methods: Mapping[str, Method]
    task: Task
    plan: Plan
    folder: Path
    intervention: Intervention | None = None

    @property
    def label(self) -> str:
        """For progress: the task, and the condition if there is one."""
        return f"{self.task.name} ({self.condition.label})" if self.condition.label else self.task.name

    @property
    def reply_label(self) -> str:
        return f"{self.label}, replies"

    @property
    def decodings(self) -> tuple[Decoding, ...]:
        """The decodings of replies that the methods need."""
        return tuple(dict.fromkeys(filter(None, (method.decoding for method in self.methods.values()))))

    def evidence_keys(self) -> set[str]:
        """Keys of the requests whose evidence the methods need."""
        return self._keys(method for method in self.methods.values() if method.decoding is None)

    def reply_keys(self, decoding: Decoding) -> set[str]:
        """Keys of the requests whose replies with this decoding the methods need."""
        return self._keys(method for method in self.methods.values() if method.decoding == decoding)

    def alone(self) -> dict[str, int]:
        """Number of requests that each method would need alone; a request with k replies counts k times."""
        samples = {name: decoding.samples if (decoding := m.decoding) else 1 for name, m in self.methods.items()}
        return {name: samples[name] * len(self._keys([method])) for name, method in self.methods.items()}

    def total(self) -> int:
        """Number of requests that all methods need together, counted as in `alone`."""
        return len(self.evidence_keys()) + sum(decoding.samples * len(self.reply_keys(decoding)) for decoding in self.decodings)

    def portions(self, processes: int = 1) -> list[Portion]:
        """The share of the requests that each of `processes` processes runs, with the labels of its progress."""
        images = len(self.plan.requests[0].images) if self.plan.requests else 1
        kinds = [(self.label, EVIDENCE, len(self.evidence_keys()), images)]
        kinds += [(self.reply_label, d.slug, len(self.reply_keys(d)), d.samples * images) for d in self.decodings]
        return [Portion(label, self.task.name, kind, count // processes, work) for label, kind, count, work in kinds if count]

    def probes_of(self, condition_run: ConditionRun, keys: Sequence[str], have: Collection[str]) -> dict[str, Request]:
        """The probes, by the key of their request, of those that are needed and not stored, each with its first request only.

        Args:
            condition_run: of the requests.
            keys: of requests, in the order of the plan.
            have: keys of the stored probes.
        """
        needed = self.evidence_keys().difference(have)
        requests = {request.key: request for request in self.plan.requests if request.key in needed}
        probe_of = PlanIndex.of(self.plan).in_place_of(PlanIndex.of(condition_run.plan))
        return {key: requests.pop(probe) for key in keys if (probe := probe_of.get(key, "")) in requests}

    def _keys(self, methods: Iterable[Method]) -> set[str]:
        return PlanIndex.of(self.plan).used(self.condition, methods)


def condition_runs_of(task: Task, methods: Mapping[str, Method], folder: Path, limit: int | None) -> list[ConditionRun]:
    """The condition runs that methods need, the unchanged question and model first; a condition's probes follow it.

    Raises:
        UserError: as `plan`.
    """
    conditions = sorted({method.condition for method in methods.values()}, key=lambda c: (c != PLAIN, c.label))
    condition_runs = []
    for condition in conditions:
        members = {name: method for name, method in methods.items() if method.condition == condition}
        with_variants = task.with_prompt(*condition.prompt_variants) if condition.prompt_variants else task
        planned = plan_for(with_variants, condition, members.values(), limit)
        if condition.intervention is not None and condition.learns:
            samples = len({request.sample_id for request in planned.intervention_requests})
            planned = replace(planned, notes=(*planned.notes, *condition.intervention.calibration_notes(samples)))
        parts = [(condition, members, planned)]
        for probe in probes_of(members.values()):
            reading = {name: method for name, method in members.items() if probe in probes_of([method])}
            parts.append((replace(condition, probe=probe), reading, probe.plan(with_variants, planned)))
        for part, of_part, its_plan in parts:
            place = condition_folder(folder, part)
            condition_runs.append(ConditionRun(part, of_part, with_variants, its_plan, place, condition.intervention))
    return condition_runs


@dataclass(frozen=True)
class Collector:
    """Runs the requests of condition runs and stores the answers: `calibrated`, `reuse`, `collect`, `finish`, in this order.

    Attributes:
        model: to run.
        context: of this process; samples are divided among all processes.
        out: the folder of all runs, whose answers may be reused; None: nothing is reused.
        shown: whether progress is shown.
        overall: progress of all runs of the command.
    """

    model: VLM
    context: DistributedContext
    out: Path | None
    shown: bool
    overall: Overall | None = None

    def calibrated(self, condition_run: ConditionRun) -> ConditionRun:
        """The condition run with its intervention calibrated: from stored state, else by the main process.

        All processes read the same file. The folder of the run must be claimed.

        Raises:
            Interrupted: Ctrl-C.
            UserError: as `calibrate_intervention`.
        """
        intervention, folder = condition_run.intervention, condition_run.folder
        if intervention is None or intervention.is_ready:
            return condition_run
        requests = condition_run.plan.intervention_requests
        with self.context.barrier(fail_fast=True):
            if self.context.is_main_process:
                # Another condition of the run may have learned it: the part `a` of `sofa+a` learns the same as `a`.
                here = sorted(path.parent for path in folder.parent.glob(f"*/{LEARNED}"))
                others = [*here, *self._siblings(folder, LEARNED)]
                try:
                    calibrate_intervention(self.model, intervention, requests, folder=folder, others=others)
                except KeyboardInterrupt:
                    raise Interrupted(
                        f"Interrupted: {condition_run.label} was not yet calibrated; the same command resumes from there."
                    ) from None
        with self.context.barrier():
            ready = intervention.load_learned(folder, calibration_origin(self.model.fingerprint, requests))
            if not ready.is_ready:
                raise UserError(f"{folder} does not show what the main process wrote there; give all processes one --runs.")
        planned = replace(condition_run.plan, notes=(*condition_run.plan.notes, *ready.learned_notes))
        return replace(condition_run, intervention=ready, plan=planned)

    def _siblings(self, folder: Path, holding: str = PARQUET) -> list[Path]:
        """Folders of the model's other runs whose files may be reused; none if nothing is reused."""
        if self.out is None:
            return []
        return sibling_runs(self.out, folder, str(self.model.fingerprint.get("model", self.model.name)), holding)

    def reuse(self, condition_run: ConditionRun, store: EvidenceStore) -> None:
        """Fills the condition's store with evidence of the model's other runs, before any process determines what is missing.

        Called by the main process only; `store` as for `collect`.
        """
        folders = self._siblings(condition_run.folder) if condition_run.evidence_keys() else []
        if not folders:
            return
        with self._evidence_store(
            condition_run, store, fingerprint_under(self.model, condition_run.intervention)
        ) as condition_store:
            reuse_evidence(condition_store, self._requests(condition_run, condition_run.evidence_keys()), folders)

    def collect(
        self, condition_run: ConditionRun, store: EvidenceStore, others: Sequence[ConditionRun] = ()
    ) -> tuple[int, float]:
        """Runs this process's share of the requests that a condition run still lacks; none is run twice.

        Args:
            condition_run: whose requests are run.
            store: the run's own evidence, open in the main process.
            others: condition runs of the run; probes of the requests that show the same images are run with them, where both
                are missing and the model has an advantage of that.

        Returns:
            Number of requests that all processes together had to run, and the seconds that this one took.

        Raises:
            Interrupted: Ctrl-C.
            UserError: the model cannot be run in this way, an image cannot be read, memory or the disk does not suffice.
        """
        started = time.monotonic()
        fingerprint = fingerprint_under(self.model, condition_run.intervention)
        # Opened before the first request, so that answers that other processes store meanwhile count as run now.
        replies = {d: self._reply_store(condition_run, d, fingerprint).open() for d in condition_run.decodings}
        count = sum(d.samples * len(condition_run.reply_keys(d) - reply_store.keys()) for d, reply_store in replies.items())
        with under(self.model, condition_run.intervention, condition_run.condition.probe):
            count += self._evidence(condition_run, store, fingerprint, others)
            for decoding, reply_store in replies.items():
                self._replies(condition_run, decoding, reply_store)
        return count, time.monotonic() - started

    def finish(self, condition_run: ConditionRun, store: EvidenceStore) -> ConditionResults:
        """Joins the files of all processes, writes the plan next to them, and reads the results of the condition.

        The store's folder is the run's, named by the digest of its spec.
        """
        evidence = None
        fingerprint = fingerprint_under(self.model, condition_run.intervention)
        if condition_run.evidence_keys():
            with self._evidence_store(condition_run, store, fingerprint) as condition_store:
                condition_store.finish()
                evidence = condition_store.load()
        for decoding in condition_run.decodings:
            self._reply_store(condition_run, decoding, fingerprint).finish()
        plan_index = PlanIndex.of(condition_run.plan)
        plan_index.write(condition_run.folder, store.folder.name)
        replies = {decoding: read_replies(condition_run.folder, decoding) for decoding in condition_run.decodings}
        return ConditionResults(condition_run.condition, plan_index, evidence, replies, condition_run.intervention)

    def _evidence_store(
        self, condition_run: ConditionRun, store: EvidenceStore, fingerprint: Mapping[str, Any]
    ) -> AbstractContextManager[EvidenceStore]:
        """Opens the store of the condition's evidence: the run's own, which the main process has open already, or another."""
        if condition_run.condition == PLAIN:
            return nullcontext(store) if self.context.is_main_process else store
        if (probe := condition_run.condition.probe) is not None:
            fingerprint = {**fingerprint, "probe": probe.facts}
        return EvidenceStore(condition_run.folder, fingerprint, task=condition_run.task.fingerprint, rank=self.context.store_rank)

    def _evidence(
        self, condition_run: ConditionRun, store: EvidenceStore, fingerprint: Mapping[str, Any], others: Sequence[ConditionRun]
    ) -> int:
        """Collects this process's share of the evidence; returns how many requests all processes together lacked."""
        needed = condition_run.evidence_keys()
        if not needed:
            return 0
        with ExitStack() as stack:
            condition_store = stack.enter_context(self._evidence_store(condition_run, store, fingerprint))
            share = self._share(condition_run, needed)
            have = condition_store.keys()
            missing = [request for request in share if request.key not in have]
            lacking = [request.key for request in condition_run.plan.requests if request.key in needed - have]
            keep, probes = [condition_store.append], []
            for probe_run in others if isinstance(self.model, ReadsProbes) else ():
                if probe_run.condition.shows_images_of(condition_run.condition):
                    probe_store = stack.enter_context(self._evidence_store(probe_run, store, fingerprint))
                    keep.append(probe_store.append)
                    probes.append(probe_run.probes_of(condition_run, lacking, probe_store.keys()))

            def stored() -> Iterator[int]:
                groups: dict[tuple[int, ...], list[list[Request]]] = {}
                for request in missing:
                    which = tuple(place for place, of_one in enumerate(probes) if request.key in of_one)
                    groups.setdefault(which, []).append([request, *(probes[place][request.key] for place in which)])
                for which, members in groups.items():
                    if which and isinstance(self.model, ReadsProbes):
                        yield from run_with_probes(self.model, members, [keep[0], *(keep[1 + place] for place in which)])
                    else:
                        yield from run_requests(self.model, [request for request, *_ in members], keep[0])

            self._run(condition_run, condition_run.label, EVIDENCE, len(share), len(share) - len(missing), stored())
        return len(lacking) + sum(map(len, probes))

    def _replies(self, condition_run: ConditionRun, decoding: Decoding, replies: ReplyStore) -> None:
        """Collects this process's share of the replies with this decoding."""
        share = self._share(condition_run, condition_run.reply_keys(decoding))
        have = replies.keys()
        missing = {request.key: request for request in share if request.key not in have}

        def store_batches() -> Iterator[int]:
            for batch in reply_batches(self.model, list(missing.values()), decoding):
                replies.append(missing, batch)
                yield len(batch)

        self._run(condition_run, condition_run.reply_label, decoding.slug, len(share), len(share) - len(missing), store_batches())

    def _reply_store(self, condition_run: ConditionRun, decoding: Decoding, fingerprint: Mapping[str, Any]) -> ReplyStore:
        return ReplyStore(
            condition_run.folder, decoding, fingerprint, task=condition_run.task.fingerprint, rank=self.context.store_rank
        )

    def _requests(self, condition_run: ConditionRun, keys: set[str]) -> list[Request]:
        """The planned requests with these keys."""
        return [request for request in condition_run.plan.requests if request.key in keys]

    def _share(self, condition_run: ConditionRun, keys: set[str]) -> list[Request]:
        """The requests with these keys that this process runs."""
        return [request for request in condition_run.plan.shard(self.context.rank, self.context.size) if request.key in keys]

    def _run(self, condition_run: ConditionRun, label: str, kind: str, total: int, done: int, stored: Iterator[int]) -> None:
        """Shows the progress of batches that are run and stored as they are taken from the iterator, by their sizes.

        Raises:
            Interrupted: Ctrl-C; the message says how many answers are stored.
        """
        done_now, shown = 0, self.context.is_main_process and self.shown
        try:
            with (
                progress(label, total, done, shown=shown)
                if self.overall is None
                else self.overall.portion(label, kind, total, done, shown=shown)
            ) as advance:
                for count in noted(self.model, condition_run.folder, self.context.store_rank, stored):
                    done_now += count
                    advance(count)
        except KeyboardInterrupt:
            so_far = f"{label} has {done + done_now} of {counted(total, 'answer')}, all stored"
            raise Interrupted(f"Interrupted: {so_far}; the same command resumes from there.") from None


def reply_batches(model: VLM, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Reply]]:
    """Replies to the requests, as soon as they are generated.

    Raises:
        UserError: the decoding samples, and the model can write greedily only.
    """
    if isinstance(model, Writer):
        yield from model.reply_batches(requests, decoding)
        return
    if decoding.temperature:
        raise UserError(f"{model.name} writes greedily only; leave out the methods that sample replies.")
    for start in range(0, len(requests), REQUESTS_A_CALL):
        batch = requests[start : start + REQUESTS_A_CALL]
        started = time.perf_counter()
        texts = model.generate(batch, max_new_tokens=decoding.max_new_tokens)
        seconds = (time.perf_counter() - started) / len(batch)
        yield [Reply(request.key, (text,), UNKNOWN_PASSES, seconds) for request, text in zip(batch, texts, strict=True)]
