"""Writes a run's metrics and predictions."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.evidence.replies import UNKNOWN_PASSES, Replies
from lad_eval.evidence.table import Evidence
from lad_eval.files.atomic import write_atomically
from lad_eval.files.documents import write_json
from lad_eval.files.tables import write_table
from lad_eval.methods import PLAIN, Method, group_of, needs_of, resolve_methods, set_members
from lad_eval.metrics import Predictions, bias_score, paired_test, same_order, summarise
from lad_eval.run.condition_results import ConditionResults, condition_results_of
from lad_eval.run.decide import Decision, PlanIndex
from lad_eval.run.folder.files import AGAIN, METRICS, PREDICTIONS, ResultsError, read_metrics, read_spec
from lad_eval.run.folder.metadata import RunMetadata, checkout, versions
from lad_eval.run.folder.spec import RunSpec
from lad_eval.run.folder.stored import load_run
from lad_eval.run.unrequested import Unrequested

if TYPE_CHECKING:
    import pandas as pd


FORMAT = 1
logger = logging.getLogger(__name__)


def figures_of(decision: Decision, plan_index: PlanIndex, *, seed: int) -> dict[str, Any]:
    """Every figure; None where one is not defined.

    Args:
        decision: answers to the evaluated requests.
        plan_index: of the condition.
        seed: of the bootstrap.
    """
    answers = decision.answers
    if answers.repetitions is not None:
        each = [replace(answers, position=position, repetitions=None) for position in answers.repetitions]
        single = [replace(decision, answers=one) for one in each]
        return _mean_of([figures_of(one, plan_index, seed=seed) for one in single])
    predictions = Predictions.of(decision.rows, decision.answers.position, plan_index.permutation_index)
    clusters = dict(zip(decision.rows.sample_id.tolist(), plan_index.clusters, strict=True)) if plan_index.clusters else None
    summary = summarise(predictions, seed=seed, clusters=clusters)
    figures = {
        "samples": summary.samples,
        "permutations": summary.permutations,
        "accuracy": {
            "value": summary.accuracy,
            "std": summary.accuracy_std,
            "low": _known(summary.accuracy_low),
            "high": _known(summary.accuracy_high),
        },
        "rstd": {"value": _known(summary.rstd), "low": _known(summary.rstd_low), "high": _known(summary.rstd_high)},
        "consistency": {
            "value": summary.consistency,
            "low": _known(summary.consistency_low),
            "high": _known(summary.consistency_high),
        },
        "all_correct": {
            "value": summary.all_correct,
            "low": _known(summary.all_correct_low),
            "high": _known(summary.all_correct_high),
        },
        "flip": {"value": summary.flip, "low": _known(summary.flip_low), "high": _known(summary.flip_high)},
        "flip_parsed": summary.flip_parsed,
        "osi": {"value": summary.osi, "low": _known(summary.osi_low), "high": _known(summary.osi_high)},
        "ckld": _known(summary.ckld),
        "rsd": _known(summary.rsd),
        "policies": {name: _known(value) for name, value in summary.policies._asdict().items()},
        "bias_score": None if answers.log_proba is None else bias_score(answers.log_proba, decision.rows.gold_position),
        "chi_square": {"statistic": _known(summary.chi2), "p_value": _known(summary.chi2_p)},
        "position_test": {"statistic": _known(summary.position_statistic), "p_value": _known(summary.position_p)},
        "recall": [_known(value) for value in summary.recall],
        "unparsable": summary.unparsable,
        "forward_passes": _known(float(decision.answers.passes.mean())),
        "calibration_passes": decision.calibration_passes,
        **_same_order(decision, plan_index, seed, clusters),
    }
    return {**figures, **_NO_POSITIONS, "recall": []} if plan_index.moves_images_only(decision.rows) else figures


def _same_order(decision: Decision, plan_index: PlanIndex, seed: int, clusters: Mapping[str, str] | None) -> dict[str, Any]:
    """The same-order control, of the run's repetitions or else of the replies drawn to each question.

    Without both each order was answered once: what differs across orders is known, what differs within one is not.
    """
    repeated, of = (decision.repeated, "repetitions") if decision.repeated is not None else (decision.answers.draws, "draws")
    if repeated is None:
        repeated, of = decision.answers.position[None], "repetitions"
    grids = [Predictions.of(decision.rows, each, plan_index.permutation_index).grid for each in repeated]
    labels = None if clusters is None else [clusters[sample] for sample in grids[0].sample_id.tolist()]
    control = same_order(np.stack([grid.chosen for grid in grids], axis=2), seed=seed, clusters=labels)
    estimates = dict(zip(_CONTROL, (control.same, control.cross, control.difference), strict=True))
    values = {name: {part: _known(value) for part, value in each._asdict().items()} for name, each in estimates.items()}
    return {"same_order": {"repeats": control.repeats, "of": of, **values}}


_CONTROL = ("d_same", "d_cross", "delta")
_NO_POSITIONS: Mapping[str, Any] = {
    "rstd": {"value": None, "low": None, "high": None},
    "ckld": None,
    "rsd": None,
    "bias_score": None,
    "chi_square": {"statistic": None, "p_value": None},
    "position_test": {"statistic": None, "p_value": None},
}
"""Figures by position where the options keep theirs: what moves, the images, is not what is answered."""


def tests_between(decisions: Mapping[str, Decision], plan_index: PlanIndex) -> dict[str, dict[str, float]]:
    """{method: {a later method: p-value}} of the exact paired test that two methods are equally accurate, not corrected.

    All pairs are stored, as a table may show any of the methods and corrects for those it shows.
    """
    correct = {
        name: Predictions.of(decision.rows, decision.answers.position, plan_index.permutation_index).grid.correct
        for name, decision in decisions.items()
    }
    p_values: dict[str, dict[str, float]] = {}
    for first, second in combinations(correct, 2):
        p_values.setdefault(first, {})[second] = paired_test(correct[first], correct[second])
    return p_values


def _mean_of(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures averaged over draws, intervals bound by bound; tests are those of the first draw."""
    averaged = ("accuracy", "rstd", "consistency", "all_correct", "flip", "osi", "policies")
    mean: dict[str, Any] = {name: _mean_by_key([draw[name] for draw in draws]) for name in averaged}
    controls = [draw["same_order"] for draw in draws]
    mean["same_order"] = {**controls[0], **{name: _mean_by_key([each[name] for each in controls]) for name in _CONTROL}}
    recall = [_mean(list(column)) for column in zip(*(draw["recall"] for draw in draws), strict=True)]
    mean |= {name: _mean([draw[name] for draw in draws]) for name in ("flip_parsed", "ckld", "rsd", "bias_score")}
    return {**draws[0], **mean, "recall": recall, "draws": len(draws)}


