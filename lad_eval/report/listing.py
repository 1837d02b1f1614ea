"""Names that the command line takes, a line each with what they stand for."""

from __future__ import annotations


def listing(kind: str) -> list[str]:
    """Lines for `kind`: "tasks", "methods" or "models". Imports neither torch nor transformers."""
    if kind == "tasks":
        from lad_eval.tasks.registry import task_names

        return list(task_names())
    if kind == "methods":
        from lad_eval.methods import method_names

        return list(method_names())
    from lad_eval.models.registry import model_names

    return list(model_names())
