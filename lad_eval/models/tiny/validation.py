"""What the choices of the recipe are made on: every method on scenes that are in no task.

The recipe is a program on top of the whole package, so that it may read methods; nothing of the package imports it.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lad_eval.evidence import Evidence
from lad_eval.methods import make_method
from lad_eval.models.tiny.bias import candidate_log_probs
from lad_eval.models.tiny.data import Album, Sheet
from lad_eval.models.tiny.network import forward, pack
from lad_eval.tasks.sources.scenes import Setting

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
