"""Soft attention between images (SoFA)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.parameters import Count, Share

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
        ParameterError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "sofa"
    idle: ClassVar[str] = "as no entry between its images is blocked"
    sigma: Annotated[float, Share()] = 0.5
    every: Annotated[int, Count()] = 2
    pairs: Pairs = "between"

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.hooks import attending_layers, transform_mask
        from lad_eval.attention.masks import OpenedMasks, ahead_between_images

        entries = ahead_between_images(layout.spans, within=self.pairs == "all")
        masks = OpenedMasks(layout.length, attending_layers(model, self.every), entries, math.log(self.sigma), acted)
        with transform_mask(model, masks):
            yield
