"""An intervention that learns: every position gets the share of attention that it lacked in calibration."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from lad_eval.attention.hooks import AttentionCall, transform_mask
from lad_eval.attention.interventions import CalibratedIntervention
from lad_eval.attention.interventions.base import Acted, Passes
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.recorder import record_last_row


@dataclass(frozen=True)
class Evened(CalibratedIntervention):
    """Divides attention to an image by the mean attention to its position in calibration, raised to `strength`."""

    name: ClassVar[str] = "evened"
    strength: float = 0.5

    def _learn(self, model: Any, passes: Passes) -> dict[str, Any]:
        rows = []
        for layout, run in passes:
            with record_last_row(model, layout.spans) as recorder:
                run()
            rows.append(recorder.attention()[0].mean(dim=1).double().numpy())  # Float[batch, N]
        return {"attention": np.concatenate(rows).mean(axis=0)} if rows else {}

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        assert self.learned is not None  # nothing is attached before it is calibrated
        share = torch.from_numpy(self.learned.arrays["attention"]).clamp_min(1e-20).log()
        added = -self.strength * torch.where(layout.visual, (share - share.mean())[layout.spans.owner.clamp_min(0)], 0.0)

        def transform(call: AttentionCall) -> Any:
            if not call.is_prefill(layout.length):
                return call.mask
            acted()
            mask = additive_mask(call)
            return (mask + added[:, None, None].to(mask)).clamp_min(torch.finfo(mask.dtype).min)

        with transform_mask(model, transform):
            yield
