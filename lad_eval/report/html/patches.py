"""Patch overlays: how much the caption's tokens attend to each patch of an image, where a run holds token maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.methods import Method, is_method, make_method
from lad_eval.run.decide import PlanIndex
from lad_eval.run.folder.files import condition_folder

_COLOUR = (214, 39, 40)
_MOST_OPAQUE = 200


@dataclass(frozen=True)
class PatchMaps:
    """Token maps of the evaluated questions.

    Attributes:
        evidence: with token maps.
        row: of a sample, by id, in an order, by number.
    """

    evidence: Evidence
    row: Mapping[tuple[str, int], int]

    def overlay(self, sample: str, order: int, position: int) -> str | None:
        """An image's patches as a PNG with one pixel a patch, the more opaque the more attended, as a data URI.

        The most attended patch of all images of the question is the most opaque one. None where the patches are not known.
        """
        from PIL import Image

        row, maps, grids = self.row.get((sample, order)), self.evidence.token_map, self.evidence.token_grid
        if row is None or maps is None or grids is None:
            return None
        tokens, height, width = grids[row, position].tolist()
        if not height or not (highest := float(maps[row].max())):
            return None
        begins = int(grids[row, :position, 0].sum())
        patches = maps[row][begins : begins + tokens][: height * width].reshape(height, width)
        pixels = np.empty((height, width, 4), dtype=np.uint8)
        pixels[..., :3] = _COLOUR
        pixels[..., 3] = np.rint(_MOST_OPAQUE * patches / highest)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def patch_maps(run: Path, methods: Mapping[str, Any], digest: str) -> PatchMaps | None:
    """The token maps of a run's questions; None if no method has read any, or they cannot be read.

    Args:
        run: its folder.
        methods: of its metrics, by name.
        digest: of its spec.
    """
    made = (make_method(name) for name in methods if is_method(name))
    method = next((each for each in made if "token_map" in each.needs), None)
    if method is None:
        return None
    try:
        return _read(run, method, digest)
    except UserError:  # the page says elsewhere what a run lacks
        return None


def _read(run: Path, method: Method, digest: str) -> PatchMaps | None:
    probe = next(probe for probe in method.probes if probe.token_map and probe.caption == "own")
    folder = condition_folder(run, replace(method.condition, probe=probe))
    plan_index = PlanIndex.read(folder, digest)
    evidence = read_evidence(folder).select_keys(list(plan_index.evaluated))
    places = zip(evidence.sample_id.tolist(), plan_index.permutation_index, strict=True)
    return PatchMaps(evidence, {place: row for row, place in enumerate(places)})
