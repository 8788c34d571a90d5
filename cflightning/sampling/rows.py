"""One side of a table, laid out for drawing all its rows by batched linear algebra."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 1 << 18
"""Numbers of the gathered rows of a chunk: 1 MiB, which stays in a core's caches, and is enough work for a call."""
LEAST = 0.75
"""Ratings of a chunk's shortest row, as a share of its longest."""


class Chunk(NamedTuple):
    """Rows of about the same number of ratings, padded to the most of them.

    Attributes:
        rows: int64 [b], rows of this side.
        other: int32 [b * w], rows of the other side that each meets; 0 where it is padded.
        target: float32 [b, w].
    """

    rows: Tensor
    other: Tensor
    target: Tensor


class Rows:
    """The ratings of every row of one side.

    Args:
        own: int32 [n], rows.
        other: int32 [n], rows of the other side.
        target: float32 [n].
        size: rows of this side's tables.
        width: numbers of a row.

    Attributes:
        counts: int64 [size].
        rated: bool [size], whether a row has ratings.
        chunks: all rated rows, those with most ratings first.
    """

    def __init__(self, own: Tensor, other: Tensor, target: Tensor, size: int, width: int) -> None:
        self.counts = torch.bincount(own, minlength=size)
        self.counts[0] = 0  # the unknown row stays zero
        self.rated = self.counts > 0
        order = torch.sort(own, stable=True).indices
        self.other, target = other[order].int(), target[order]
        self.ends = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(own, minlength=size).cumsum(0)])
        by_count = torch.argsort(self.counts, descending=True, stable=True)[: int(self.rated.sum())]
        counts = self.counts[by_count]
        self.chunks: list[Chunk] = []
        begin = 0
        while begin < len(counts):
            longest = int(counts[begin])
            enough = int(torch.searchsorted(-counts, -LEAST * longest, right=True))
            end = min(begin + max(CHUNK // (longest * width), 1), enough)
            rows = by_count[begin:end]
            place = torch.arange(longest)
            inside = place < self.counts[rows, None]
            at = torch.where(inside, self.ends[rows, None] + place, 0)
            known = inside.to(torch.int32)
            self.chunks.append(Chunk(rows, (self.other[at] * known).flatten(), target[at] * known))
            begin = end
