"""Results in the formats of the Hugging Face hub: a model card's `model-index`, and files for `.eval_results/`.

Conventions as of November 2026:

- `model-index` in the front matter of a model's README.md: https://github.com/huggingface/hub-docs/blob/main/modelcard.md, the
  form that `huggingface_hub.EvalResult` writes. The hub calls it the legacy form, and shows it.
- `.eval_results/*.yaml` in the model's repository: https://huggingface.co/docs/hub/eval-results, the form that
  `huggingface_hub.EvalResultEntry` writes. A value belongs to a benchmark: a data set on the hub whose `eval.yaml` names the
  task; the hub shows values of the benchmarks that it lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lad_eval.errors import UserError
from lad_eval.report.render import render
from lad_eval.run.folder.rows import Row, rows_of

TASK_TYPE = "image-text-to-text"
SOURCE = "lad_eval"
_METRICS = (
    ("accuracy", "accuracy", "Accuracy"),
    ("rstd", "recall_std", "RStd of the recall over positions"),
    ("consistency", "consistency", "Consistency over displayed orders"),
)


class CardError(UserError):
    """Results that no card can be made from."""


@dataclass(frozen=True)
class ResultsLink:
    """Where results can be seen, and whose they are on the hub.

    Attributes:
        url: of the results.
        user: name of a user of the hub.
        org: name of an organisation of the hub.
    """

    url: str
    user: str | None = None
    org: str | None = None


def model_card(runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], methods: Sequence[str] | None = None) -> str:
    """A README.md: `model-index` as front matter, and the tables as text.

    Args:
        runs: `metrics.json` and `spec.json` of runs of one model.
        methods: only these, in this order; default: all.

    Raises:
        CardError: the runs are of several models or none, two are of one task, or a method is missing.
    """
    from huggingface_hub import ModelCard, ModelCardData

    name = _one_model([metrics for metrics, _ in runs])
    results = [result for metrics, spec in runs for result in _eval_results(metrics, spec, methods)]
    data = ModelCardData(
        model_name=name.rpartition("/")[2] or name,
        pipeline_tag=TASK_TYPE,
        tags=["position-bias", "multi-image", "lad_eval"],
        eval_results=results,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(name, [metrics for metrics, _ in runs], methods)}"))


def eval_results(
    runs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    method: str,
    *,
    dataset: str,
    revision: str | None = None,
    date: str | None = None,
    source: ResultsLink | None = None,
) -> str:
    """A file for `.eval_results/`: the accuracy of one method, one entry per task.

    Args:
        runs: as for `model_card`.
        method: the hub's entries have one value each and no field for a method; it is given in the notes.
        dataset: hub id of the benchmark whose `eval.yaml` lists the tasks.
        revision: commit of that data set, 40 hex digits.
        date: when the runs were made, ISO 8601; a run does not record it, and without it the hub takes the time of the upload.
        source: where the results can be seen.

    Raises:
        CardError: as for `model_card`; or an accuracy is unknown, or one of the hub's fields has a value that it refuses.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    _one_model([metrics for metrics, _ in runs])
    check_dataset_id(dataset)
    if revision is not None and not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise CardError(f"{revision!r} is not the commit of a data set; write its 40 hex digits.")
    if date is not None:
        _check_date(date)
    entries = []
    for metrics, spec in runs:
        (row,) = _rows(metrics, [method])
        if row.accuracy is None:
            raise CardError(f"{metrics['task']}: the accuracy of {method} is unknown.")
        entries.append(
            EvalResultEntry(
                dataset_id=dataset,
                task_id=metrics["task"],
                value=round(row.accuracy, 2),
                dataset_revision=revision,
                date=date,
                source_url=None if source is None else source.url,
                source_name=None if source is None else SOURCE,
                source_user=None if source is None else source.user,
                source_org=None if source is None else source.org,
                notes=f"{method}; {_setting(metrics, spec)}{_interval(row)}",
            )
        )
    return str(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000))


