"""The demo as an image file: one line per order, with the images as shown, the answers, and the model's attention."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.files.atomic import write_atomically
from lad_eval.ranking.demo import Demo, Shown, letter, method_label, model_sentence, repaired_sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_INK, _FAINT, _LINE = "#1f2328", "#6b7280", "#d0d7de"
_RIGHT, _WRONG, _NEUTRAL, _REPAIRED = "#1a7f37", "#cf222e", "#57606a", "#0b5cad"
_INCH, _GAP, _LEFT, _ANSWERS, _HEAD, _FOOT, _BAR = 1.1, 0.16, 0.35, 2.4, 1.35, 0.75, 0.2
_THUMBNAIL_PIXELS = 220


def check_suffix(path: Path) -> None:
    """Refuses an unsuitable file name before any work is done.

    Raises:
        UserError: its ending is not one of SUFFIXES.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: a picture ends in {', '.join(SUFFIXES)}.")


def draw_demo(demo: Demo, path: Path) -> None:
    """Draws the demo into a file, whose suffix determines the format.

    Raises:
        UserError: the ending is not one of SUFFIXES, or the file cannot be written.
        DataError: an image cannot be read.
    """
    from matplotlib import rc_context

    check_suffix(path)
    with rc_context(
        {"font.family": "sans-serif", "svg.hashsalt": "lad_eval", "savefig.facecolor": "white", "text.parse_math": False}
    ):
        figure = _figure(demo)
        try:
            kind = path.suffix.lower().removeprefix(".")
            write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=160, format=kind))
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def _figure(demo: Demo) -> Figure:
    from matplotlib.figure import Figure

    n, rows = len(demo.images), len(demo.rows)
    width = max(7.2, _LEFT + n * (_INCH + _GAP) + _ANSWERS)
    height = _HEAD + rows * (_INCH + _BAR + _GAP) + _FOOT
    figure = Figure(figsize=(width, height))
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, width), ylim=(0, height))
    canvas.axis("off")
    _write(canvas, demo, width, height)
    thumbnails = [_thumbnail(image) for image in demo.images]
    for index, row in enumerate(demo.rows):
        top = height - _HEAD - index * (_INCH + _BAR + _GAP)
        for position, image in enumerate(row.order):
            left = _LEFT + position * (_INCH + _GAP)
            _draw_image(canvas, thumbnails[image], left, top, row, position, demo)
        _draw_answers(canvas, row, _LEFT + n * (_INCH + _GAP) + 0.15, top, demo)
    return figure


def _write(canvas: Any, demo: Demo, width: float, height: float) -> None:
    canvas.text(_LEFT, height - 0.42, _wrapped(f"“{demo.caption}”", width), fontsize=14, weight="bold", color=_INK, va="center")
    right = "" if demo.right is None else f" · the right one is {letter(demo.right)}"
    line = f"{demo.model} · one question, {len(demo.rows)} orders of the same {len(demo.images)} pictures{right}"
    canvas.text(_LEFT, height - 0.76, line, fontsize=9.5, color=_FAINT, va="center")
    method = method_label(demo.method)
    bars = "    bars: where it looked" if demo.rows[0].attention else ""
    legend = f"solid frame: the model's answer    dashed frame: with {method}{bars}"
    canvas.text(_LEFT, height - 1.06, legend, fontsize=8.5, color=_FAINT, va="center")
    canvas.text(_LEFT, 0.55, model_sentence(demo), fontsize=10.5, color=_INK, va="center")
    canvas.text(_LEFT, 0.28, repaired_sentence(demo), fontsize=10.5, color=_REPAIRED, weight="bold", va="center")


def _draw_image(canvas: Any, pixels: Any, left: float, top: float, row: Shown, position: int, demo: Demo) -> None:
    from matplotlib.patches import Rectangle

    image = row.order[position]
    tall, wide = pixels.shape[:2]
    scale = _INCH / max(tall, wide)
    x, y = left + (_INCH - wide * scale) / 2, top - (_INCH + tall * scale) / 2
    canvas.imshow(pixels, extent=(x, x + wide * scale, y, y + tall * scale), aspect="auto", zorder=1)
    canvas.set(xlim=(0, canvas.figure.get_figwidth()), ylim=(0, canvas.figure.get_figheight()))
    _frame(canvas, left, top, 0.0, edgecolor=_LINE, linewidth=0.8, zorder=2)
    if position == row.model_position:
        _frame(canvas, left, top, 0.0, edgecolor=_colour(image, demo), linewidth=3.2, zorder=3)
    if position == row.repaired_position:
        _frame(canvas, left, top, 0.055, edgecolor=_REPAIRED, linewidth=2.2, linestyle="--", zorder=4)
    canvas.text(
        left + 0.09,
        top - 0.1,
        letter(image),
        fontsize=9,
        weight="bold",
        color="white",
        ha="center",
        va="center",
        zorder=5,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": _INK, "edgecolor": "none"},
    )
    if row.attention is not None:
        share = row.attention[image]
        bar = top - _INCH - 0.14
        canvas.add_patch(Rectangle((left, bar), _INCH, 0.07, color="#eaeef2", zorder=1))
        canvas.add_patch(Rectangle((left, bar), _INCH * share, 0.07, color=_REPAIRED, zorder=2))


def _frame(canvas: Any, left: float, top: float, inset: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    side = _INCH - 2 * inset
    canvas.add_patch(Rectangle((left + inset, top - _INCH + inset), side, side, fill=False, **style))


def _draw_answers(canvas: Any, row: Shown, left: float, top: float, demo: Demo) -> None:
    label = method_label(demo.method)
    entries = [("The model", row.model_position, row.model_image, _colour(row.model_image, demo))]
    entries.append((label, row.repaired_position, row.repaired_image, _REPAIRED))
    for line, (who, position, image, colour) in enumerate(entries):
        judgement = "" if demo.right is None else ", right" if image == demo.right else ", wrong"
        y = top - _INCH * (0.32 + 0.42 * line)
        canvas.text(left, y + 0.09, who, fontsize=8.5, color=_FAINT, va="center")
        canvas.text(
            left, y - 0.1, f"{position + 1} = {letter(image)}{judgement}", fontsize=12, weight="bold", color=colour, va="center"
        )


def _colour(image: int, demo: Demo) -> str:
    if demo.right is None:
        return _NEUTRAL
    return _RIGHT if image == demo.right else _WRONG


def _thumbnail(source: Any) -> Any:
    import numpy as np

    image = source.load()
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    return np.asarray(image)


def _wrapped(text: str, width: float) -> str:
    return textwrap.shorten(text, int(width * 9.5), placeholder=" …”")
