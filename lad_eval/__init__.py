"""Measure and repair position bias in multi-image evaluation of vision-language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lad_eval.version import __version__ as __version__

if TYPE_CHECKING:
    from lad_eval.evaluation import RunResult as RunResult
    from lad_eval.evaluation import evaluate as evaluate
    from lad_eval.evidence.table import Evidence as Evidence
    from lad_eval.models.registry import load_model as load_model
    from lad_eval.ranking.ranker import Ranker as Ranker
    from lad_eval.run.collect import collect as collect
    from lad_eval.tasks.registry import load_task as load_task

__all__ = ["Evidence", "Ranker", "RunResult", "collect", "evaluate", "load_model", "load_task"]

_HOME = {
    "Evidence": "lad_eval.evidence.table",
    "Ranker": "lad_eval.ranking.ranker",
    "RunResult": "lad_eval.evaluation",
    "collect": "lad_eval.run.collect",
    "evaluate": "lad_eval.evaluation",
    "load_model": "lad_eval.models.registry",
    "load_task": "lad_eval.tasks.registry",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import lad_eval` and the command line answer at once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
