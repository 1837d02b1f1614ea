"""Copies of lad-tiny that are worse on purpose: noise in the decoder's matrices, or output rows of the digits that are scaled."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lad_eval.models.tiny import folder

FAIR = (1.172, 1.106, 0.975, 0.956)
"""Scales of the output rows of "1" to "4" under which every position is answered about as often as it should."""
TILTED = (1.240, 1.018, 0.920, 0.999)
"""Others, under which vanilla is as accurate as under FAIR but far more biased; searched on the logits of 100 samples."""


def noisy(to: Path, share: float, seed: int = 0) -> Path:
    """A copy whose decoder matrices have normal noise of `share` of their standard deviation."""
    generator = torch.Generator().manual_seed(seed)

    def disturb(name: str, weight: torch.Tensor) -> torch.Tensor:
        if not name.startswith("model.layers.") or weight.ndim != 2:
            return weight
        return weight + share * weight.std() * torch.randn(weight.shape, generator=generator)

    return _copy(to, disturb)


def scaled(to: Path, scales: tuple[float, ...]) -> Path:
    """A copy whose output rows of the digits are scaled, which adds a bias to the digits' logits: these are all positive."""
    digits = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    rows = [digits.token_to_id(str(digit)) for digit in range(1, 1 + len(scales))]

    def tilt(name: str, weight: torch.Tensor) -> torch.Tensor:
        if name == "lm_head.weight":
            weight = weight.clone()
            weight[rows] *= torch.tensor(scales)[:, None]
        return weight

    return _copy(to, tilt)


def _copy(to: Path, change) -> Path:
    shutil.copytree(folder(), to)
    weights = load_file(to / "model.safetensors")
    changed = {name: change(name, weight.float()).contiguous() for name, weight in sorted(weights.items())}
    save_file(changed, to / "model.safetensors", metadata={"format": "pt"})
    config = to / "config.json"
    config.write_text(config.read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    return to
