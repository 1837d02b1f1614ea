"""A picture of position bias: how often the right image is found, by where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lad_eval.errors import UserError

COLOURS = ("#9aa0a6", "#1a73e8", "#e8710a", "#188038", "#a142f4", "#d93025")


def draw_positions(recalls: Mapping[str, Sequence[float | None]], title: str, out: Path) -> None:
    """Draws bars of recall by position into a picture file (.svg, .png, .pdf).

    Args:
        recalls: by method, in points, N positions each; None where no right image stood.
        title: of the picture.
        out: the file.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    n = len(next(iter(recalls.values())))
    positions = np.arange(1, n + 1)
    width = 0.8 / len(recalls)
    for place, (name, recall) in enumerate(recalls.items()):
        offset = (place - (len(recalls) - 1) / 2) * width
        axes.bar(
            positions + offset,
            np.asarray(recall, dtype=np.float64),
            width * 0.92,
            label=name,
            color=COLOURS[place % len(COLOURS)],
        )
    axes.axhline(100 / n, color="#5f6368", linewidth=1, linestyle=":", label="chance")
    axes.set(xlabel="position of the right image", ylabel="found (%)", ylim=(0, 100), xticks=positions)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(recalls) + 1, loc="lower left", bbox_to_anchor=(0, 1.08), fontsize=9)
    try:
        # No date and no random ids in the file: drawing the same figures again gives the same bytes.
        with rc_context({"svg.hashsalt": "lad_eval"}):
            figure.savefig(out, dpi=160, metadata={"Date": None} if out.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot draw into {out}: {error}.") from error
