"""Checks a model against its baseline, by running it or from stored evidence, and writes baselines."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

from lad_eval.errors import Interrupted, UserError
from lad_eval.files.atomic import Scratch
from lad_eval.methods import DEFAULT_METHODS
from lad_eval.metrics import Grid
from lad_eval.models.source import display_name
from lad_eval.regression.baseline import (
    Baseline,
    BaselineError,
    Options,
    QuestionDigests,
    Renewal,
    TaskBaseline,
    answers_of,
    figures_of,
    read_baseline,
    shared_orders,
    write_baseline,
)
from lad_eval.regression.evidence import (
    decided_again,
    keep_evidence,
    kept_evidence,
    questions_now,
    run_with_evidence,
)
from lad_eval.regression.result import Pair, changed_questions, environment_changes, judge, pair_up
from lad_eval.regression.text import CheckResult, Rule
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.files import read_spec
from lad_eval.run.folder.metadata import checkout
from lad_eval.run.folder.stored import StoredRun, finished_runs
from lad_eval.run.settings import Settings
from lad_eval.tasks.registry import load_spec, resolve
from lad_eval.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckOptions:
    """How a fresh check runs the model.

    Attributes:
        model: instead of the baseline's.
        options: of the model, fields of `Settings`, instead of the baseline's.
        out: folder for the runs, which are resumed after an interruption; None: nothing is kept.
        quiet: no progress.
    """

    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Questions:
    """Some tasks that are run with the same options; without methods, each with the default ones that can answer it."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...] | None
    limit: int | None


def replay(path: Path, runs: Path | None = None) -> CheckResult:
    """Decides again from stored evidence, in seconds and without the model. Any flipped decision is a finding.

    Args:
        path: of the baseline.
        runs: a folder of runs with the evidence; None: the baseline's own evidence.

    Raises:
        UserError: the baseline or the evidence is missing or damaged.
    """
    baseline, result = read_baseline(path), CheckResult(replayed=True)
    pairs: list[Pair] = []
    for name, base in baseline.tasks.items():
        _compare_questions(result, name, base)
        model = display_name(baseline.model, baseline.options.adapter)
        folder = kept_evidence(path, name, base) if runs is None else run_with_evidence(runs, model, name, base)
        grids = decided_again(folder, base.methods, base.samples)
        pairs += pair_up(result, name, base, grids)
    judge(result, pairs)
    return result


def check(path: Path, how: CheckOptions, rule: Rule | None = None) -> CheckResult | None:
    """Runs the model again and compares; None in a process that is not the main one.

    Args:
        path: of the baseline.
        how: how the model is run.
    rule: when it fails; None: if a figure became significantly worse.

    Raises:
        UserError: the baseline is missing or damaged, or the model cannot be run.
    """
    baseline, result = read_baseline(path), CheckResult(replayed=False, rule=rule or Rule())
    pairs: list[Pair] = []
    for name, base in baseline.tasks.items():
        _compare_questions(result, name, base)
    settings = _settings(how.model or baseline.model, {**baseline.options.settings(), **how.options}, how)
    with _runs_of(settings, _questions(baseline.tasks.values()), how.out) as runs:
        if runs is None:
            return None
        for name, base in baseline.tasks.items():
            run = _run_of(runs, name, base.limit)
            environment_changes(result, name, base, read_spec(run.path)["fingerprint"])
            pairs += pair_up(result, name, base, _grids(run, base.methods))
    judge(result, pairs)
    return result


