"""The demo in a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lad_eval.ranking.demo import Demo, Shown, letter
from lad_eval.terminal import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_BAR = 8
_RIGHT, _WRONG, _REPAIRED = "green", "red", "blue"
_METHODS = {"lad": "LAD", "lad-unlabelled": "LAD without labels", "lad-paper": "LAD as printed", "pride": "PriDe"}


def method_label(name: str) -> str:
    """How a sentence calls a method."""
    return _METHODS.get(name, name)


def demo_text(demo: Demo) -> list[RenderableType]:
    """The demo as rich renderables, at most 80 columns for up to 6 images."""
    from rich.table import Table
    from rich.text import Text

    n, known = len(demo.images), demo.right is not None
    right = f" · the right one is {letter(demo.right)}" if demo.right is not None else ""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 1), header_style="dim")
    looked = any(row.looked_at for row in demo.rows)
    for heading in ("order", "the model answers", *(["it looks at"] if looked else []), f"with {method_label(demo.method)}"):
        table.add_column(heading, no_wrap=True)
    for row in demo.rows:
        cells = [
            Text(" ".join(map(letter, row.order))),
            _answer(row.model_position, row.model_image, demo.right, ""),
            *([_attention(row)] if looked else []),
            _answer(row.repaired_position, row.repaired_image, demo.right, _REPAIRED),
        ]
        table.add_row(*cells)
    head = Text.assemble("Which picture is it?  ", (f'"{visible(demo.caption)}"', "bold"))
    under = Text(f"{visible(demo.model)} · {n} pictures in {len(demo.rows)} orders{right}", style="dim")
    learned = Text(f"{method_label(demo.method)} is calibrated on {visible(demo.calibrated_on)}", style="dim")
    parts: list[RenderableType] = [
        head,
        under,
        learned,
        Text(),
        table,
        Text(),
        Text(model_sentence(demo)),
        Text(repaired_sentence(demo)),
    ]
    if not known:
        parts.append(Text("Pass --right NUMBER to mark the right one.", style="dim"))
    return parts


def model_sentence(demo: Demo) -> str:
    """What the model did, in one sentence."""
    positions = [row.model_position + 1 for row in demo.rows]
    images = demo.model_images
    listed = ", ".join(map(str, positions))
    if len(images) == 1:
        return f"The model names one picture, {letter(images[0])}, in every order: no position bias shows in this question."
    most, count = Counter(positions).most_common(1)[0]
    if count == len(positions):
        return f"The model answers position {most} in every order, and so names {len(images)} pictures for one caption."
    return f"The model answers positions {listed}: it names {len(images)} pictures for one caption."


def repaired_sentence(demo: Demo) -> str:
    """What the method made of it, in one sentence."""
    label, images = method_label(demo.method), demo.repaired_images
    if len(images) > 1:
        return f"{label} names {len(images)} pictures too ({', '.join(map(letter, images))}): it does not repair this question."
    verdict = ""
    if demo.right is not None:
        verdict = ", the right one" if images[0] == demo.right else ", but not the right one"
    begin = "Its attention knows better: " if _attention_agrees(demo) else ""
    return f"{begin}{label} names {letter(images[0])} in every order{verdict}."


def _attention_agrees(demo: Demo) -> bool:
    """Whether the model looked at one image in every order, and named others."""
    looked = {row.looked_at[0] for row in demo.rows if row.looked_at}
    return (
        len(looked) == 1 and looked == set(demo.repaired_images) and demo.right in (None, *looked) and len(demo.model_images) > 1
    )


def _answer(position: int, image: int, right: int | None, style: str) -> Text:
    from rich.text import Text

    text = Text(f"{position + 1} = {letter(image)}", style=style)
    if right is not None:
        good = image == right
        text.append("   ").append("right" if good else "wrong", style=_RIGHT if good else _WRONG)
    return text


def _attention(row: Shown) -> Text:
    from rich.text import Text

    if row.looked_at is None:
        return Text("–")
    image, share = row.looked_at
    full = round(share * _BAR)
    return Text.assemble(f"{letter(image)} ", "█" * full, ("░" * (_BAR - full), "dim"), f" {share:4.0%}".replace("%", " %"))
