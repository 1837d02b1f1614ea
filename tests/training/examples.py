"""Pairs for training on: requests of training samples, each with its right answer chosen."""

from __future__ import annotations

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.models.registry import load_model
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation
from lad_eval.training.answers import training_samples
from lad_eval.training.pairs import AnswerPair, PairSet

TASK = "scenes_random_n2"
MODEL = "random:qwen2.5-vl"


def examples(count):
    task = load_task(TASK)
    made = []
    for index, sample in enumerate(training_samples(task, count)):
        request = task.request(sample, Permutation.identity(2).shifted(index))
        gold = request.gold_position
        made.append((request, AnswerPair(TASK, sample.id, request.permutation.order, request.key, gold, 1 - gold)))
    return made


def write_pairs(folder, count, **changes):
    """A folder as `lad-eval capl answers` leaves it; half of the pairs prefer the first position."""
    folder.mkdir()
    chosen = [pair for _, pair in examples(2 * count)]
    halves = [[pair for pair in chosen if pair.chosen == position][: count // 2] for position in (0, 1)]
    fields = {
        "pairs": tuple(halves[0] + halves[1]),
        "candidates": 2,
        "made_from": {"model": dict(load_model(MODEL).fingerprint), "chosen": Capl().facts},
        "requests": count,
        "limit": 2 * count,
    }
    PairSet(**{**fields, **changes}).save(folder)
    return folder
