"""What the embedded model is taught, as losses on one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lad_eval.models.tiny.build import LAYERS, WIDTH
from lad_eval.models.tiny.data import SLOT_SIZES
from lad_eval.models.tiny.network import Questions, Trace

# The decoder reads (0 to 3), then compares (4 to 7). LAD's upper layers of an 8-layer model are 5, 6 and 7.
COMPARING = range(LAYERS // 2, LAYERS)
READ_PICTURE = 1
READ_CAPTION = 2
MOST_PLACES = 12
# A little room is left for the caption: one of four heads.
EARLY_MASS = 0.7


class Probes(nn.Module):
    """Linear readers of hidden states, thrown away after training.

    `slots` reads the seven attributes both from a picture's end token and from the question's last token, so that
    the two are written in one code; `place` reads a picture's displayed position.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.Linear(WIDTH, sum(SLOT_SIZES))
        self.place = nn.Linear(WIDTH, MOST_PLACES)

    def slot_loss(self, states: Tensor, slots: Tensor) -> Tensor:
        """Mean cross-entropy over the seven attributes; states [..., width], slots [..., 7]."""
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
        parts = self.slots(states).split(SLOT_SIZES, -1)
        losses = [functional.cross_entropy(part.flatten(0, -2), slots[..., k].flatten()) for k, part in enumerate(parts)]
        return torch.stack(losses).mean()

    def place_loss(self, states: Tensor) -> Tensor:
        """Cross-entropy of the displayed position; states [B, N, width]."""
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
        target = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        return functional.cross_entropy(self.place(states).flatten(0, 1), target.flatten())


def answer_loss(trace: Trace, asked: Questions) -> Tensor:
    """Cross-entropy of the answer's tokens and the end of the turn."""
    target = asked.sheet.answers.to(asked.gold.device)[asked.gold]
    return functional.cross_entropy(trace.logits.flatten(0, 2), target.flatten())


def attention_loss(trace: Trace, asked: Questions) -> Tensor:
    """Minus log share of the right picture in the attention to all pictures, mean over the comparing layers."""
    rows = trace.attention[:, :, COMPARING.start :]
    share = (rows / rows.sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return -share.gather(-1, asked.gold[:, :, None, None].expand(*share.shape[:3], 1)).mean()


def early_loss(trace: Trace) -> Tensor:
    """Reading layers look at all pictures, much and evenly: strong layers that tell nothing."""
    rows = trace.attention[:, :, : COMPARING.start]
    mass = rows.sum(-1)
    evenness = -(rows / mass[..., None]).clamp_min(1e-6).log().mean(-1) - torch.log(torch.tensor(float(rows.shape[-1])))
    return (EARLY_MASS - mass).clamp_min(0).pow(2).mean() + 0.1 * evenness.mean()
