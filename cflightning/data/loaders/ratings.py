"""Batches of ratings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.data.loaders.batches import ColumnLoader


class RatingBatch(NamedTuple):
    """A batch of ratings.

    Attributes:
        user: int64 [batch], indices.
        item: int64 [batch], indices.
        rating: float32 [batch], rating units; NaN where there is no truth.
        position: int64 [batch], positions in the part that the batch is from.
        total: Rows of the batch over all devices, the denominator of its mean loss.
    """

    user: Tensor
    item: Tensor
    rating: Tensor
    position: Tensor
    total: int

    def __repr__(self) -> str:
        return f"RatingBatch({len(self.user):,} of {self.total:,} ratings on {self.user.device})"


class RatingLoader(ColumnLoader):
    """Dataloader of ratings in batches.

    `batch_size` counts rows over *all* devices: each device gets its share of every batch, so that training takes the
    same steps on any number of them. Every row comes exactly once an epoch, on exactly one device; the last batch
    may be smaller and a device's share of it empty. The whole epoch is permuted at once and batches are views of it,
    since a gather for each row or batch costs several times as much.

    Args:
        user: int32 or int64 [n], indices.
        item: int32 or int64 [n], indices.
        rating: float32 [n], rating units.
        batch_size: Rows of a batch over all devices.
        shuffle: Whether the order changes every epoch, by `seed` and the number of the epoch.
        seed: Seed of the orders.
        rank: Number of this device.
        world_size: Number of devices.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        rating: Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            user.long(), item.long(), rating, batch_size=batch_size, shuffle=shuffle, seed=seed, rank=rank,
            world_size=world_size,
        )  # fmt: skip

    def __iter__(self) -> Iterator[RatingBatch]:
        order = self._order()
        if self.world_size > 1:
            place = torch.arange(self.num_rows) % self.batch_size  # within the batch
            order = order[place % self.world_size == self.rank]
        order = order.to(self.columns[0].device)
        user, item, rating = (column[order] for column in self.columns)
        share_of_full_batch = len(range(self.rank, self.batch_size, self.world_size))
        for number, begin, end in self._pass():
            first = number * share_of_full_batch
            share = slice(first, first + len(range(self.rank, end - begin, self.world_size)))
            yield RatingBatch(user[share], item[share], rating[share], order[share], end - begin)
