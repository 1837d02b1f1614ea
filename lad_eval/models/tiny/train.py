"""Trains the embedded model from nothing: `python -m lad_eval.models.tiny.train [--seed S] [--out DIR]`, or `make tiny`.

Three phases: the vision tower names things (`phases.warm_up`), the decoder retrieves (`phases.learn`), its answers and its
attention are bent (`bias.bend`). About 25 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from lad_eval.models.tiny import folder
from lad_eval.models.tiny.bias import BiasStrength, bend
from lad_eval.models.tiny.build import build_config, build_processor, write_generation_config
from lad_eval.models.tiny.data import Sheet, draw_album
from lad_eval.models.tiny.network import install
from lad_eval.models.tiny.phases import SIZES, Report, learn, picture_features, warm_up
from lad_eval.models.tiny.validation import validate

DEFAULT_SEED = 20
TRAIN_GROUPS = 2000
VALIDATION_GROUPS = 60
STEPS = {"vision": 800, "retrieval": 1200, "bias": 350}
VALIDATION_QUESTIONS = 160


def train(
    seed: int,
    out: Path,
    report: Report,
    *,
    steps: dict[str, int] = STEPS,
    groups: int = TRAIN_GROUPS,
    questions: int = VALIDATION_QUESTIONS,
) -> dict[str, Any]:
    """Trains, writes the model's folder and returns what is known of it: validation figures and seconds per phase."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = build_processor()
    model = AutoModelForImageTextToText.from_config(build_config()).to(device)
    install(model)
    seconds = {}
    start = time.perf_counter()

    def lap(phase: str) -> None:
        nonlocal start
        seconds[phase], start = round(time.perf_counter() - start), time.perf_counter()

    def progress(items: Iterable[int]) -> Iterator[int]:
        return iter(track(list(items), "drawing", transient=True))

    album = draw_album("train", groups, 0, processor, progress).to(device)
    unseen = draw_album("validation", VALIDATION_GROUPS, 0, processor, progress).to(device)
    sheets = {n: Sheet.of(n, processor) for n in SIZES}
    lap("drawing")
    warm_up(model, album, steps["vision"], seed, report)
    features, unseen_features = picture_features(model, album), picture_features(model, unseen)
    lap("vision")
    learn(model, album, features, sheets, steps["retrieval"], seed, report)
    lap("retrieval")
    bend(model, album, features, sheets, steps["bias"], seed, BiasStrength(), report)
    lap("bias")
    save(model, processor, out)
    report("validation")
    figures = validate(model, unseen, unseen_features, sheets, questions, 0)
    lap("validation")
    known = {
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "validation": {task: {name: round(v, 1) for name, v in row.items()} for task, row in figures.items()},
    }
    (out / "training.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return known


def save(model: Any, processor: Any, out: Path) -> None:
    """Configuration, processor and weights (rounded to bfloat16, in the model too)."""
    out.mkdir(parents=True, exist_ok=True)
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    processor.save_pretrained(out)
    model.set_attn_implementation("sdpa")
    stored = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    model.save_pretrained(out, state_dict=stored)
    write_generation_config(out)
    install(model)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model lad-tiny.")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--out", type=Path, default=folder())
    parser.add_argument("--threads", type=int, default=1, help="on small matrices one thread is the fastest")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console()
    known = train(given.seed, given.out, console.log)
    for task, figures in known["validation"].items():
        console.log(task, figures)


if __name__ == "__main__":
    main()
