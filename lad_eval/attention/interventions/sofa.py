"""Soft attention between images (SoFA)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.attention.interventions.parameters import check_choices, check_whole
from lad_eval.errors import UserError

if TYPE_CHECKING:
    from lad_eval.attention.layout import PromptLayout

Pairs = Literal["between", "all"]


@dataclass(frozen=True)
class Sofa(Intervention):
    """Soft attention between images: in every n-th attention layer, each image attends weakly to later ones.

    Source: Tian et al. 2025 (SoFA). Causally masked entries from a token of one image to a token of another are unmasked, with
    log(sigma) added to their scores. No calibration.

    Args:
        sigma: in (0, 1]; smaller values are closer to the unchanged model.
        every: n: applies to every n-th of the decoder layers that attend, the first of them included. Where all layers attend
            these are the layers 0, n, 2 n, ...; linear-attention layers are not counted.
        pairs: "between" unmasks entries from one image to another; "all" also those to later tokens of the same image, as in the
            released code of LAD (github.com/brightXian/LAD, c704b9d).

    Raises:
        UserError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "sofa"
    idle: ClassVar[str] = "as no entry between its images is blocked"
    sigma: float = 0.5
    every: int = 2
    pairs: Pairs = "between"

    def __post_init__(self) -> None:
        if not (isinstance(self.sigma, float | int) and math.isfinite(self.sigma) and 0 < self.sigma <= 1):
            raise UserError(f"sigma of sofa must be above 0 and at most 1, not {self.sigma!r}.")
        check_whole(self, "every", 1)
        check_choices(self)

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.hooks import attending_layers, transform_mask
        from lad_eval.attention.masks import OpenedMasks, ahead_between_images

        entries = ahead_between_images(layout.spans, within=self.pairs == "all")
        masks = OpenedMasks(layout.length, attending_layers(model, self.every), entries, math.log(self.sigma), acted)
        with transform_mask(model, masks):
            yield
