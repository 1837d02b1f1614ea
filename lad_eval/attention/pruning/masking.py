"""Layers that see all tokens and attend to the remaining ones: the same answers as dropping the others, without the gain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.attention.hooks import AttentionCall, transform_mask
from lad_eval.attention.masks import additive_mask


@contextmanager
def hide_keys(model: Any, hidden: Callable[[AttentionCall], torch.Tensor | None]) -> Iterator[None]:
    """Hides keys from the model's attention calls while the context is open.

    Args:
        model: of transformers.
        hidden: of a call the keys to hide, Bool[batch, keys]; None leaves it as it is.
    """

    def transform(call: AttentionCall) -> Any:
        keys = hidden(call)
        if keys is None:
            return call.mask
        mask = additive_mask(call)
        return mask.expand(len(keys), *mask.shape[1:]).masked_fill(
            keys[:, None, None].to(mask.device), torch.finfo(mask.dtype).min
        )

    with transform_mask(model, transform):
        yield
