"""Names that the command line takes, a line each with what they stand for."""

from __future__ import annotations

from collections.abc import Iterable

_ELSEWHERE = (
    ("<folder>", "a model folder of transformers"),
    ("<org>/<name>", "a model on the hub"),
    ("vlmeval:<entry>", "a model of VLMEvalKit; `lad-eval ls models --harness vlmeval` lists them"),
)


def listing(kind: str) -> list[str]:
    """Lines for `kind`: "tasks", "methods", "models" or "studies". Imports neither torch nor transformers."""
    if kind == "tasks":
        rows = list(_tasks())
        hint = (
            ["", "no data: `lad-eval data prepare coco` (flickr8k, mmiu) brings it."]
            if any(r[1] != "ready" for r in rows)
            else []
        )
        return [*_columns(rows), *hint]
    if kind == "methods":
        return _methods()
    if kind == "studies":
        from lad_eval.studies import STUDIES

        return _columns((study.name, study.title) for study in STUDIES.values())
    from lad_eval.models.registry import model_names

    names = ((name, "embedded" if name == "lad-tiny" else "random weights") for name in model_names())
    return _columns([*names, *_ELSEWHERE])


def _tasks() -> Iterable[tuple[str, str, str]]:
    """Name, whether it can be run now, and what it asks."""
    from lad_eval.errors import NotPreparedError, UserError
    from lad_eval.tasks.registry import groups, load_spec, load_task, task_names

    def described(name: str) -> tuple[str, str]:
        try:
            text = load_spec(name).description
        except UserError as error:
            return "broken", f"cannot be used: {error}"
        try:
            load_task(name)
        except NotPreparedError:
            return "no data", text
        except UserError as error:
            return "broken", f"{text} Its data: {error}"
        return "ready", text

    state = {}
    for name in task_names():
        state[name], text = described(name)
        yield name, state[name], text
    for name, members in groups().items():
        states = {state[member] for member in members}
        yield name, states.pop() if len(states) == 1 else "in part", f"group of {len(members)}: {', '.join(members)}"


def _methods() -> list[str]:
    """What each method reads, whether it calibrates, and what an answer costs; then how parts are joined."""
    from lad_eval.methods import describe_method, make_method, method_names, part_names
    from lad_eval.replies import Decoding
    from lad_eval.tasks.plan import RANDOM_ORDERS

    def costs(name: str) -> tuple[str, str]:
        method = make_method(name)
        reads = ", ".join(_READ[need] for need in sorted(method.needs, reverse=True))
        decoding = getattr(method, "decoding", None)
        unit = "pass" if not isinstance(decoding, Decoding) else "reply"
        count = {"identity": "1", "cyclic": "N", "random": str(RANDOM_ORDERS)}[method.views]
        if isinstance(decoding, Decoding) and decoding.samples > 1:
            count = str(decoding.samples)
        many = {"pass": "passes", "reply": "replies"}[unit] if count != "1" else unit
        return reads, f"{count} {many}" + (" + calibration" if method.calibrates else "")

    names = [*method_names(), *(name for name in part_names() if name not in method_names())]
    facts = [(name, *costs(name), describe_method(name)) for name in names]
    widths = [max(len(row[column]) for row in facts) for column in range(3)]
    lines = ["  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[3]]) for row in facts]
    return [*lines, *(f"{'+':<{widths[0]}}  {line}" for line in _JOINED)]


_READ = {"log_probs": "logits", "attention": "attention", "replies": "replies"}
_JOINED = (
    "Parts are joined by +, at most one of a kind: wording (instruction) + intervention (sofa) + views (average-cyclic,",
    "average-random, majority) + decision (all others), such as instruction+lad, sofa:sigma=0.3+pride, majority+generate.",
    "A part that is missing leaves the question, the model and the displayed order as they are, and vanilla decides.",
    "Wordings and interventions ask the model anew; everything else is decided from what is stored.",
)


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    return ["  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in table]
