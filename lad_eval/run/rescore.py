"""Deciding again from what a run stored: no model, no torch, no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lad_eval.run.answered import answered_of
from lad_eval.run.folder import METRICS, ResultsError, read_metrics, read_spec
from lad_eval.run.lineup import line_up
from lad_eval.run.results import metrics_document
from lad_eval.run.spec import RunSpec
from lad_eval.run.stored import find_run
from lad_eval.run.told import Told


def rescore(run: Path, names: Sequence[str] | None = None, *, settings: Sequence[str] = (), seed: int = 42) -> dict[str, Any]:
    """A document like the run's `metrics.json`, decided anew; nothing is written.

    Args:
        run: a run's folder, or a folder above it that holds no other run.
        names: methods; default: those that the settings change, else those of the run.
        settings: texts such as "lad.top_k=4". A method with settings is named with them, `lad(top_k=4)`.
        seed: of the bootstrap.

    Raises:
        UserError: there is no finished run, it did not ask what a method needs, or a method, parameter or value does not exist.
    """
    folder = find_run(run)
    if not (folder / METRICS).is_file():
        raise ResultsError(f"The run in {folder} is not finished; the command that began it goes on with it.")
    stored = read_metrics(folder)
    default = [] if settings else list(stored["methods"])
    methods = line_up(default if names is None else names, settings)
    of = answered_of(folder, methods)
    decisions = {name: of[method.condition].decide(method) for name, method in methods.items()}
    spec = RunSpec.model_validate(read_spec(folder))
    return metrics_document(spec, list(of.values()), methods, decisions, seed=seed, told=Told.again(stored))
