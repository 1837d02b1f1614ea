"""The demo: one question in its cyclic orders, with the model's answers, its attention, and the repaired answers."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.ranking.ranker import Ranker
from lad_eval.tasks.request import ImageSource, Permutation
from lad_eval.terminal import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


MAX_IMAGES = len(string.ascii_uppercase)


@dataclass(frozen=True)
class Shown:
    """One displayed order and its results. Images are indices of the demo's images, positions are 0-based.

    Attributes:
        order: image at every position.
        model_position: what the model answered.
        most_attended: image with the greatest share of the attention, and that share; None where the model gives no attention.
        attention: the share of every image, in the order of the demo's images; None likewise.
        repaired_position: what the method answers.
    """

    order: tuple[int, ...]
    model_position: int
    most_attended: tuple[int, float] | None
    attention: tuple[float, ...] | None
    repaired_position: int

    @property
    def model_image(self) -> int:
        return self.order[self.model_position]

    @property
    def repaired_image(self) -> int:
        return self.order[self.repaired_position]


@dataclass(frozen=True)
class Demo:
    """A question under all its cyclic orders.

    Attributes:
        right: index of the right image; None if unknown.
        method: name of the method that repairs.
        calibrated_on: the source of its calibration samples.
    """

    model: str
    method: str
    caption: str
    images: tuple[ImageSource, ...]
    right: int | None
    rows: tuple[Shown, ...]
    calibrated_on: str

    @property
    def model_images(self) -> list[int]:
        """The different images that the model named, sorted."""
        return sorted({row.model_image for row in self.rows})

    @property
    def repaired_images(self) -> list[int]:
        """The different images that the method named, sorted."""
        return sorted({row.repaired_image for row in self.rows})

    def document(self) -> dict[str, Any]:
        """All of it as plain JSON; positions are 1-based, images are letters."""
        return {
            "model": self.model,
            "method": self.method,
            "calibrated_on": self.calibrated_on,
            "caption": self.caption,
            "right": None if self.right is None else letter(self.right),
            "orders": [
                {
                    "order": [letter(image) for image in row.order],
                    "model": {"position": row.model_position + 1, "image": letter(row.model_image)},
                    "attention": None
                    if row.attention is None
                    else {letter(image): share for image, share in enumerate(row.attention)},
                    "repaired": {"position": row.repaired_position + 1, "image": letter(row.repaired_image)},
                }
                for row in self.rows
            ],
        }


def letter(image: int) -> str:
    """The letter of an image: A, B, C, ..."""
    return string.ascii_uppercase[image]


def demonstrate(ranker: Ranker, images: Sequence[ImageSource], caption: str, *, right: int | None, calibrated_on: str) -> Demo:
    """Runs the question once in every cyclic order.

    Raises:
        UserError: too many images, or as `Ranker.rank`.
    """
    n = len(images)
    if n > MAX_IMAGES:
        raise UserError(f"There are {n} images; the demo shows {MAX_IMAGES} at most.")
    if right is not None and not 0 <= right < n:
        raise UserError(f"The right image is number {right + 1}, and there are {n}.")
    # Backwards, so that the lines read A B C D, B C D A, C D A B, ...
    first, *others = Permutation.identity(n).cyclic_shifts()
    orders = [first, *reversed(others)]
    rankings = ranker.rank_many([(order.apply(images), caption) for order in orders])
    rows = []
    for order, ranking in zip(orders, rankings, strict=True):
        most_attended, attention = None, None
        if ranking.attention is not None:
            by_image = [float(ranking.attention[order.position_of(image)]) for image in range(n)]
            most = max(range(n), key=by_image.__getitem__)
            most_attended, attention = (most, by_image[most]), tuple(by_image)
        rows.append(Shown(order.order, ranking.plain_best, most_attended, attention, ranking.best))
    return Demo(ranker.model.name, ranker.method, caption, tuple(images), right, tuple(rows), calibrated_on)


_BAR = 8
_RIGHT, _WRONG, _REPAIRED = "green", "red", "blue"
_METHODS = {"lad": "LAD", "lad-unlabelled": "LAD without labels", "lad-paper": "LAD as printed", "pride": "PriDe"}


def method_label(name: str) -> str:
    """A method's name in sentences."""
    return _METHODS.get(name, name)


def demo_text(demo: Demo) -> list[RenderableType]:
    """The demo as rich renderables, at most 80 columns for up to 6 images."""
    from rich.table import Table
    from rich.text import Text

    n, known = len(demo.images), demo.right is not None
    right = f" · the right one is {letter(demo.right)}" if demo.right is not None else ""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 1), header_style="dim")
    with_attention = any(row.most_attended for row in demo.rows)
    for heading in (
        "order",
        "the model answers",
        *(["it looks at"] if with_attention else []),
        f"with {method_label(demo.method)}",
    ):
        table.add_column(heading, no_wrap=True)
    for row in demo.rows:
        cells = [
            Text(" ".join(map(letter, row.order))),
            _answer(row.model_position, row.model_image, demo.right, ""),
            *([_attention(row)] if with_attention else []),
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
    """What the method did, in one sentence."""
    label, images = method_label(demo.method), demo.repaired_images
    if len(images) > 1:
        return f"{label} names {len(images)} pictures too ({', '.join(map(letter, images))}): it does not repair this question."
    judgement = ""
    if demo.right is not None:
        judgement = ", the right one" if images[0] == demo.right else ", but not the right one"
    begin = "Its attention knows better: " if _attention_agrees(demo) else ""
    return f"{begin}{label} names {letter(images[0])} in every order{judgement}."


def _attention_agrees(demo: Demo) -> bool:
    """Whether the model attended to one image most in every order, and named others."""
    attended = {row.most_attended[0] for row in demo.rows if row.most_attended}
    return (
        len(attended) == 1
        and attended == set(demo.repaired_images)
        and demo.right in (None, *attended)
        and len(demo.model_images) > 1
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

    if row.most_attended is None:
        return Text("–")
    image, share = row.most_attended
    full = round(share * _BAR)
    return Text.assemble(f"{letter(image)} ", "█" * full, ("░" * (_BAR - full), "dim"), f" {share:4.0%}".replace("%", " %"))
