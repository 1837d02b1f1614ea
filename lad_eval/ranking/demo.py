"""The demo: one question under its cyclic orders, what the model answers, where it looked, and what the repair answers."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lad_eval.errors import UserError
from lad_eval.ranking.ranker import Ranker
from lad_eval.tasks.permutation import Permutation
from lad_eval.tasks.sample import ImageSource

MAX_IMAGES = len(string.ascii_uppercase)


@dataclass(frozen=True)
class Shown:
    """One displayed order and what came of it. Images are indices of the demo's images, positions are 0-based.

    Attributes:
        order: image at every position.
        model_position: what the model answered.
        looked_at: image with the greatest share of the attention, and that share; None where the model gives no attention.
        attention: the share of every image, in the order of the demo's images; None likewise.
        repaired_position: what the method answers.
    """

    order: tuple[int, ...]
    model_position: int
    looked_at: tuple[int, float] | None
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
        right: index of the right image; None where nobody said which it is.
        method: name of the method that repairs.
        calibrated_on: where its calibration samples came from.
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
    """Asks the question once in every cyclic order.

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
        looked, attention = None, None
        if ranking.attention is not None:
            by_image = [float(ranking.attention[order.position_of(image)]) for image in range(n)]
            most = max(range(n), key=by_image.__getitem__)
            looked, attention = (most, by_image[most]), tuple(by_image)
        rows.append(Shown(order.order, ranking.plain_best, looked, attention, ranking.best))
    return Demo(ranker.model.name, ranker.method, caption, tuple(images), right, tuple(rows), calibrated_on)
