"""Item neighbours: who has this also has that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cflightning.errors import ConfigError, DataError
from cflightning.kernels.compiling import usable
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.solvers.interactions import Interactions, Side, side
from cflightning.utils.thread_pool import Threads


class ItemNeighbours(NamedTuple):
    """The most similar items of every item, the most similar first.

    Attributes:
        items: int64 [num_items, n], rows; 0 where there are fewer.
        similarity: float32 [num_items, n], above 0; 0 where there are fewer.
    """

    items: Tensor
    similarity: Tensor

    def scores(self, users: Side, *, block: int = 256, threads: int = 1) -> Iterator[Tensor]:
        """Scores of users, a block at a time, fit for `metrics.top_k.rank_scores`.

        An item scores the sum of the similarities of those of its neighbours that the user has (Sarwar et al. 2001,
        "Item-Based Collaborative Filtering Recommendation Algorithms", section 3.2, with all ratings 1).

        Args:
            users: the items of every user; new ones are as good as those that the neighbours were made from.
            block: users at a time.
            threads: any number gives the same bits.

        Yields:
            float32 [users, num_items].

        Raises:
            DataError: a user has an item that is not here.
        """
        num_items = len(self.items)
        if len(users.rows) and (most := int(users.rows.max())) >= num_items:
            raise DataError(f"neighbours: items must be below {num_items}, got {most}")
        kept = self.similarity > 0
        pointing = side(self.items[kept], kept.nonzero()[:, 0], num_items, self.similarity[kept])
        for begin in range(0, len(users.offsets) - 1, block):
            some = users.part(begin, begin + block)
            size = len(some.offsets) - 1
            if usable():
                yield _add_up(some, pointing, num_items, threads)
                continue
            reached = pointing.take(some.rows)
            user = torch.repeat_interleave(torch.arange(size), some.counts)
            place = torch.repeat_interleave(user * num_items, reached.counts) + reached.rows
            out = torch.zeros(size, num_items)
            if reached.values is not None:
                out.view(-1).index_add_(0, place, reached.values)
            yield out


def _add_up(some: Side, pointing: Side, num_items: int, threads: int) -> Tensor:
    from cflightning.kernels import neighbours

    out = torch.empty(len(some.offsets) - 1, num_items)
    assert pointing.values is not None
    columns = some.rows, some.offsets, pointing.rows, pointing.offsets, pointing.values, out
    with Threads(threads) as pool:
        pool.call(neighbours.add_up, *(column.numpy() for column in columns))
    return out


def item_neighbours(sides: Interactions, n: int = 100, *, shrinkage: float = 10.0, threads: int = 1) -> ItemNeighbours:
    """Neighbours by the cosine of two items' columns, ``c_ij / (sqrt(c_i c_j) + shrinkage)``.

    c_ij is how many users have both and c_i how many have i. The shrinkage, in users, keeps apart what is certain from
    what a few users happened to do.

    Args:
        sides: who has what; values are not looked at.
        n: neighbours of each item.
        shrinkage: at least 0.
        threads: any number gives the same bits.

    Raises:
        ConfigError: a number is out of range.
    """
    if n < 1 or not shrinkage >= 0:
        raise ConfigError(f"neighbours: n must be at least 1 and shrinkage at least 0, got {n} and {shrinkage}")
    root = sides.items.counts.float().sqrt()
    num_items = len(root)
    items = torch.zeros(num_items, n, dtype=torch.int64)
    similarity = torch.zeros(num_items, n)
    with Threads(threads) as pool:
        if usable():
            from cflightning.kernels import cooccurrence

            arrays = *sides.items[:2], *sides.users[:2], root
            out = items.numpy(), similarity.numpy()
            pool.call(cooccurrence.nearest, *(part.numpy() for part in arrays), np.float32(shrinkage), *out)
            return ItemNeighbours(items, similarity)
        for first, counts in cooccurrences(sides, pool):
            rows = slice(first, first + len(counts))
            cosines = counts / (root[rows, None] * root + shrinkage).clamp(min=1e-30)
            cosines.diagonal(first).zero_()  # not itself
            values, order = cosines.sort(dim=1, descending=True, stable=True)
            values, order = values[:, :n], order[:, :n]
            similarity[rows, : values.shape[1]] = values
            items[rows, : values.shape[1]] = order * (values > 0)
    return ItemNeighbours(items, similarity)
