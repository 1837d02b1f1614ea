"""What it saves to run the windows of a vision tower in one attention call."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.models import Plan, describe, load
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.attention.windows import NAME

SINGLY = "sdpa"
GRIDS = {"336 x 336": [(1, 24, 24)] * 4, "476 x 644": [(1, 34, 46)] * 2}


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in (("tiny", "scaled") if plan.device == "cpu" else ("qwen2.5-vl-3b",))]


def _table(name: str, plan: Plan) -> Table:
    network = load(name, plan).model
    rows = []
    for label, sizes in GRIDS.items():
        grid = torch.tensor(sizes, device=network.device)
        values = network.config.vision_config.patch_size**2 * 3 * network.config.vision_config.temporal_patch_size
        pixels = torch.randn(int(grid.prod(-1).sum()), values, device=network.device, dtype=network.dtype)

        def encode(how: str, grid: torch.Tensor = grid, pixels: torch.Tensor = pixels) -> Callable[[int], torch.Tensor]:
            @torch.inference_mode()
            def features(_: int) -> torch.Tensor:
                network.set_attn_implementation({"vision_config": how})
                output = network.get_image_features(pixel_values=pixels, image_grid_thw=grid)
                return torch.cat(list(output.pooler_output))

            return features

        variants = {how: encode(how) for how in (SINGLY, NAME)}
        distance = float((variants[NAME](0) - variants[SINGLY](0)).abs().max())
        timing = take_turns(variants, plan.rounds)
        each = (f"{1e3 * timing.median(how) / len(sizes):.1f}" for how in (SINGLY, NAME))
        rows.append((label, *each, timing.ratio(NAME, SINGLY), f"{distance:.1e}"))
    return Table(
        f"A vision tower's windows as a batch ({describe(name, plan)})",
        ("picture", "one by one, ms", "as a batch, ms", "batch by one by one", "greatest difference of a feature"),
        rows,
        "Pictures of 476 x 644 have smaller windows at their edges, which are batches of their own.",
    )
