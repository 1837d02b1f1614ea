"""Trains the embedded model from nothing: `python -m recipes.lad_tiny.train [--seed S] [--out DIR]`, or `make tiny`.

Three phases: the vision tower names things (`phases.warm_up`), the decoder retrieves (`phases.learn`), its answers and its
attention are bent (`bias.bend`). About 25 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lad_eval.evidence.table import Evidence
from lad_eval.methods import make_method
from lad_eval.models.tiny import folder
from lad_eval.tasks.sources.scenes import Setting
from recipes.lad_tiny.bias import BiasStrength, bend, candidate_log_probs
from recipes.lad_tiny.build import build_config, build_processor, write_generation_config
from recipes.lad_tiny.data import Album, Sheet, draw_album
from recipes.lad_tiny.network import forward, install, pack
from recipes.lad_tiny.phases import SIZES, Report, learn, picture_features, warm_up

METHODS = ("vanilla", "pride", "raw-attention", "purified-attention", "lad")
CALIBRATION_SAMPLES = 5


@torch.no_grad()
def look(
    model: Any,
    album: Album,
    features: Tensor,
    sheet: Sheet,
    setting: Setting,
    sets: int,
    seed: int,
    split: str = "test",
    asked: int | None = None,
) -> Evidence:
    """Evidence of `asked` (default N) questions about each of `sets` sets, under all N cyclic shifts of the pictures."""
    n = sheet.n
    generator = random.Random(f"validation/{seed}/{split}/{setting}/{n}")
    shifts = torch.arange(n)
    log_probs, attention, gold, names, orders = [], [], [], [], []
    for s in range(sets):
        candidates = album.candidates(setting, n, generator)
        images = torch.tensor([[candidates[(j - k) % n] for j in range(n)] for k in range(n)])
        about = torch.tensor(generator.sample(range(n), asked or n))
        turned = torch.tensor([generator.randrange(2) for _ in about]).expand(n, -1)
        places = (about + shifts[:, None]) % n
        questions = pack(album, sheet, images, places, turned, torch.full_like(places, n - 1))
        trace = forward(model, questions, features)
        log_probs.append(candidate_log_probs(trace.logits, sheet).transpose(0, 1).reshape(-1, n))
        attention.append(trace.attention.transpose(0, 1).flatten(0, 1))
        gold.append(places.T.reshape(-1))
        for q in about.tolist():
            names += [f"{split}-{s}-{q}"] * n
            orders += [[(j - k) % n for j in range(n)] for k in range(n)]
    arrays = torch.cat(log_probs).double().cpu().numpy(), torch.cat(attention).double().cpu().numpy(), torch.cat(gold).numpy()
    return Evidence.from_arrays(*arrays, names, perm=orders, split=split)


def accuracies(evidence: Evidence, calibration: Evidence, **changes: Any) -> dict[str, float]:
    """Accuracy in points of every method, and of permutation averaging over the shifts; `changes` go to LAD."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in METHODS:
            method = make_method(name, **(changes if name == "lad" else {}))
            answers = (method.calibrate(calibration) if method.calibrates else method).predict(evidence)
            found[name] = 100 * float(np.mean(np.asarray(answers) == evidence.gold_position))
    n = evidence.n_candidates
    shifted = evidence.log_probs.reshape(-1, n, n)
    by_image = np.stack([np.roll(shifted[:, k], -k, axis=1) for k in range(n)]).mean(0)
    found["permutation-average"] = 100 * float(np.mean(by_image.argmax(1) == evidence.gold_position.reshape(-1, n)[:, 0]))
    return found


def validate(
    model: Any, album: Album, features: Tensor, sheets: dict[int, Sheet], questions: int, seed: int
) -> dict[str, dict[str, float]]:
    """`accuracies` per task, on about `questions` questions each, as `{"random N=4": {"vanilla": ...}}`."""
    table = {}
    for n, sheet in sheets.items():
        for setting in ("random", "adversarial"):
            seen = look(model, album, features, sheet, setting, -(-questions // n), seed)
            calibration = look(model, album, features, sheet, setting, CALIBRATION_SAMPLES, seed, "calibration", asked=1)
            table[f"{setting} N={n}"] = accuracies(seen, calibration)
    return table


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
