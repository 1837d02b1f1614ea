"""A picture of position bias: how often the right image is found, by where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lad_eval.errors import UserError
from lad_eval.report.load import load_run

COLOURS = ("#9aa0a6", "#1a73e8", "#e8710a", "#188038", "#a142f4", "#d93025")


def recall_by_position(gold: npt.NDArray[np.int64], position: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Float[n] in points: the share of questions with the right image at position k that were answered k; NaN where none was."""
    asked = np.bincount(gold, minlength=n).astype(np.float64)
    found = np.bincount(gold[gold == position], minlength=n).astype(np.float64)
    recall: npt.NDArray[np.float64] = np.divide(100 * found, asked, out=np.full(n, np.nan), where=asked > 0)
    return recall


def draw_positions(run: Path, methods: Sequence[str], out: Path) -> None:
    """Draws the recall of these methods of a run into a picture file (.svg, .png, .pdf).

    Raises:
        UserError: the run does not hold a method, matplotlib is not installed, or the file cannot be written.
    """
    stored = load_run(run)
    recalls: dict[str, npt.NDArray[np.float64]] = {}
    for name in methods:
        table = stored.predictions_of(name)
        recalls[name] = recall_by_position(table["gold_position"].to_numpy(), table["position"].to_numpy(), stored.candidates)
    _draw(recalls, f"{stored.metrics['task']} · {stored.metrics['model']}", out)


def _draw(recalls: Mapping[str, npt.NDArray[np.float64]], title: str, out: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("Figures need matplotlib: pip install 'lad-eval[train]'.") from error
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    n = len(next(iter(recalls.values())))
    positions = np.arange(1, n + 1)
    width = 0.8 / len(recalls)
    for place, (name, recall) in enumerate(recalls.items()):
        offset = (place - (len(recalls) - 1) / 2) * width
        axes.bar(positions + offset, recall, width * 0.92, label=name, color=COLOURS[place % len(COLOURS)])
    axes.axhline(100 / n, color="#5f6368", linewidth=1, linestyle=":", label="chance")
    axes.set(xlabel="position of the right image", ylabel="found (%)", ylim=(0, 100), xticks=positions)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(recalls) + 1, loc="lower left", bbox_to_anchor=(0, 1.08), fontsize=9)
    try:
        # No date in the file: drawing the same figures again gives the same bytes.
        figure.savefig(out, dpi=160, metadata={"Date": None} if out.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot draw into {out}: {error}.") from error
