"""The requests that a task and its methods need, each once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from lad_eval.errors import DataError, UserError
from lad_eval.tasks.leakage import choose_distinct, right_picture, shared_pictures, shown_pictures
from lad_eval.tasks.request import Arrangement, EndlessCalibration, Permutation, Request, Sample, showing, text_fault
from lad_eval.tasks.task import Task

Orders = Literal["identity", "cyclic", "random"]
AS_SHOWN: tuple[Orders, ...] = ("identity",)
RANDOM_ORDERS = 16
"""K of random-K averaging (arXiv 2605.11591, baselines)."""
_DISPLAYED: Mapping[Orders, Callable[[Permutation], tuple[Permutation, ...]]] = MappingProxyType(
    {
        "identity": lambda order: (order,),
        "cyclic": Permutation.cyclic_shifts,
        "random": lambda order: order.random_orders(RANDOM_ORDERS),
    }
)


def displayed_orders(orders: Orders, order: Permutation) -> tuple[Permutation, ...]:
    """The displayed orders that the answer to `order` is computed from, itself first."""
    return _DISPLAYED[orders](order)


def displayed_arrangements(task: Task, orders: Orders, sample: Sample, shown: Arrangement) -> tuple[Arrangement, ...]:
    """The arrangements that the answer to one of them is computed from, itself first.

    They differ in the order of the options, or, where a task varies the images alone, in that of the images.
    """
    if not task.varies_images_only:
        return tuple(Arrangement(order, shown.images) for order in displayed_orders(orders, shown.options))
    images = shown.images or Permutation.identity(len(sample.movable))
    return tuple(Arrangement(shown.options, order) for order in displayed_orders(orders, images))


@dataclass(frozen=True)
class Plan:
    """The requests to run, and which answers belong to what.

    Attributes:
        requests: every request once, in the order in which they are run: calibration first, then sample by sample.
        evaluated: keys of the test requests that figures are computed from, sample by sample, T orders each.
        permutation_index: for every evaluated key the index 0..T-1 of its order.
        cyclic: for every evaluated key the keys of its N cyclic shifts, itself first; empty where no method needs them.
        random: for every evaluated key the keys of RANDOM_ORDERS random orders (N! if that is less), itself first; or empty.
        intervention_requests: that an intervention learns from, sample by sample, N cyclic shifts each; they are run by its
            calibration, and are not among `requests`.
        calibration: keys of the calibration requests, sample by sample, N cyclic shifts each.
        notes: what a reader of the figures should know about the plan, one line each.
        image_orders: for every evaluated key the displayed order of the movable images, where the options are texts and images
            move; else empty.
        repeats: for every evaluated key the keys of its `repeats` repetitions, itself first; empty without repetitions.
        clusters: for every evaluated key the cluster of its sample, by default the sample; empty where no sample has one.
    """

    requests: tuple[Request, ...]
    evaluated: tuple[str, ...]
    permutation_index: tuple[int, ...]
    cyclic: tuple[tuple[str, ...], ...]
    calibration: tuple[str, ...]
    notes: tuple[str, ...] = ()
    random: tuple[tuple[str, ...], ...] = ()
    intervention_requests: tuple[Request, ...] = ()
    image_orders: tuple[tuple[int, ...], ...] = ()
    repeats: tuple[tuple[str, ...], ...] = ()
    clusters: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.requests)

    def passes(self, orders: Collection[Orders] = AS_SHOWN, *, calibration: bool = False) -> int:
        """Requests that a method with these needs would cost on its own.

        Raises:
            ValueError: the plan was made without what the method needs.
        """
        by_kind = {"cyclic": self.cyclic, "random": self.random}
        several = [by_kind[kind] for kind in orders if kind != "identity"]
        if not all(several) or (calibration and not self.calibration):
            raise ValueError("the plan was made without the orders or without calibration")
        needed = {*self.evaluated}
        for keys in several:
            needed.update(itertools.chain.from_iterable(keys))
        if calibration:
            needed.update(self.calibration)
        return len(needed)

    def calibration_requests(self) -> tuple[Request, ...]:
        """The requests of `calibration`, in its order; equal ones are repeated."""
        by_key = {request.key: request for request in self.requests}
        return tuple(by_key[key] for key in self.calibration)

    def missing(self, keys: Collection[str]) -> tuple[Request, ...]:
        """Requests whose keys are not among those given, in order."""
        have = frozenset(keys)
        return tuple(request for request in self.requests if request.key not in have)

    def shard(self, rank: int, world_size: int) -> tuple[Request, ...]:
        """The requests of one of several processes: those of every `world_size`-th sample."""
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0..{world_size - 1}")
        turn: dict[str, int] = {}
        return tuple(r for r in self.requests if turn.setdefault(r.sample_id, len(turn)) % world_size == rank)


def plan(
    task: Task,
    *,
    limit: int | None = None,
    orders: Collection[Orders] = AS_SHOWN,
    calibration: bool = False,
    distinct: bool = False,
    intervention_samples: int = 0,
) -> Plan:
    """The requests of a task.

    Every test sample under its T orders; with the orders `cyclic`, each of these also under its N cyclic shifts; with `random`,
    under RANDOM_ORDERS orders drawn once; with `calibration`, every calibration sample under the N cyclic shifts of its own
    order, so that the right image stands at every position once (arXiv 2605.11591, Eq. 1-3). Equal requests are run once.

    No evaluated sample is used for calibration: see `calibration_samples`.

    Args:
        limit: maximum number of test samples, the first ones; calibration is not limited.
        distinct: calibration samples share no image at all with evaluated samples, as an intervention that learns needs.
        intervention_samples: with `distinct`, how many calibration samples the intervention should get: those of the
            methods, and as many more as there are (`further_calibration_samples`).

    Raises:
        DataError: too few samples, a sample with too few images, without a caption, or with one picture twice, or a sample
            that is in both splits.
        UserError: the limit is not positive, or orders are needed that the task does not allow.
    """
    if limit is not None and limit < 1:
        raise UserError(f"The limit must be at least 1, not {limit}.")
    _check_orders(task, orders, calibration=calibration)
    test = _checked(task, list(task.samples("test", limit)))
    count = task.spec.samples or 1
    if len(test) < min(count, limit or count):
        raise DataError(f"{task.name}: the data has {len(test)} test samples, but the task needs {count}; lower `samples:`.")
    learned, notes = calibration_samples(task, test, distinct=distinct) if calibration else ([], ())
    further = further_calibration_samples(task, test, learned, intervention_samples - len(learned)) if distinct else []

    requests: dict[str, Request] = {}
    shifts = tuple(map(Arrangement, displayed_orders("cyclic", Permutation.identity(task.candidates))))
    calibration_keys = [key for sample in learned for key in _add(requests, task.other or task, sample, shifts)]
    origin = task.other or task
    for_intervention = [origin.request(s, *shift) for s in (*learned, *further) for shift in shifts] if distinct else []
    evaluated: list[str] = []
    indices: list[int] = []
    others: dict[Orders, list[tuple[str, ...]]] = {"cyclic": [], "random": []}
    image_orders: list[tuple[int, ...]] = []
    repeats: list[tuple[str, ...]] = []
    for sample in test:
        shown = task.arrangements(sample)
        keys = _add(requests, task, sample, shown)
        evaluated += keys
        indices += range(len(shown))
        image_orders += [arrangement.images.order for arrangement in shown if arrangement.images is not None]
        for kind in (kind for kind in others if kind in orders):
            others[kind] += [tuple(_add(requests, task, sample, displayed_arrangements(task, kind, sample, a))) for a in shown]
        if task.spec.repeats > 1:
            repeats += [_repeated(requests, key, task.spec.repeats) for key in keys]
    _check_same_length(task, others)
    clustered = any(sample.cluster is not None for sample in test)
    return Plan(
        tuple(requests.values()),
        tuple(evaluated),
        tuple(indices),
        tuple(others["cyclic"]),
        tuple(calibration_keys),
        notes,
        tuple(others["random"]),
        tuple(for_intervention),
        tuple(image_orders),
        tuple(repeats),
        tuple(sample.cluster or sample.id for sample in test for _ in task.arrangements(sample)) if clustered else (),
    )


def one_request_per_sample(task: Task, *, limit: int | None = None, calibration: bool = False) -> list[Request]:
    """Every sample in its own order, calibration samples last, for checks that do not depend on the order.

    Args:
        limit: maximum number of test samples, the first ones.
        calibration: whether to append the samples that the task calibrates on.
    """
    parts = [task.samples("test", limit)]
    if calibration:
        parts.append((task.other or task).samples("calibration"))
    return [task.request(sample, Permutation.identity(len(sample.choices))) for part in parts for sample in part]


def _check_orders(task: Task, orders: Collection[Orders], *, calibration: bool) -> None:
    if not task.permutable and not {"identity"}.issuperset(orders):
        raise UserError(f"{task.name} runs unpermuted, and permutation averaging needs other orders; leave its methods out.")
    if calibration and not (task.other or task).permutable:
        raise UserError(
            f"{(task.other or task).name} runs unpermuted, and calibration needs cyclic shifts; calibrate on another task "
            "(--calibrate-on), or leave out the methods that calibrate."
        )


def _check_same_length(task: Task, others: Mapping[Orders, Sequence[Sequence[str]]]) -> None:
    if any(len(set(map(len, keys))) > 1 for keys in others.values()):
        raise UserError(
            f"{task.name} has samples with different numbers of images that move, and averaging over orders needs one number; "
            "leave its methods out."
        )


def _add(requests: dict[str, Request], task: Task, sample: Sample, arrangements: Iterable[Arrangement]) -> list[str]:
    made = [task.request(sample, *arrangement) for arrangement in arrangements]
    return [requests.setdefault(request.key, request).key for request in made]


def _repeated(requests: dict[str, Request], key: str, count: int) -> tuple[str, ...]:
    made = [requests[key], *(replace(requests[key], repeat=turn) for turn in range(1, count))]
    return tuple(requests.setdefault(request.key, request).key for request in made)


def calibration_samples(task: Task, test: Sequence[Sample], *, distinct: bool = False) -> tuple[list[Sample], tuple[str, ...]]:
    """The calibration samples of a task, given the evaluated test samples, and notes on them.

    They are the first samples of the calibration split (of `task.other`, if there is one) whose right picture is not, by its
    content, the right picture of an evaluated sample, and whose options may have other letters. Other pictures may be shown in
    both; their number is noted. With `distinct` none of their pictures is shown in an evaluated sample.

    Raises:
        DataError: there are too few, they cannot be used, or a sample is in both splits of the task.
    """
    origin, wanted = task.other or task, task.spec.calibration.samples
    ids = {sample.id for sample in test}
    right = {right_picture(sample): sample.id for sample in reversed(test)}
    is_evaluated = _is_evaluated(task, test, distinct=distinct)
    shiftable = (sample for sample in origin.source.samples("calibration") if not sample.bound.options)
    choice = choose_distinct(shiftable, is_evaluated, wanted)
    if task.other is None and (both := [sample.id for sample in (*choice.chosen, *choice.passed_over) if sample.id in ids]):
        raise DataError(
            f"{task.name}: {len(both)} samples are both calibrated on and evaluated, first {both[0]!r}; "
            "give them to one split only."
        )
    chosen, passed_over = list(choice.chosen), choice.passed_over
    if len(chosen) < wanted:
        few = (
            _too_few_distinct(task, len(chosen)) if distinct and passed_over else _too_few(task, len(chosen), passed_over, right)
        )
        raise DataError(few)
    notes = []
    if passed_over:
        number = f"{len(passed_over)} calibration sample{'s' if len(passed_over) > 1 else ''}"
        whose = f" of {origin.name}" if task.other is not None else ""
        notes.append(f"{number}{whose} passed over: {'shown pictures are ' if distinct else ''}evaluated here too.")
    if shared := shared_pictures(_checked(origin, chosen), test):
        pictures = f"{shared} pictures are" if shared > 1 else "1 picture is"
        notes.append(f"{pictures} shown in calibration samples and in evaluated ones, never as the right one of both.")
    return chosen, tuple(notes)


def further_calibration_samples(task: Task, test: Sequence[Sample], learned: Sequence[Sample], count: int) -> list[Sample]:
    """Up to `count` calibration samples after those that a task calibrates on, none of whose pictures is evaluated.

    They are the next of the calibration split, and after its end those of a source that can make more; fewer where
    there are no more.

    Args:
        task: see `calibration_samples`.
        test: what is evaluated.
        learned: what the task calibrates on.
        count: how many more to return at most.

    Raises:
        DataError: they cannot be used.
    """
    if count < 1:
        return []
    origin = task.other or task
    known = {sample.id for sample in (*learned, *test)}
    split = origin.source.samples("calibration")
    # From an endless source, enough samples that evaluated ones among them can be skipped.
    endless = origin.source.further_calibration() if isinstance(origin.source, EndlessCalibration) else iter(())
    candidates = (sample for sample in itertools.chain(split, itertools.islice(endless, 10 * count)) if sample.id not in known)
    return _checked(origin, list(choose_distinct(candidates, _is_evaluated(task, test, distinct=True), count).chosen))


def _is_evaluated(task: Task, test: Sequence[Sample], *, distinct: bool) -> Callable[[Sample], bool]:
    """Whether a calibration sample has an evaluated right image; with `distinct` also whether it shows any evaluated image."""
    ids = {sample.id for sample in test}
    right = {right_picture(sample) for sample in test}
    shown = shown_pictures(test) if distinct else set()

    def is_evaluated(sample: Sample) -> bool:
        # In data sets that share their names, an equal id means the same right image, even if the files differ.
        named = task.other is not None and sample.id in ids
        return named or right_picture(sample) in right or not shown.isdisjoint(shown_pictures([sample]) if distinct else ())

    return is_evaluated


def _too_few(task: Task, count: int, passed_over: Sequence[Sample], right: Mapping[str, str]) -> str:
    wanted = task.spec.calibration.samples
    if task.other is not None:
        evaluated_too = f" and {len(passed_over)} that are evaluated here (first {passed_over[0].id!r})" if passed_over else ""
        return (
            f"{task.name}: the calibration split of {task.other.name} has {count} samples to calibrate on{evaluated_too}, "
            f"but the task needs {wanted}; lower `calibration.samples` or give {task.other.name} more."
        )
    if not passed_over:
        return (
            f"{task.name}: the calibration split has {count} samples, but the task needs {wanted}; "
            "lower `calibration.samples` or give the source more."
        )
    first = passed_over[0]
    have = "1 calibration sample has" if len(passed_over) == 1 else f"{len(passed_over)} calibration samples have"
    return (
        f"{task.name}: {have} a right picture that is evaluated under another name (first "
        f"{first.id!r}, the same picture as {right[right_picture(first)]!r}), so that {count} are left of {wanted}; remove the "
        "copies, or calibrate on another task (--calibrate-on)."
    )


def _too_few_distinct(task: Task, count: int) -> str:
    have = "1 calibration sample shows" if count == 1 else f"{count} calibration samples show"
    return (
        f"{task.name}: only {have} no picture that is evaluated, and an intervention that learns needs "
        f"{task.spec.calibration.samples} of them; calibrate on another task (--calibrate-on), lower `calibration.samples`, or "
        "evaluate fewer samples (--limit)."
    )


def option_fault(task: Task, sample: Sample) -> str | None:
    """What is wrong with a sample's options, given its task; completes a sentence that begins with its name."""
    texts = [option for option in sample.choices if isinstance(option, str)]
    if len(sample.choices) != task.candidates:
        what = "images" if sample.options is None else "options"
        return f"has {len(sample.choices)} {what}, not {task.candidates}"
    if sample.kind != task.answer_kind:
        return f"has {sample.kind} as options, and the first sample has {task.answer_kind}; make two tasks of them"
    if len({text.strip() for text in texts}) < len(texts) or not all(text.strip() for text in texts):
        return "has an option without text, or one text twice"
    if sample.kind == "texts" and task.spec.vary is None:
        return "has texts to choose from; set `vary:` to images, options or both"
    if sample.kind != "texts" and task.spec.vary in ("images", "options"):
        return f"has images to choose from, which move with their letters; leave out `vary: {task.spec.vary}`"
    return None


def _checked(task: Task, samples: list[Sample]) -> list[Sample]:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise DataError(f"{task.name}: two {sample.split} samples have the id {sample.id!r}.")
        seen.add(sample.id)
        if (fault := option_fault(task, sample)) is not None:
            raise DataError(f"{task.name}: sample {sample.id!r} {fault}.")
        if not sample.caption.strip():
            raise DataError(f"{task.name}: sample {sample.id!r} has no caption.")
        for part, text in (("caption", sample.caption), *(("option", o) for o in sample.choices if isinstance(o, str))):
            if (fault := text_fault(text)) is not None:
                raise DataError(f"{task.name}: the {part} of sample {sample.id!r} {fault}.")
        with showing(sample.id):
            different = len({image.digest for image in sample.images})
        if different < len(sample.images):
            raise DataError(f"{task.name}: sample {sample.id!r} shows one picture twice, so that its answer is not one position.")
    return samples
