"""How PINE places the images of a prompt before each query, arXiv 2407.01100: the more important, the nearer.

The tokens of an image rank the others together, so that the keys are moved once for each of them and each head. Tokens of the
text rank by themselves. As scores depend on differences of positions only, it is their query that is moved: once for every image,
into a part of its own of a wider query, while a key is zero in the parts of other images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Number of queries whose scores with all images are computed at once.
CHUNK = 256


@dataclass(frozen=True)
class Region:
    """The images of a batch of prompts, with their delimiters.

    Attributes:
        segment: Int[batch, T], the image of each token, by index, -1 elsewhere.
        start: Int[batch, N], the position of each image's first token.
        extent: Int[batch, N], by how much an image moves the positions after it.
    """

    segment: torch.Tensor
    start: torch.Tensor
    extent: torch.Tensor

    @property
    def end(self) -> torch.Tensor:
        """Int[batch]: the position after the last image."""
        return self.start[:, 0] + self.extent.sum(dim=1)

    def to(self, device: torch.device) -> Region:
        return Region(self.segment.to(device), self.start.to(device), self.extent.to(device))

    def repeated(self, count: int) -> Region:
        """Each prompt `count` times in a row."""
        return Region(*(part.repeat_interleave(count, dim=0) for part in (self.segment, self.start, self.extent)))


def importance(
    query: torch.Tensor, key: torch.Tensor, image_of: torch.Tensor, segment: torch.Tensor, scaling: float
) -> torch.Tensor:
    """I of the paper for each query: Float32[batch, H, Q, N], equal for all queries of an image; unspecified for its own image.

    The mean, over an image's keys, of the softmax over the keys of all images but the query's own; summed over the queries of an
    image, and for other queries each by itself.

    Args:
        query: Float[batch, H, Q, d], without rotation.
        key: Float[batch, H_kv, K, d], without rotation.
        image_of: Int[batch, Q], the image of each query, -1 for text.
        segment: Int[batch, K], the image of each key, -1 for text.
        scaling: of the scores.
    """
    batch, heads, queries, width = query.shape
    n = int(segment.max()) + 1
    members = torch.nn.functional.one_hot(segment + 1, n + 1)[..., 1:].float()  # [batch, K, N]
    means = members / members.sum(dim=1, keepdim=True)
    keys, parts = key.float().transpose(-1, -2), []
    for begin in range(0, queries, CHUNK):
        rows = query[:, :, begin : begin + CHUNK].float() * scaling
        grouped = rows.reshape(batch, key.shape[1], -1, width)
        scores = torch.matmul(grouped, keys).reshape(batch, heads, rows.shape[2], -1)
        theirs = image_of[:, begin : begin + CHUNK, None]
        hidden = (segment[:, None] < 0) | (segment[:, None] == theirs)
        parts.append(torch.matmul(scores.masked_fill(hidden[:, None], -torch.inf).softmax(dim=-1), means[:, None]))
    each = torch.cat(parts, dim=2)
    # In double precision, so that the order of an image's tokens hardly matters.
    inside = torch.nn.functional.one_hot(image_of + 1, n + 1)[..., 1:].double()  # [batch, Q, N]
    sums = torch.matmul(inside.transpose(1, 2)[:, None], each.double()).float()  # [batch, H, N, N]
    shared = sums.gather(2, image_of.clamp(min=0)[:, None, :, None].expand(-1, heads, -1, n))
    return torch.where(image_of[:, None, :, None] >= 0, shared, each)


def shifts(values: torch.Tensor, image_of: torch.Tensor, region: Region) -> torch.Tensor:
    """By how much each image is moved for each query: Int[batch, H, Q, N].

    The query's own image is the nearest, the others stand before it, the more important the nearer, ties in displayed order. The
    nearest ends where the images end.

    Args:
        values: Float[batch, H, Q, N], of `importance`.
        image_of: Int[batch, Q].
        region: of the batch.
    """
    n = values.shape[-1]
    nearest = torch.nn.functional.one_hot(image_of + 1, n + 1)[:, None, :, 1:].bool()
    order = values.masked_fill(nearest, torch.inf).argsort(dim=-1, descending=True, stable=True)
    extents = region.extent[:, None, None].expand(order.shape).gather(-1, order)
    starts = region.end[:, None, None, None] - extents.cumsum(dim=-1)
    return torch.empty_like(order).scatter(-1, order, starts.to(order.dtype)) - region.start[:, None, None]


def widened_query(query: torch.Tensor, moved: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Float[batch, H, Q, (N + 1) d]: queries of the text, as other text sees them, then as each image does where it was moved to.

    Args:
        query: Float[batch, H, Q, d], rotated.
        moved: Int[batch, H, Q, N], of `shifts`.
        frequencies: Float[d / 2], of the rotation.
    """
    return torch.cat([query, *(turned(query, -by, frequencies) for by in moved.unbind(dim=-1))], dim=-1)


def widened_key(key: torch.Tensor, segment: torch.Tensor, n: int) -> torch.Tensor:
    """Float[batch, H_kv, K, (n + 1) d]: each key in the part of its image, the first part for text, and 0 in the others."""
    parts = [key * (segment == place)[:, None, :, None] for place in range(-1, n)]
    return torch.cat(parts, dim=-1)


def turned(states: torch.Tensor, by: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Float[..., d]: states moved by a number of positions, Int[...]."""
    angles = by[..., None].float() * frequencies
    return rotated(states, angles.cos(), angles.sin())


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Float[..., d]: states rotated by angles in the form of Llama's, whose pairs are half the width apart; in float32.

    Args:
        states: Float[..., d].
        cos: Float[..., d / 2].
        sin: the same.
    """
    first, second = states.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(states.dtype)
