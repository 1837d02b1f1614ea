"""Names that the command line takes, a line each with what they stand for."""

from __future__ import annotations

from collections.abc import Iterable


def listing(kind: str) -> list[str]:
    """Lines for `kind`: "tasks", "methods" or "models". Imports neither torch nor transformers."""
    if kind == "tasks":
        return _columns(_tasks())
    if kind == "methods":
        from lad_eval.methods import describe_method, method_names

        return _columns((name, describe_method(name)) for name in method_names())
    from lad_eval.models.registry import model_names

    names = ((name, "embedded" if name == "lad-tiny" else "random weights") for name in model_names())
    return _columns([*names, ("<folder>", "a model folder of transformers"), ("<org>/<name>", "a model on the hub")])


def _tasks() -> Iterable[tuple[str, str]]:
    from lad_eval.errors import UserError
    from lad_eval.tasks.registry import groups, load_spec, task_names

    def described(name: str) -> str:
        try:
            return load_spec(name).description
        except UserError as error:
            return f"cannot be used: {error}"

    yield from ((name, described(name)) for name in task_names())
    for name, members in groups().items():
        yield name, f"group of {len(members)} tasks: {', '.join(members)}"


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    table = list(rows)
    width = max((len(name) for name, _ in table), default=0)
    return [f"{name:<{width}}  {text}".rstrip() for name, text in table]
