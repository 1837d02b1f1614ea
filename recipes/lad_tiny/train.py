"""Trains the embedded models from nothing: `python -m recipes.lad_tiny.train [--seed S] [--out DIR]`, or `make tiny`.

lad-tiny in four phases: the vision tower names things (`phases.warm_up`), the decoder retrieves (`phases.learn`), its answers and
its attention are bent (`bias.bend`), two lower layers are skewed (`ramp.skew_lower`). lad-tiny-relations in two more, from the
bent model: pictures look at their twins (`relations.learn_twins`), questions ask for the single one
(`relations.learn_relations`).
`--bent DIR` begins with a stored bent model. About 40 minutes on one core.
"""

from __future__ import annotations

import argparse
import copy
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
from lad_eval.methods import EvidenceMethod, make_method
from lad_eval.models.tiny import RELATIONS, folder
from lad_eval.tasks.sources.scenes import Setting
from recipes.lad_tiny.bias import BiasStrength, bend, candidate_log_probs
from recipes.lad_tiny.build import build_config, build_processor, write_generation_config
from recipes.lad_tiny.data import Album, Sheet, draw_album
from recipes.lad_tiny.network import forward, install, pack
from recipes.lad_tiny.phases import SIZES, Report, learn, picture_features, warm_up
from recipes.lad_tiny.ramp import LowerSkew, skew_lower
from recipes.lad_tiny.relations import SIZES as RELATION_SIZES
from recipes.lad_tiny.relations import draw_twins, learn_relations, learn_twins, relation_accuracies

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
            assert isinstance(method, EvidenceMethod)
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
TWIN_GROUPS = 1000
STEPS = {"vision": 800, "retrieval": 1200, "bias": 350, "lower": 300, "twins": 400, "relations": 250}
VALIDATION_QUESTIONS = 160
RELATION_QUESTIONS = 400


class Clock:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, int] = {}
        self._start = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Ends a phase and begins the next."""
        now = time.perf_counter()
        self.seconds[phase], self._start = round(now - self._start), now


def _progress(items: Iterable[int]) -> Iterator[int]:
    return iter(track(list(items), "drawing", transient=True))


def train(
    seed: int,
    out: Path,
    report: Report,
    *,
    relations: Path | None = None,
    bent: Path | None = None,
    steps: dict[str, int] = STEPS,
    groups: int = TRAIN_GROUPS,
    twin_groups: int = TWIN_GROUPS,
    questions: int = VALIDATION_QUESTIONS,
) -> dict[str, Any]:
    """Trains, writes the models' folders and returns what is known of lad-tiny: validation figures and seconds per phase.

    Args:
        seed: of weights and of all that is drawn.
        out: folder of lad-tiny.
        report: is given a line now and then.
        relations: folder of lad-tiny-relations; None: it is not trained.
        bent: folder of a model as it is after the third phase, to begin with; None: all phases are run.
        steps: of every phase.
        groups: of training scenes.
        twin_groups: of training scenes of lad-tiny-relations.
        questions: about as many per validated task.
    """
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = build_processor()
    if bent is None:
        model = AutoModelForImageTextToText.from_config(build_config()).to(device)
    else:
        model = AutoModelForImageTextToText.from_pretrained(bent, dtype=torch.float32).to(device)
    install(model)
    clock = Clock()
    album = draw_album("train", groups, 0, processor, _progress).to(device)
    unseen = draw_album("validation", VALIDATION_GROUPS, 0, processor, _progress).to(device)
    sheets = {n: Sheet.of(n, processor) for n in SIZES}
    clock.lap("drawing")
    if bent is None:
        warm_up(model, album, steps["vision"], seed, report)
        clock.lap("vision")
    features, unseen_features = picture_features(model, album), picture_features(model, unseen)
    clock.lap("features")
    if bent is None:
        learn(model, album, features, sheets, steps["retrieval"], seed, report)
        clock.lap("retrieval")
        bend(model, album, features, sheets, steps["bias"], seed, BiasStrength(), report)
        clock.lap("bias")
    related = copy.deepcopy(model) if relations is not None else None
    skew_lower(model, album, features, sheets, steps["lower"], seed, LowerSkew(), report)
    clock.lap("lower")
    save(model, processor, out)
    report("validation")
    figures = validate(model, unseen, unseen_features, sheets, questions, 0)
    clock.lap("validation")
    known = {
        "seed": seed,
        "began with": "nothing" if bent is None else "a stored bent model",
        "steps": {phase: count for phase, count in steps.items() if phase in clock.seconds},
        "seconds": clock.seconds,
        "validation": {task: {name: round(v, 1) for name, v in row.items()} for task, row in figures.items()},
    }
    write_known(out, known)
    if relations is not None:
        train_relations(related, processor, seed, relations, report, steps=steps, groups=twin_groups)
    return known


def train_relations(
    model: Any, processor: Any, seed: int, out: Path, report: Report, *, steps: dict[str, int] = STEPS, groups: int = TWIN_GROUPS
) -> dict[str, Any]:
    """Makes lad-tiny-relations of a bent model, and returns what is known of it."""
    device = next(model.parameters()).device
    clock = Clock()
    album = draw_twins("train", groups, 0, processor, _progress).to(device)
    unseen = draw_twins("validation", VALIDATION_GROUPS, 0, processor, _progress).to(device)
    sheets = {n: Sheet.of(n, processor) for n in RELATION_SIZES}
    features, unseen_features = picture_features(model, album), picture_features(model, unseen)
    clock.lap("drawing")
    learn_twins(model, album, features, sheets, steps["twins"], seed, report)
    clock.lap("twins")
    learn_relations(model, album, features, sheets, steps["relations"], seed, report)
    clock.lap("relations")
    save(model, processor, out)
    figures = {}
    for n in RELATION_SIZES:
        figures[f"relations N={n}"] = relation_accuracies(model, unseen, unseen_features, sheets[n], RELATION_QUESTIONS, 0)
    clock.lap("validation")
    known = {
        "seed": seed,
        "began with": "the bent model",
        "steps": {phase: steps[phase] for phase in ("twins", "relations")},
        "seconds": clock.seconds,
        "validation": figures,
    }
    write_known(out, known)
    return known


def write_known(out: Path, known: dict[str, Any]) -> None:
    (out / "training.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


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
    parser = argparse.ArgumentParser(description="Train the embedded models.")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--out", type=Path, default=folder(), help="folder of lad-tiny")
    parser.add_argument("--relations", type=Path, default=folder(RELATIONS), help="folder of lad-tiny-relations")
    parser.add_argument("--bent", type=Path, help="folder of a model as it is after the third phase; leaves out the first three")
    parser.add_argument("--threads", type=int, default=1, help="on small matrices one thread is the fastest")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console()
    known = train(given.seed, given.out, console.log, relations=given.relations, bent=given.bent)
    for task, figures in known["validation"].items():
        console.log(task, figures)


if __name__ == "__main__":
    main()
