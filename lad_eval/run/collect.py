"""Running a model on the requests of a task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import UserError
from lad_eval.evidence.store import EvidenceStore
from lad_eval.evidence.table import Evidence
from lad_eval.methods import PLAIN, Condition, Method, make_method
from lad_eval.models.base import (
    REQUESTS_A_CALL,
    VLM,
    Batched,
    Calibratable,
    Changeable,
    MapsTokens,
    ReadsProbes,
    ReadsPrompts,
    by_identifiers,
    calibration_origin,
    refuse,
)
from lad_eval.run.decide import PlanIndex, probes_of
from lad_eval.run.folder.files import condition_folder
from lad_eval.run.progress import progress
from lad_eval.tasks.plan import Orders, Plan, plan
from lad_eval.tasks.probes import Probe
from lad_eval.tasks.prompts import labelling_of
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task
from lad_eval.terminal import counted

logger = logging.getLogger(__name__)

Computed = TypeVar("Computed")


def orders_of(methods: Collection[Method]) -> frozenset[Orders]:
    """The orders that any of the methods needs; every run has the displayed order itself."""
    return frozenset({"identity", *(method.orders for method in methods)})


def calibrates(methods: Collection[Method]) -> bool:
    """Whether calibration samples are needed: for a method, or for an intervention that learns."""
    return any(method.calibrates or method.condition.learns for method in methods)


def objection(task: Task, method: Method) -> str | None:
    """Why a method cannot decide between the options of a task, and what to do; None: it can.

    It reads attention, which points at images, or its condition learns from images at every position, and an option is a text; it
    labels images, or reads probes, whose options are all images, and no others; or it needs other letters for the options, which
    the task does not move.
    """
    if labelling_of(method.condition.prompt_variants) is not None and not task.takes_labels:
        return (
            f"{task.name} is not answered by naming one of all its images, and {method.condition.label} puts a name before each; "
            "leave it out."
        )
    if task.answer_kind != "images" and ("attention" in method.needs or method.condition.learns):
        what = "which can point at images only" if "attention" in method.needs else "and learns from options that are images"
        return (
            f"{task.name} has texts to choose from, and {method.name} reads attention, {what}; choose methods that read "
            "log-probabilities or replies (vanilla, pride, cot), or a task whose options are images."
        )
    if (method.probes or method.calibration_probes) and not task.chooses_between_all_images:
        return (
            f"{task.name} has options other than all of its images, and {method.name} reads probes, in which these are the "
            "options; leave it out."
        )
    if task.varies_images_only and method.moves_letters:
        return (
            f"{task.name} moves images while its options keep their letters, and {method.name} needs the options under other "
            "letters; use pride."
        )
    return None


def check_options(task: Task, methods: Collection[Method]) -> None:
    """Refuses methods that cannot decide between the options of a task.

    Raises:
        UserError: the first `objection`.
    """
    for reason in filter(None, (objection(task, method) for method in methods)):
        raise UserError(reason)


def plan_for(task: Task, condition: Condition, methods: Collection[Method] | None, limit: int | None) -> Plan:
    """The requests that methods of one condition need.

    Args:
        task: with the condition's prompt variants.
        condition: of all the methods.
        methods: None: plans what any method with one pass per question needs.
        limit: number of test samples, from the first.

    Raises:
        UserError: as `plan`, or a method cannot decide between the task's options.
    """
    check_options(task, methods or ())
    return plan(
        task,
        limit=limit,
        orders=orders_of(methods or ()),
        calibration=methods is None or calibrates(methods),
        distinct=condition.learns,
        intervention_samples=condition.intervention_samples(task.candidates),
    )


def collect(
    model: VLM,
    task: Task,
    *,
    methods: Iterable[str | Method] | None = None,
    limit: int | None = None,
    store: str | Path | None = None,
    calibrate_on: Task | str | None = None,
    show_progress: bool = True,
) -> Evidence:
    """Evidence of a task: each test sample under the task's T displayed orders, and the calibration samples.

    `evidence.test` and `evidence.calibration` are its two parts.

    Args:
        model: from `load_model`.
        task: from `load_task`.
        methods: only what these need is run; default: what any method with one pass per question needs. The name
            "permutation-average" adds every cyclic shift of each order. For methods such as "sofa+lad" the evidence is that under
            their condition, which must be the same for all; a method's probes are run, and are in `Evidence.probes`.
        limit: number of test samples, from the first.
        store: a folder that keeps the evidence, so that an interrupted call resumes where it stopped.
        calibrate_on: another task, whose calibration samples replace this one's.
        show_progress: on stderr.

    Raises:
        UserError: a method is unknown, reads replies, or has another condition than the others; the two tasks do not
            match, the data is not as the task says, or the folder holds other evidence.
    """
    wanted = None if methods is None else [make_method(m) if isinstance(m, str) else m for m in methods]
    condition = _condition_of(wanted or [])
    if calibrate_on is not None:
        task = task.calibrated_on(load_task(calibrate_on) if isinstance(calibrate_on, str) else calibrate_on)
    if condition.prompt_variants:
        task = task.with_prompt(*condition.prompt_variants)
    needed = plan_for(task, condition, wanted, limit)
    folder = None if store is None else Path(store)
    intervention = calibrate_intervention(model, condition.intervention, needed.intervention_requests, folder=folder)

    def collected(plan: Plan, probe: Probe | None) -> Evidence:
        if folder is None:
            parts: list[Evidence] = []
            with under(model, intervention, probe):
                _run(model, task, plan.requests, parts.append, shown=show_progress)
            return Evidence.concatenate(parts)
        place = condition_folder(folder, Condition(probe=probe))
        fingerprint = {**fingerprint_under(model, intervention), **({} if probe is None else {"probe": probe.facts})}
        with under(model, intervention, probe), EvidenceStore(place, fingerprint, task=task.fingerprint) as opened:
            _run(model, task, plan.missing(opened.keys()), opened.append, shown=show_progress)
            opened.finish()
            return opened.load()

    evidence = collected(needed, None).select_keys([request.key for request in needed.requests])
    joined = {}
    for probe in probes_of(wanted or ()):
        its_plan = probe.plan(task, needed)
        keys = PlanIndex.of(its_plan).in_place_of(PlanIndex.of(needed))
        joined[probe.label] = collected(its_plan, probe).select_keys([keys[key] for key in evidence.key.tolist()])
    return evidence.with_probes(joined)


def _run(model: VLM, task: Task, requests: Sequence[Request], keep: Callable[[Evidence], object], *, shown: bool) -> None:
    with progress(task.name, len(requests), shown=shown) as advance:
        for count in run_requests(model, requests, keep):
            advance(count)


def _condition_of(methods: Sequence[Method]) -> Condition:
    if reading := [method.name for method in methods if method.decoding is not None]:
        raise UserError(f"{reading[0]} reads replies, and this collects evidence; use `lad-eval run`, or the model's `generate`.")
    conditions = {method.condition for method in methods}
    if len(conditions) > 1:
        named = " and ".join(sorted(condition.label or "the unchanged question" for condition in conditions))
        raise UserError(f"These methods need evidence of different conditions ({named}); collect them separately.")
    return next(iter(conditions), PLAIN)


@contextmanager
def under(model: VLM, intervention: Intervention | None, probe: Probe | None = None) -> Iterator[None]:
    """While open the model runs under the intervention, if there is one, and records token maps, if the probe is for them.

    Raises:
        UserError: the model's attention cannot be recorded.
    """
    with ExitStack() as stack:
        if probe is not None and probe.token_map:
            if not isinstance(model, MapsTokens):
                raise UserError(f"{model.name} gives no token maps; leave out the methods that need them.")
            stack.enter_context(model.mapping_tokens())
        stack.enter_context(_changed(model, intervention))
        yield


def _changed(model: VLM, intervention: Intervention | None) -> AbstractContextManager[None]:
    if intervention is None:
        return nullcontext()
    if not isinstance(model, Changeable):
        raise UserError(f"{model.name} cannot be run under {intervention.label}: its attention cannot be recorded.")
    return model.under(intervention)


def fingerprint_under(model: VLM, intervention: Intervention | None) -> dict[str, Any]:
    """The fingerprint of the model's answers under the intervention, which they are stored with.

    A model's `fingerprint` changes with the intervention that it is run under. Computed once and passed on, it is the same
    wherever answers are written and joined.

    Raises:
        UserError: as `under`.
    """
    with under(model, intervention):
        return dict(model.fingerprint)


def calibrate_intervention(
    model: VLM,
    intervention: Intervention | None,
    requests: Sequence[Request],
    *,
    folder: Path | None = None,
    others: Iterable[Path] = (),
) -> Intervention | None:
    """The intervention calibrated on the unchanged model; itself if it has nothing to learn.

    It learns from every calibration sample under its N cyclic shifts, as methods do: each picture is then at each position
    once, so that the learned effect of positions does not depend on what the few samples show there.

    Args:
        model: to learn from.
        intervention: calibrated or not.
        requests: of the calibration samples.
        folder: of the learned state, which is reused if it is there.
        others: further folders that may hold the state; states that do not match are skipped.

    Raises:
        EvidenceError: the folder holds the state of another model, other requests or other parameters.
        UserError: the folder's file is damaged, the model cannot be calibrated on, or it cannot run the requests.
    """
    if intervention is None or intervention.is_ready:
        return intervention
    if not isinstance(model, Calibratable):
        raise UserError(f"{model.name} cannot be run under {intervention.label}, which learns from the model's attention.")
    origin = calibration_origin(model.fingerprint, requests)
    made = intervention if folder is None else intervention.load_learned(folder, origin)
    if made.is_ready:
        return made
    for other in others:
        with suppress(UserError):
            made = made.load_learned(other, origin)
    if not made.is_ready:
        samples = len({request.sample_id for request in requests})
        orders = len(requests) // max(1, samples)
        logger.info("%s is calibrated on %s in %s.", made.label, counted(samples, "sample"), counted(orders, "order"))
        made = model.calibrated(made, requests)
    if folder is not None:
        made.save_learned(folder)
    return made


def in_batches(model: VLM, requests: Sequence[Request]) -> Iterator[Evidence]:
    """Evidence of the requests, as soon as it is computed, in an order that the model chooses.

    A call of a model has one set of identifiers; samples with identifiers of their own are grouped by these.

    Raises:
        DataError: the model cannot take a request; none is run then.
    """
    if isinstance(model, ReadsPrompts):
        refuse(model.check_prompts(requests, exact=0).faults)
    for group in by_identifiers(requests):
        if isinstance(model, Batched):
            yield from model.evidence_batches(group)
            continue
        for start in range(0, len(group), REQUESTS_A_CALL):
            yield model.evidence(group[start : start + REQUESTS_A_CALL])


def run_requests(model: VLM, requests: Sequence[Request], keep: Callable[[Evidence], object]) -> Iterator[int]:
    """Runs the requests and passes each batch of evidence to `keep` as soon as it is computed; yields the batches' sizes.

    `keep` runs in a thread while the next batch is computed, one call at a time. All calls have
    returned when the iterator ends, also where it ends by an error or an interruption.

    Raises:
        DataError: the model cannot take a request; none is run then.
    """
    yield from map(len, _stored(in_batches(model, requests), keep))


def run_with_probes(
    model: ReadsProbes, groups: Sequence[Sequence[Request]], keep: Sequence[Callable[[Evidence], object]]
) -> Iterator[int]:
    """As `run_requests`, for requests together with probes of the same images.

    Args:
        model: not under an intervention.
        groups: a request and its probes, equally many.
        keep: for the rows of the requests, and for those of each probe of theirs.

    Raises:
        DataError: the model cannot take a request; none is run then.
    """
    by_key = {group[0].key: group for group in groups}
    if isinstance(model, ReadsPrompts):
        refuse(model.check_prompts([request for group in groups for request in group], exact=0).faults)

    def store(rows: Sequence[Evidence]) -> None:
        for part, keep_part in zip(rows, keep, strict=True):
            keep_part(part)

    for requests in by_identifiers([group[0] for group in groups]):
        batches = model.probed_batches([by_key[request.key] for request in requests])
        yield from (len(rows[0]) for rows in _stored(batches, store))


def _stored(batches: Iterable[Computed], keep: Callable[[Computed], object]) -> Iterator[Computed]:
    """The batches, each passed to `keep` in a thread while the next one is computed."""
    with ThreadPoolExecutor(1, "lad-eval-store") as pool:
        before: Future[object] | None = None
        for batch in batches:
            if before is not None:
                before.result()
            before = pool.submit(keep, batch)
            yield batch
        if before is not None:
            before.result()
