"""Attention in which every query sees the images of a prompt at places of its own, for PINE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from lad_eval.attention.cross_image.importance import Region, importance, rotated, shifts, turned, widened_key, widened_query
from lad_eval.attention.hooks import AttentionCall, AttentionOutput, Run, attending_layers, attention_layers
from lad_eval.attention.interventions.base import Acted
from lad_eval.attention.keys import unrotated_source
from lad_eval.attention.layer_hooks import in_this_thread, rotary_embeddings
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.masks import OpenedMasks, ahead_between_images, image_of_tokens, reach
from lad_eval.errors import UnsupportedModelError, UserError

Angles = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of the rotation of tokens, Float[batch, T, d / 2]."""


class PlacedImages:
    """The passes over a batch of prompts, each after the one before it.

    Args:
        model: of transformers.
        layout: of the prompts.
        segments: Int[batch, N, 2], the tokens of each image with all that belongs to it; they follow one another.
        acted: called for every attention call of a prefill.

    Raises:
        UnsupportedModelError: the decoder's positions are not rotary in the usual way; by the passes, too.
    """

    def __init__(self, model: Any, layout: PromptLayout, segments: torch.Tensor, acted: Acted) -> None:
        self._model, self._kind, self._layout, self._acted = model, type(model).__name__, layout, acted
        whole = replace(layout.spans, image=segments)
        self._segments, self._segment = segments, image_of_tokens(whole)
        self._first, self._last = int(segments[:, 0, 0].min()), int(segments[:, -1, 1].max())
        layers = attending_layers(model)
        self._checked_layer = layers[0]
        self._masks = OpenedMasks(layout.length, layers, ahead_between_images(whole), 0.0, acted)
        rotary = rotary_embeddings(model)
        frequencies = getattr(rotary[0], "inv_freq", None)
        if len(rotary) > 1 or frequencies is None or getattr(rotary[0], "rope_type", "default") in ("dynamic", "longrope"):
            raise self._unsupported("whose frequencies vary")
        self._frequencies: torch.Tensor = frequencies
        self._region: Region | None = None
        self._prompt: Angles | None = None
        self._now: Angles | None = None
        self._key: torch.Tensor | None = None

    def observe_rotary(self, positions: torch.Tensor, output: Any) -> None:
        """Takes the angles of a pass, and in a prefill the positions of its images."""
        if not isinstance(output, tuple) or len(output) != 2 or output[0].dim() != 3:
            raise self._unsupported("in another form")
        width = output[0].shape[-1] // 2
        cos, sin = (part[..., :width].float() for part in output)
        length = (cos[0, 0].square() + sin[0, 0].square()).sqrt()  # scaled rotations (YaRN) are longer than 1
        self._now = cos / length, sin / length
        if positions.shape[-1] == self._layout.length:
            angles = positions.reshape(-1, *positions.shape[-2:])[0, :, -1:].float() * self._frequencies.to(cos.device)
            if bool(((self._now[0][:, -1] - angles.cos()).abs() > torch.finfo(output[0].dtype).eps ** 0.5).any()):
                raise self._unsupported("in another form")
            self._prompt, self._region = self._now, self._region_of(positions)

    @contextmanager
    def unrotated_keys(self) -> Iterator[None]:
        """While open, the first layer's keys are taken before their rotation, to check how it rotates them."""
        module = attention_layers(self._model)[self._checked_layer]
        source = unrotated_source(module)
        if source is None:
            raise self._unsupported("of keys that cannot be read before them")

        def take(_module: Any, _args: Any, output: torch.Tensor) -> None:
            self._key = output

        handle = module.get_submodule(source).register_forward_hook(in_this_thread(take))
        try:
            yield
        finally:
            handle.remove()

    def around(self, call: AttentionCall, run: Run) -> AttentionOutput:
        """A call's output with the images placed for each query."""
        if call.positions is not None:
            raise UserError("pine places every token of the prompt; leave out what drops tokens.")
        if self._region is None or self._now is None or self._prompt is None:
            return run(call.query, call.mask)
        self._check_call(call)
        if call.is_prefill(self._layout.length):
            self._acted()
            return self._prefill(call, run, self._region.to(call.query.device))
        return self._step(call, run, self._region.to(call.query.device))

    def _prefill(self, call: AttentionCall, run: Run, region: Region) -> AttentionOutput:
        """The tokens of an image together, as they see the images in one order; text each by itself."""
        mask, segment = self._masks(call), region.segment
        if call.layer == self._checked_layer:
            self._check(self._unrotated(call.key, self._prompt, slice(None)))
        image_of = segment[:, self._first :]
        values = self._importance(call, call.query[:, :, self._first :], image_of, segment)
        moved = shifts(values, image_of, region)
        inner = int(self._segments[:, 0, 0].max()), int(self._segments[:, -1, 1].min())  # images in all rows of the batch
        text = [*range(inner[0]), *range(inner[1], self._layout.length)]
        before = moved.new_zeros(*moved.shape[:2], self._first, moved.shape[3])
        of_text = torch.cat([before, moved], dim=2)[:, :, text]
        output_of_text, _ = self._of_text(call.query[:, :, text], of_text, region, call, run, mask[..., text, :])
        output = output_of_text.new_empty(len(segment), self._layout.length, *output_of_text.shape[2:])
        output[:, text] = output_of_text
        for row, images in enumerate(self._segments.tolist()):
            for image, (start, end) in enumerate(images):
                at = moved[row, :, start - self._first]
                output[row, start:end] = self._of_image(call, mask[row], row, image, at, segment[row])
        return output, None

    def _of_image(
        self, call: AttentionCall, mask: torch.Tensor, row: int, image: int, moved: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """Output for an image's tokens, Float[tokens, H, d].

        Args:
            call: of a prefill.
            mask: Float[H or 1, T, T], of the row.
            row: of the batch.
            image: in the row.
            moved: Int[H, N], by how much the images are moved for these tokens.
            places: Int[T], the image of each token of the row.
        """
        frequencies, until = self._frequencies.to(moved.device), int(self._segments[row, -1, 1])  # later text is not seen
        span = slice(*self._segments[row, image].tolist())
        assert call.value is not None  # of a model's call
        groups = call.query.shape[1] // call.key.shape[1]
        key, value = (part[row, :, :until].repeat_interleave(groups, dim=0) for part in (call.key, call.value))
        by = torch.nn.functional.pad(moved, (1, 0))[:, places[:until] + 1]
        query = turned(call.query[row, :, span], moved[:, image, None], frequencies)
        output = torch.nn.functional.scaled_dot_product_attention(
            query[None],
            turned(key, by, frequencies)[None],
            value[None],
            attn_mask=mask[None, :, span, :until],
            scale=call.options.get("scaling"),
        )
        return output[0].transpose(0, 1)

    def _step(self, call: AttentionCall, run: Run, region: Region) -> AttentionOutput:
        """Tokens that follow the prompt, each by itself; prompts may have been repeated."""
        region = region.repeated(len(call.query) // len(region.segment))
        segment = torch.nn.functional.pad(region.segment, (0, call.key.shape[2] - region.segment.shape[1]), value=-1)
        region = replace(region, segment=segment)
        image_of = segment.new_full((len(segment), call.query.shape[2]), -1)
        values = self._importance(call, call.query, image_of, segment)
        return self._of_text(call.query, shifts(values, image_of, region), region, call, run, call.mask)

    def _of_text(
        self, query: torch.Tensor, moved: torch.Tensor, region: Region, call: AttentionCall, run: Run, mask: Any
    ) -> AttentionOutput:
        """Output for tokens of the text, Float[batch, H, Q, d], the images moved by Int[batch, H, Q, N]."""
        n = moved.shape[3]
        wide = widened_query(query, moved, self._frequencies.to(query.device))
        if call.options.get("scaling") is None:  # the implementation then scales by the width
            wide = wide * (n + 1) ** 0.5
        return run(wide, mask, widened_key(call.key, region.segment, n))

    def _importance(
        self, call: AttentionCall, query: torch.Tensor, image_of: torch.Tensor, segment: torch.Tensor
    ) -> torch.Tensor:
        """Of each image for the last of a call's queries, Float32[batch, H, Q, N]; see `importance`."""
        images, scaling = slice(self._first, self._last), call.options.get("scaling")
        return importance(
            self._unrotated(query, self._now, slice(-query.shape[2], None)),
            self._unrotated(call.key[:, :, images], self._prompt, images),
            image_of,
            segment[:, images],
            query.shape[-1] ** -0.5 if scaling is None else scaling,
        )

    def _unrotated(self, states: torch.Tensor, angles: Angles | None, tokens: slice) -> torch.Tensor:
        """Float[batch, H, T, d] without the rotation by the angles of some tokens, of prompts that may have been repeated."""
        assert angles is not None  # the decoder computes them before its first layer
        cos, sin = (part[:, tokens].to(states.device) for part in angles)
        copies = max(1, len(states) // len(cos))
        cos, sin = (part.repeat_interleave(copies, dim=0)[:, None] for part in (cos, sin))
        return rotated(states, cos, -sin)

    def _check_call(self, call: AttentionCall) -> None:
        """Refuses calls with windows, with scores that are not those of queries and keys alone, or of other rotations."""
        window, chunk = reach(call)
        if min(window or call.key.shape[2], chunk or call.key.shape[2]) < call.key.shape[2]:
            raise UnsupportedModelError(f"{self._kind} attends within a window in layer {call.layer}; leave out pine.")
        if any(call.options.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
            raise UnsupportedModelError(
                f"{self._kind} has attention scores that are not of queries and keys alone; leave out pine."
            )
        if self._now is None or 2 * self._now[0].shape[-1] != call.key.shape[-1]:
            raise self._unsupported("in another form")

    def _region_of(self, positions: torch.Tensor) -> Region:
        """The positions of the images of the prompts, position ids Int[axes, batch, T], Int[batch, T] or Int[1, T]."""
        axes = positions.detach().cpu().reshape(-1, *positions.shape[-2:]).expand(-1, len(self._segments), -1)
        edges = torch.cat([self._segments[..., 0], self._segments[:, -1:, 1]], dim=1)
        at_edges = axes.gather(2, edges.expand(len(axes), -1, -1))
        if bool((at_edges != at_edges[:1]).any()):
            raise self._unsupported("with axes that differ where images begin")
        return Region(self._segment, at_edges[0][:, :-1], at_edges[0].diff(dim=1))

    def _check(self, key: torch.Tensor) -> None:
        """Checks that keys, Float[batch, H_kv, T, d], are those before rotation.

        Raises:
            UnsupportedModelError: they are not.
        """
        before = self._key
        if before is None:
            raise self._unsupported("of keys that cannot be read before them")
        heads, tokens, width = key.shape[1:]
        ordered = key.transpose(1, 2)
        same = before.numel() == key.numel()
        if same and before.dim() == 4 and before.shape[1:] == (heads, tokens, width) and heads != tokens:
            before = before.transpose(1, 2)
        before = before.reshape(ordered.shape).float() if same else ordered.float()
        real = self._layout.attended.to(key.device)
        difference = ((before - ordered.float()).abs().amax(dim=(2, 3)) * real).max()
        tolerance = torch.finfo(key.dtype).eps ** 0.5 * float(before.abs().max())
        if not same or float(difference) > tolerance:
            raise self._unsupported("in another form")

    def _unsupported(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self._kind} has rotary positions {what}, which pine cannot move images in; leave it out.")