def write(
    path: Path, how: CheckOptions, reason: str, questions: Questions | None = None, *, with_evidence: bool = True
) -> tuple[Baseline, CheckResult] | None:
    """Writes or renews a baseline from a fresh run; None in a process that is not the main one.

    Args:
        path: of the baseline; its other tasks are kept.
        how: how the model is run; defaults are those of the baseline that is renewed.
        reason: stored in the file.
        questions: None: those of the baseline that is renewed.
        with_evidence: keep the evidence next to it, so that it can be replayed.

    Returns:
        The baseline, and how it differs from the one before.

    Raises:
        UserError: no reason, neither a baseline to renew nor questions, or the model cannot be run.
    """
    if not reason.strip():
        raise UserError("A baseline is written for a reason: --reason 'why the answers may change'.")
    old = read_baseline(path) if path.exists() else None
    model = how.model or (old.model if old else None)
    groups = [questions] if questions else _questions(old.tasks.values()) if old else []
    if model is None or not groups:
        raise BaselineError(f"There is no baseline {path} to renew; a new one needs --model and --tasks.")
    settings = _settings(model, {**(old.options.settings() if old else {}), **how.options}, how)
    result, tasks = CheckResult(replayed=False), dict(old.tasks) if old else {}
    pairs: list[Pair] = []
    with _runs_of(settings, groups, how.out) as runs:
        if runs is None:
            return None
        for group in groups:
            for task in resolve(group.tasks):
                name = load_spec(task).name
                run = _run_of(runs, name, group.limit)
                made = _task_baseline(task, group, run)
                if name in tasks and tasks[name].methods == made.methods:
                    grids = {m: grid.only(tasks[name].samples) for m, grid in _grids(run, made.methods).items()}
                    pairs += pair_up(result, name, tasks[name], grids)
                stored = keep_evidence(run.path, path, name) if with_evidence else {}
                tasks[name] = made.model_copy(update={"evidence": stored})
    judge(result, pairs)
    fingerprint = next(iter(tasks.values())).fingerprint
    loaded = {name: value for name, value in settings_options(settings).items() if value is not None}
    # Running third-party code must be enabled on the command line each time, not in a file that others may have written.
    if "/" in str(loaded.get("attn", "")):
        del loaded["attn"]
    options = Options.model_validate({**loaded, "trust_remote_code": False, "dtype": fingerprint.get("dtype")})
    today = datetime.now(timezone.utc).date().isoformat()
    renewal = Renewal(date=today, reason=reason.strip(), lad_eval=__version__, commit=checkout()["commit"])
    renewals = (*(old.renewals if old else ()), renewal)
    baseline = Baseline(renewals=renewals, model=model, options=options, tasks=tasks)
    write_baseline(path, baseline)
    return baseline, result


def settings_options(settings: Settings) -> dict[str, Any]:
    """The loading options that a baseline stores."""
    names = ("dtype", "attn", "revision", "adapter", "image_preparation", "trust_remote_code", "seed")
    return {name: getattr(settings, name) for name in names}


def _compare_questions(result: CheckResult, name: str, base: TaskBaseline) -> None:
    now, unseen = questions_now(base.task, base.limit, base.methods)
    result.findings += changed_questions(name, base.asked, now)
    if unseen is not None:
        result.notes.append(f"{name}: only its definition and prompt were compared, not its data. {unseen}")


def _settings(model: str, options: dict[str, Any], how: CheckOptions) -> Settings:
    return Settings(model=model, quiet=how.quiet, **options)


def _questions(tasks: Any) -> list[Questions]:
    """The tasks, those with the same options together, so that the model is loaded once for them."""

    def alike(base: TaskBaseline) -> tuple[tuple[str, ...], int]:
        return base.methods, -1 if base.limit is None else base.limit

    grouped = [list(group) for _, group in groupby(sorted(tasks, key=alike), key=alike)]
    return [Questions(tuple(base.task for base in group), group[0].methods, group[0].limit) for group in grouped]


@contextmanager
def _runs_of(settings: Settings, groups: Sequence[Questions], out: Path | None) -> Iterator[list[StoredRun] | None]:
    """The finished runs of all groups; None in a process that is not the main one."""
    with Scratch("check") as scratch:
        place = Path(scratch) if out is None else out
        for group in groups:
            settings_of_group = replace(settings, tasks=group.tasks, methods=group.methods, limit=group.limit, out=place)
            try:
                rows = run_tasks(settings_of_group)
            except Interrupted:
                if out is not None:
                    raise
                raise Interrupted("Interrupted; nothing is kept. With --runs the same command would resume.") from None
            if rows is None:
                yield None
                return
        yield list(finished_runs(place))


def _run_of(runs: Sequence[StoredRun], task: str, limit: int | None) -> StoredRun:
    """The latest finished run of a task, since `out` may hold earlier ones."""
    candidates = [run for run in runs if (run.metrics["task"], run.metrics["limit"]) == (task, limit)]
    return max(candidates, key=lambda run: (run.path / "metrics.json").stat().st_mtime_ns)


def _grids(run: StoredRun, methods: Sequence[str]) -> dict[str, Grid]:
    return {method: run.predictions_of(method).grid for method in methods}


def _task_baseline(task: str, group: Questions, run: StoredRun) -> TaskBaseline:
    methods = group.methods or tuple(name for name in DEFAULT_METHODS if name in run.methods)
    grids = _grids(run, methods)
    now, unseen = questions_now(task, group.limit, methods)
    if now.data is None or now.requests is None:
        raise BaselineError(f"{task}: {unseen}")
    grid = next(iter(grids.values()))
    return TaskBaseline(
        task=task,
        limit=group.limit,
        candidates=grid.n_candidates,
        asked=QuestionDigests(
            version=now.version, definition=now.definition, data=now.data, prompt=now.prompt, requests=now.requests
        ),
        orders=shared_orders(grid),
        fingerprint=read_spec(run.path)["fingerprint"],
        figures={name: figures_of(grid) for name, grid in grids.items()},
        answers=answers_of(grids),
    )