def _mean_by_key(figures: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    return {key: _mean([each[key] for each in figures]) for key in figures[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def metrics_document(
    spec: RunSpec,
    condition_runs: Sequence[ConditionResults],
    methods: Mapping[str, Method],
    decisions: Mapping[str, Decision],
    *,
    seed: int,
    metadata: RunMetadata,
) -> dict[str, Any]:
    """`metrics.json`: what was run, on what, at what cost, and every figure with its interval, in points.

    Args:
        spec: of the run.
        condition_runs: results by condition, the unchanged question and model first.
        methods: by the names that tables show.
        decisions: of these methods.
        seed: of the bootstrap.
        metadata: parts of the document that do not depend on decisions.
    """
    first = condition_runs[0].plan_index
    figures = {
        name: figures_of(decision, _results_of(condition_runs, methods[name]).plan_index, seed=seed)
        for name, decision in decisions.items()
    }
    every = [part for condition_run in condition_runs for part in (condition_run, *condition_run.probes.values())]
    used = [part.used(methods.values()) for part in every]
    rows = [row for condition_run, keys in zip(every, used, strict=True) if (row := condition_run.rows(keys)) is not None]
    replies = [replies for condition_run in condition_runs for replies in condition_run.replies.values()]
    answers: list[Evidence | Replies] = [*rows, *replies]
    learned = [state for condition_run in condition_runs for state in condition_run.learned]
    plain = [
        row.select_keys(condition_run.plan_index.evaluated)
        for condition_run in condition_runs[:1]
        if (row := condition_run.rows(used[0])) is not None
    ]
    return {
        "format": FORMAT,
        "model": spec.model,
        "task": spec.task,
        "run": spec.digest,
        "limit": spec.limit,
        "candidates": next(iter(decisions.values())).rows.perm.shape[1],
        "lad_eval": checkout(),
        "versions": versions(),
        "seeds": {"bootstrap": seed, "permutations": spec.definition.get("permutations", {}).get("seed")},
        "dtype": spec.fingerprint.get("dtype"),
        "attention_implementation": spec.fingerprint.get("attn_implementation"),
        **metadata.environment,
        "calibration": dict(metadata.calibration),
        "notes": list(metadata.notes),
        "left_out": dict(metadata.left_out),
        "data": dict(metadata.data),
        "counts": {
            "samples": len(first.evaluated) // (max(first.permutation_index) + 1),
            "permutations": max(first.permutation_index) + 1,
            "calibration_samples": max(
                [
                    *(len(np.unique(row.calibration.sample_id)) for row in rows),
                    *(len(state.sample_ids) for state in learned),
                ],
                default=0,
            ),
            "asked": sum(map(len, used)),
            "answered": sum(map(len, rows)) + sum(map(len, replies)),
            "unparsable": {name: figure["unparsable"] for name, figure in figures.items()},
        },
        "forward_passes": {
            "evaluated": sum(int(row.forward_passes.sum()) for row in plain),
            "calibration": sum(int(row.calibration.forward_passes.sum()) for row in rows),
            "all": sum(int(part.forward_passes[part.forward_passes != UNKNOWN_PASSES].sum()) for part in answers),
        },
        "seconds_of_model": float(sum(part.seconds.sum() for part in answers)),
        "methods": {
            name: {
                "parameters": json.loads(json.dumps(methods[name].get_params())),
                "condition": _results_of(condition_runs, methods[name]).document(),
                "group": group_of(methods[name]),
                "needs": list(needs_of(methods[name])),
                **figure,
                # Scores of attention are no probabilities of the model, and their scale is arbitrary.
                **({} if "log_probs" in methods[name].needs else {"bias_score": None}),
            }
            for name, figure in figures.items()
        },
        "tests": {"accuracy": tests_between(decisions, first)},
        "reported": json.loads(json.dumps(metadata.reported)),
    }


def _results_of(condition_runs: Sequence[ConditionResults], method: Method) -> ConditionResults:
    return next(condition_run for condition_run in condition_runs if condition_run.condition == method.condition)


def predictions_table(
    condition_runs: Sequence[ConditionResults], methods: Mapping[str, Method], decisions: Mapping[str, Decision]
) -> pd.DataFrame:
    """`predictions.parquet`: one row per method and evaluated request; positions and images are counted from 0.

    Where the options are texts, `gold_image` and `image` are options, and `image_order` is that of the images that move. A reply
    without an answer has position and image -1; a method without probabilities has none.
    """
    import pandas as pd

    tables = []
    for name, decision in decisions.items():
        rows, every = decision.rows, np.arange(len(decision.answers.position))
        has_answer = decision.answers.position >= 0
        image = np.where(has_answer, rows.perm[every, np.maximum(decision.answers.position, 0)], -1)
        plan_index = _results_of(condition_runs, methods[name]).plan_index
        table = {
            "method": name,
            "key": rows.key,
            "sample_id": rows.sample_id,
            "permutation": np.asarray(plan_index.permutation_index),
            "order": [" ".join(map(str, order)) for order in rows.perm.tolist()],
            "gold_position": rows.gold_position,
            "position": decision.answers.position,
            "gold_image": rows.perm[every, rows.gold_position],
            "image": image,
            "correct": decision.answers.position == rows.gold_position,
            "log_proba": [None] * len(every) if decision.answers.log_proba is None else decision.answers.log_proba.tolist(),
        }
        if plan_index.image_orders:
            table["image_order"] = [" ".join(map(str, order)) for order in plan_index.image_orders]
        tables.append(pd.DataFrame(table))
    joined: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return joined


def write_predictions(table: pd.DataFrame, run: str, path: Path) -> None:
    """The table as a Parquet file that names its run."""
    import pyarrow as pa

    write_table(path, pa.Table.from_pandas(table, preserve_index=False), {"run": run})


def conclude(
    folder: Path,
    spec: RunSpec,
    results: Sequence[ConditionResults],
    others: Sequence[Unrequested],
    methods: Mapping[str, Method],
    seed: int,
    metadata: RunMetadata,
) -> dict[str, Any]:
    """Every method decides, and the figures and predictions are written; returns the document of `metrics.json`.

    `metrics.json` is written last, so that where it exists everything else does too.

    Args:
        folder: of the run.
        spec: of the run.
        results: of the conditions that were run.
        others: stored conditions that were not, as far as they can be read.
        methods: by the names that tables show, in their order; a method whose condition is in neither is left out.
        seed: of the bootstrap.
        metadata: parts of the document that do not depend on decisions.
    """
    by_condition = {of_one.condition: of_one for of_one in results}
    decided = {name: decision for other in others for name, decision in other.decisions.items()}
    decided |= {name: by_condition[m.condition].decide(m) for name, m in methods.items() if m.condition in by_condition}
    decisions = {name: decided[name] for name in methods if name in decided}
    # The unchanged question and model come first.
    condition_runs = sorted([*results, *(other.results for other in others)], key=_plain_first)
    metrics = metrics_document(spec, condition_runs, methods, decisions, seed=seed, metadata=metadata)
    table = predictions_table(condition_runs, methods, decisions)
    write_atomically(folder / PREDICTIONS, partial(write_predictions, table, spec.digest))
    write_json(folder / METRICS, metrics)
    return metrics


def _plain_first(results: ConditionResults) -> tuple[bool, str]:
    return results.condition != PLAIN, results.condition.label


def stored_methods(folder: Path) -> list[str]:
    """Names of the methods that a run holds figures of; none if it is not finished, or if its figures are damaged (a warning)."""
    if not (folder / METRICS).is_file():
        return []
    try:
        return list(read_metrics(folder)["methods"])
    except ResultsError as error:
        logger.warning("%s It is rewritten with the methods of this command.", str(error).removesuffix(AGAIN).rstrip())
        return []


def stored_metrics(folder: Path, methods: Mapping[str, Method]) -> dict[str, Any]:
    """The stored figures of a finished run.

    Raises:
        ResultsError: the run is not finished, or holds no figures of a method.
    """
    if not (folder / METRICS).is_file():
        raise ResultsError(f"The run in {folder} is not finished; --overwrite missing resumes it.")
    metrics = read_metrics(folder)
    if lacking := [name for name in methods if name not in metrics["methods"]]:
        raise ResultsError(f"The run in {folder} holds no figures of {', '.join(lacking)}; --overwrite missing adds them.")
    return metrics


def rescore(run: Path, names: Sequence[str] | None = None, *, settings: Sequence[str] = (), seed: int = 42) -> dict[str, Any]:
    """A document like the run's `metrics.json`, decided again; nothing is written.

    Args:
        run: a run's folder, or a folder above it that holds no other run.
        names: methods; default: those of the run, followed by those that the settings change.
        settings: texts such as "lad(top_k=4)". A method with settings is named with them, `lad(top_k=4)`.
        seed: of the bootstrap.

    Raises:
        UserError: there is no finished run, it lacks what a method needs, or a method, parameter or value does not exist.
    """
    finished = load_run(run)
    folder, stored = finished.path, finished.metrics
    methods = resolve_methods(names or (), settings)
    unavailable = set_members(names or ()) & stored.get("left_out", {}).keys()
    methods = {name: method for name, method in methods.items() if name not in unavailable}
    if names is None:
        methods = {**resolve_methods(stored["methods"]), **methods}
    of = condition_results_of(folder, methods)
    decisions = {name: of[method.condition].decide(method) for name, method in methods.items()}
    spec = RunSpec.model_validate(read_spec(folder))
    return metrics_document(spec, list(of.values()), methods, decisions, seed=seed, metadata=RunMetadata.again(stored))