def check_dataset_id(dataset: str) -> None:
    """Refuses what cannot be a data set's id on the hub.

    Raises:
        CardError: it is not of the form owner/name.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset, flags=re.ASCII):
        raise CardError(f"{dataset!r} is not the id of a data set on the hub; write owner/name.")


def _check_date(text: str) -> None:
    try:
        # Python 3.10 does not read the Z of UTC.
        datetime.fromisoformat(re.sub(r"Z$", "+00:00", text))
    except ValueError:
        raise CardError(f"{text!r} is not a date of ISO 8601; write 2026-11-27 or 2026-11-27T10:30:00Z.") from None


def _eval_results(metrics: Mapping[str, Any], spec: Mapping[str, Any], methods: Sequence[str] | None) -> list[Any]:
    from huggingface_hub import EvalResult

    definition, digests = spec.get("definition", {}), spec.get("digests", {})
    results = []
    for row in _rows(metrics, methods):
        for part, kind, name in _METRICS:
            value = getattr(row, part)
            if value is None:
                continue
            arguments = {"method": row.method}
            if part == "accuracy" and row.accuracy_low is not None and row.accuracy_high is not None:
                arguments["interval_95"] = f"{row.accuracy_low:.2f} to {row.accuracy_high:.2f}"
            results.append(
                EvalResult(
                    task_type=TASK_TYPE,
                    task_name="Questions over several images",
                    dataset_type=metrics["task"],
                    dataset_name=metrics["task"],
                    dataset_config=f"version {definition.get('version', 1)}",
                    dataset_split="test" if metrics.get("limit") is None else f"test[:{metrics['limit']}]",
                    dataset_args={
                        "candidates": metrics["candidates"],
                        "permutations": row.permutations,
                        "samples": row.samples,
                        "data": str(digests.get("data", "")),
                    },
                    metric_type=kind,
                    metric_name=f"{name} ({row.method})",
                    metric_value=round(value, 2),
                    metric_args=arguments,
                )
            )
    return results


def _rows(metrics: Mapping[str, Any], methods: Sequence[str] | None) -> list[Row]:
    there = list(metrics.get("methods", {}))
    if missing := [name for name in methods or () if name not in there]:
        raise CardError(f"{metrics['task']} has no {', '.join(missing)}, only {', '.join(there)}.")
    try:
        return rows_of(metrics, methods)
    except (KeyError, TypeError) as error:
        raise CardError(f"The figures on {metrics['task']} are damaged; run it again.") from error


def _one_model(all_metrics: Sequence[Mapping[str, Any]]) -> str:
    if any("model" not in metrics or "task" not in metrics for metrics in all_metrics):
        raise CardError("A metrics file names no model or no task: it was not written by lad_eval.")
    models = list(dict.fromkeys(str(metrics["model"]) for metrics in all_metrics))
    if len(models) != 1:
        which = f"these runs are of {', '.join(models)}" if models else "there are none"
        raise CardError(f"A card is made from the runs of one model; {which}. Choose with --model.")
    tasks = [metrics["task"] for metrics in all_metrics]
    if twice := sorted({task for task in tasks if tasks.count(task) > 1}):
        raise CardError(f"There are several runs on {', '.join(twice)}; name one run folder of each task.")
    return models[0]


def _text(name: str, all_metrics: Sequence[Mapping[str, Any]], methods: Sequence[str] | None) -> str:
    tables = render([row for metrics in all_metrics for row in _rows(metrics, methods)], "md")
    settings = "\n".join(f"- `{metrics['task']}`: {_setting(metrics, {})}" for metrics in all_metrics)
    return (
        f"# Position bias of {name}\n\n"
        "Every question was evaluated under several displayed orders of its images or options. Accuracy is the mean over orders, "
        "with a 95 % cluster bootstrap interval over samples; RStd is the standard deviation of the recall over the positions "
        "of the right answer, in points; consistency is the share of samples for which the same answer is chosen "
        "under all orders.\n\n"
        f"{tables}\n\n{settings}\n"
    )


def _setting(metrics: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    counts = metrics.get("counts", {})
    part = "" if metrics.get("limit") is None else ", only the first samples of the task"
    version = spec.get("definition", {}).get("version")
    return (
        f"{counts.get('samples', '?')} samples x {counts.get('permutations', '?')} displayed orders{part}"
        f"{'' if version is None else f', task version {version}'}, {metrics.get('dtype')}, "
        f"{metrics.get('attention_implementation')} attention, lad_eval {metrics.get('versions', {}).get('lad_eval', '?')}"
    )


def _interval(row: Row) -> str:
    if row.accuracy_low is None or row.accuracy_high is None:
        return ""
    return f"; 95 % interval {row.accuracy_low:.2f} to {row.accuracy_high:.2f}"
