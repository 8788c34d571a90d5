"""Item neighbours: items are scored by their similarity to the items of the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.errors import ConfigError, DataError
from cflightning.kernels.availability import kernels_available
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.utils.csr import Csr, csr_from_pairs
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool


class ItemNeighbours(NamedTuple):
    """The most similar items of every item, best first.

    Attributes:
        items: int64 [num_items, n], item indices; 0 as padding.
        similarity: float32 [num_items, n], above 0; 0 as padding.
    """

    items: Tensor
    similarity: Tensor

    def scores(self, users: Csr, *, block: int = 256, threads: int = 1) -> Iterator[Tensor]:
        """Compute the scores of users in blocks, for `metrics.top_k.rank_scores`.

        The score of an item is the sum of its similarities to those of its neighbours that the user has (Sarwar et al.
        2001, "Item-Based Collaborative Filtering Recommendation Algorithms", section 3.2, with all ratings 1).

        Args:
            users: The items of every user; users without training data are scored in the same way.
            block: Users of a block.
            threads: Number of threads; the result does not depend on it, bit for bit.

        Yields:
            float32 [users, num_items].

        Raises:
            DataError: A user has an item that the model lacks.
        """
        num_items = len(self.items)
        if len(users.indices) and (largest := int(users.indices.max())) >= num_items:
            raise DataError(f"neighbours: items must be below {num_items}, got {largest}")
        filled = self.similarity > 0
        # By neighbour: the items that have each item as a neighbour.
        reverse = csr_from_pairs(
            self.items[filled], filled.nonzero()[:, 0], num_items, num_items, self.similarity[filled]
        )
        for begin in range(0, users.num_rows, block):
            yield _sum_similarities(users.part(begin, begin + block), reverse, threads)


def _sum_similarities(users: Csr, reverse: Csr, threads: int) -> Tensor:
    assert reverse.values is not None
    if kernels_available():
        from cflightning.kernels import item_neighbours as kernels

        out = torch.empty(users.num_rows, reverse.num_columns)
        arrays = users.indices, users.offsets, reverse.indices, reverse.offsets, reverse.values, out
        with ThreadPool(threads) as pool:
            pool.run_kernel(kernels.sum_similarities, *(array.numpy() for array in arrays))
        return out
    reached = reverse.take(users.indices)
    user = torch.repeat_interleave(torch.arange(users.num_rows), users.counts)
    position = torch.repeat_interleave(user * reverse.num_columns, reached.counts) + reached.indices
    out = torch.zeros(users.num_rows, reverse.num_columns)
    assert reached.values is not None
    out.view(-1).index_add_(0, position, reached.values)
    return out


def item_neighbours(
    interactions: Interactions, n: int = 100, *, shrinkage: float = 10.0, threads: int = 1
) -> ItemNeighbours:
    """Find neighbours by the shrunken cosine of two items' columns, ``c_ij / (sqrt(c_i c_j) + shrinkage)``.

    c_ij is the number of users who have both items and c_i that of users who have i. Shrinkage lowers similarities that
    few users support.

    Args:
        interactions: Interactions of the training part; values are ignored.
        n: Number of neighbours of each item.
        shrinkage: Shrinkage, in users, at least 0.
        threads: Number of threads; the result does not depend on it, bit for bit.

    Raises:
        ConfigError: A number is out of range.
    """
    if n < 1 or not shrinkage >= 0:
        raise ConfigError(f"neighbours: n must be at least 1 and shrinkage at least 0, got {n} and {shrinkage}")
    by_user, by_item = interactions
    root = by_item.counts.float().sqrt()
    items = torch.zeros(len(root), n, dtype=torch.int64)
    similarity = torch.zeros(len(root), n)
    with ThreadPool(threads) as pool:
        if kernels_available():
            from cflightning.kernels import cooccurrence

            arrays = by_item.indices, by_item.offsets, by_user.indices, by_user.offsets, root
            out = items.numpy(), similarity.numpy()
            pool.run_kernel(
                cooccurrence.nearest_items, *(array.numpy() for array in arrays), np.float32(shrinkage), *out
            )
            return ItemNeighbours(items, similarity)
        for first, counts in cooccurrences(interactions, pool):
            rows = slice(first, first + len(counts))
            cosines = counts / (root[rows, None] * root + shrinkage).clamp(min=1e-30)
            cosines.diagonal(first).zero_()  # an item is not its own neighbour
            values, order = cosines.sort(dim=1, descending=True, stable=True)
            values, order = values[:, :n], order[:, :n]
            similarity[rows, : values.shape[1]] = values
            items[rows, : values.shape[1]] = order * (values > 0)
    return ItemNeighbours(items, similarity)
