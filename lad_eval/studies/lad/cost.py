"""Time and memory per answer, measured on the model itself (Table 2)."""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from lad_eval.errors import DataError
from lad_eval.files.documents import write_json
from lad_eval.models.base import VLM
from lad_eval.run.folder import files
from lad_eval.studies.lad.family import TaskFamily
from lad_eval.studies.timing import time_in_turns, wall_clock
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.task import Task

SIZES = (4, 8, 12)
"""Numbers of images N at which costs are measured."""
QUERIES = 16
ROUNDS = 3
FILE = "costs.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnswerCost:
    """The cost of one kind of answer with N images; medians over alternating rounds.

    Attributes:
        kind: "vanilla" or "with evidence".
        seconds: per query, preparation included.
        ratio: of `seconds` to the plain answer's, the median of the rounds' ratios.
        peak_bytes: peak GPU memory during the rounds; None without a GPU.
    """

    candidates: int
    kind: str
    seconds: float
    ratio: float
    peak_bytes: int | None


def measure_task(model: VLM, task: Task, *, queries: int = QUERIES, rounds: int = ROUNDS) -> list[AnswerCost]:
    """Cost of a plain answer (one greedy token) and of an answer with evidence.

    Each round takes new samples, so that no image features are in the model's cache.
    """
    samples = itertools.cycle(task.samples("test", queries * (rounds + 1)))
    order = task.orders[0]
    batches = [[task.request(s, order) for s in itertools.islice(samples, queries)] for _ in range(rounds + 1)]
    kinds = {
        "vanilla": wall_clock(lambda requests: model.generate(requests, max_new_tokens=1)),
        "with evidence": wall_clock(model.evidence),
    }
    return [AnswerCost(task.candidates, kind, **asdict(timing)) for kind, timing in time_in_turns(kinds, batches).items()]


def measure_costs(model: VLM, family: TaskFamily, limit: int | float | None, folder: Path) -> None:
    """Measures the costs at every N that the family has, and writes them into the folder.

    Called before anything else is run, since cached image features would cost less. Nothing is written where the
    tasks' data is missing.
    """
    try:
        tasks = [load_task(family.tasks["random", n]) for n in SIZES if family.has("random", n)]
    except DataError as error:
        logger.warning("Time and memory are not measured: %s", error)
        return
    queries = min(QUERIES, int(limit or QUERIES))
    costs = [cost for task in tasks for cost in measure_task(model, task, queries=queries)]
    if costs:
        write_json(folder / FILE, {"costs": [asdict(cost) for cost in costs]})


def read_costs(folder: Path) -> list[AnswerCost]:
    """The costs that were measured in the folder; none where they were not.

    Raises:
        ResultsError: the file is damaged.
    """
    path = folder / FILE
    return [AnswerCost(**cost) for cost in files.read_run_json(path)["costs"]] if path.is_file() else []
