"""Methods that decide from replies, where another harness's model writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence.replies import Replies
from lad_eval.methods import Method, canonical_name, make_method
from lad_eval.plugins.documents import Document, open_task, request_of
from lad_eval.tasks.plan import plan
from lad_eval.tasks.prompts import labelling_of, question
from lad_eval.tasks.request import Permutation, Request


def as_written(value: Any) -> Any:
    """A parameter as the user wrote it, where the harness made a list of a text with commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def reply_method(name: str, harness: str) -> Method:
    """The method of a name, if replies are all that it needs.

    Args:
        name: as everywhere, `generate` or `majority+cot(max_new_tokens=256)`.
        harness: whose models are to write them.

    Raises:
        UserError: there is no such method, or it needs what such models do not give.
    """
    label, method = canonical_name(name), make_method(name)
    missing = [requirement.replace("_", "-") for requirement in sorted(method.needs - {"replies"})]
    if method.condition.intervention is not None:
        missing.append(f"a change of the model ({method.condition.intervention.label})")
    if labelling_of(method.condition.prompt_variants) is not None:
        raise UserError(f"{label} puts text between the images, which tasks of {harness} do not; use `lad-eval run`.")
    if missing:
        raise UserError(
            f"{label} needs {' and '.join(missing)}, and models of {harness} give replies only: use generate, "
            "majority+generate, cot or self-consistency, or a model of lad_eval."
        )
    return method


def check_orders(method: Method, task: str) -> None:
    """Whether the task may be shown in the displayed orders that the method needs.

    Raises:
        UserError: it may not.
    """
    opened = open_task(task).task
    plan(opened, limit=1, orders=(method.orders,))
    if method.orders != "identity" and opened.answer_kind != "images":
        raise UserError(f"{opened.name} has texts to choose from, which only `lad-eval run` shows in several orders.")


def requests_behind(document: Document, method: Method) -> list[Request]:
    """What must be asked for an answer, under the method's prompt; the displayed order that is answered first."""
    shown = request_of(document)
    if variants := method.condition.prompt_variants:
        prompt = open_task(document["task"]).task.spec.prompt
        options = shown.options or [f"image {place}" for place in range(1, len(shown.images) + 1)]
        shown = replace(shown, question=question(prompt, shown.caption or "", shown.identifiers, variants, options))
    return [shown.reordered(order) for order in method.displayed_orders(shown.permutation)]


def decided_positions(documents: Sequence[Document], method: Method, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The 0-based displayed position that answers each order of a sample; UNPARSABLE where the replies name none.

    Args:
        documents: of the sample's displayed orders.
        method: that decides.
        rows: the replies to the distinct requests behind them, in their order, as `lad_eval.evidence.replies.row_of` makes them.
            The task's data is not read again.
    """
    if method.orders == "identity":
        place = {key: i for i, key in enumerate(dict.fromkeys(d["key"] for d in documents))}
        index = [[place[d["key"]]] for d in documents]
    else:  # the options are images then, see `check_orders`, and an order is known by its permutation
        row = {tuple(each["perm"]): i for i, each in enumerate(rows)}
        index = [[row[order.order] for order in method.displayed_orders(Permutation(tuple(d["order"])))] for d in documents]
    return [int(position) for position in method.decide(Replies.of(rows, {}), np.asarray(index, dtype=np.int64)).position]
