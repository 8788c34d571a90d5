"""Ratings by user (or item) in padded chunks, so that batched linear algebra draws all vectors of a side."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.utils.csr import Csr

CHUNK_SIZE = 1 << 18
"""Maximum size of the gathered features of a chunk, in numbers: 1 MiB, which fits a core's caches."""
MIN_FILL = 0.75
"""Minimum number of ratings of an index in a chunk, as a share of the maximum."""


class Chunk(NamedTuple):
    """Some indices of a side with about equally many ratings, padded to the maximum.

    Attributes:
        side: int64 [b], indices of this side.
        opposite: int32 [b * w], indices of the opposite side that each has rated; 0 as padding.
        target: float32 [b, w].
    """

    side: Tensor
    opposite: Tensor
    target: Tensor


class PaddedRows:
    """The ratings of one side.

    Args:
        ratings: The ratings by index of this side, with their targets as values.
        width: Length of a vector.

    Attributes:
        ratings: As given.
        counts: int64 [size], number of ratings; 0 for the unknown index.
        rated: bool [size], whether an index has ratings.
        chunks: All rated indices, those with most ratings first.
    """

    def __init__(self, ratings: Csr, width: int) -> None:
        self.ratings = ratings
        self.counts = self.ratings.counts
        self.counts[0] = 0  # the vector of the unknown index stays zero
        self.rated = self.counts > 0
        by_count = torch.argsort(self.counts, descending=True, stable=True)[: int(self.rated.sum())]
        counts = self.counts[by_count]
        self.chunks: list[Chunk] = []
        begin = 0
        while begin < len(counts):
            longest = int(counts[begin])
            enough = int(torch.searchsorted(-counts, -MIN_FILL * longest, right=True))
            end = min(begin + max(CHUNK_SIZE // (longest * width), 1), enough)
            self.chunks.append(self._chunk(by_count[begin:end], longest))
            begin = end

    def _chunk(self, index: Tensor, longest: int) -> Chunk:
        position = torch.arange(longest)
        inside = position < self.counts[index, None]
        at = torch.where(inside, self.ratings.offsets[index, None] + position, 0)
        mask = inside.to(torch.int32)
        assert self.ratings.values is not None
        return Chunk(index, (self.ratings.indices[at] * mask).flatten(), self.ratings.values[at] * mask)
