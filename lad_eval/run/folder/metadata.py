"""Facts of a run that are not in its evidence: where it calibrates, notes on its data, published results."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from lad_eval.run.folder.files import ResultsError
from lad_eval.tasks.plan import Plan
from lad_eval.tasks.sources.base import Noted
from lad_eval.tasks.task import Task
from lad_eval.terminal import counted
from lad_eval.version import __version__


@dataclass(frozen=True)
class RunMetadata:
    """Parts of `metrics.json` that pass through deciding unchanged.

    Attributes:
        environment: facts about this call of the program: device, processes, number of requests run, seconds.
        reported: figures published elsewhere, from the task's definition.
        calibration: where the calibration samples come from, see `calibration_of`.
        notes: for readers of the figures, one line each.
        data: number of the data's rows by their use, where the source counts them.
        left_out: why members of a named set of methods were not run, by name.
    """

    environment: Mapping[str, Any]
    reported: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def again(cls, metrics: Mapping[str, Any]) -> RunMetadata:
        """The metadata in a `metrics.json`, for a run that is decided again; documents of earlier versions lack some.

        Raises:
            ResultsError: it lacks a key that every version wrote.
        """
        try:
            environment = {key: metrics[key] for key in ("device", "processes", "session")}
            environment["study"] = metrics.get("study")
            environment |= {key: metrics[key] for key in ("tokens", "served_models") if key in metrics}
        except KeyError as error:
            raise ResultsError(f"metrics.json lacks {error}; run the command that made the run again to rewrite it.") from error
        return cls(
            environment,
            metrics.get("reported", {}),
            metrics.get("calibration", {}),
            tuple(metrics.get("notes", ())),
            metrics.get("data", {}),
            metrics.get("left_out", {}),
        )


def calibration_of(task: Task, planned: Plan) -> dict[str, Any]:
    """Task, digests and sample ids of the calibration; {} if nothing was calibrated."""
    keys = set(planned.calibration)
    ids = list(dict.fromkeys(request.sample_id for request in planned.requests if request.key in keys))
    if not ids:
        return {}
    origin = task.other or task
    return {"transferred": task.other is not None, **origin.fingerprint, "samples": ids}


def notes_of(task: Task, planned: Plan) -> tuple[tuple[str, ...], dict[str, int]]:
    """Notes of the sources, the task and the plan, once each, and the counts of the task's source."""
    notes = [*(task.source.notes() if isinstance(task.source, Noted) else []), *_bound_notes(task)]
    others = task.other.source.notes() if task.other is not None and isinstance(task.other.source, Noted) else []
    about_other = [f"{task.other.name}: {note}" for note in others if note not in notes] if task.other is not None else []
    counts = task.source.counts() if isinstance(task.source, Noted) else {}
    return tuple(dict.fromkeys([*notes, *about_other, *planned.notes])), dict(counts)


def _bound_notes(task: Task) -> list[str]:
    """How many samples are left out as they cannot be shown in the orders that the task varies, by reason."""
    if not (reasons := task.left_out()):
        return []
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    return [f"{counted(reasons.total(), 'sample')} left out, which cannot be shown in the orders that the task varies: {listed}."]


def about(task: Task, plans: Sequence[Plan]) -> tuple[dict[str, Any], tuple[str, ...], dict[str, int]]:
    """`calibration`, `notes` and `data` of a run with these plans, one per condition."""
    calibration = next((known for plan in plans if (known := calibration_of(task, plan))), {})
    notes, data = notes_of(task, plans[0])
    return calibration, tuple(dict.fromkeys([*notes, *(note for plan in plans for note in plan.notes)])), data


LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "tokenizers", "numpy", "scipy", "pandas", "pillow")


def versions() -> dict[str, str | None]:
    """Installed versions of Python and of the libraries that can change a number; None where one is not installed."""
    return {"lad_eval": __version__, "python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def checkout() -> dict[str, Any]:
    """Git commit and dirty flag of the checkout that lad_eval runs from; both None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    unknown = {"commit": None, "dirty": None}
    if not (root / ".git").exists():
        return unknown
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return unknown if commit is None or status is None else {"commit": commit, "dirty": bool(status)}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
