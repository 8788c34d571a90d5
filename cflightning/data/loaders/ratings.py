"""Batches cut from columns held in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class RatingBatch(NamedTuple):
    """Some ratings.

    Attributes:
        user: int64 [batch], rows.
        item: int64 [batch], rows.
        rating: float32 [batch], rating units; NaN where there is no truth.
        position: int64 [batch], positions in the part that the batch was cut from.
        total: rows of this batch over all devices: the denominator of its mean loss.
    """

    user: Tensor
    item: Tensor
    rating: Tensor
    position: Tensor
    total: int

    def __repr__(self) -> str:
        return f"RatingBatch({len(self.user):,} of {self.total:,} ratings on {self.user.device})"


class EpochLoader(ABC):
    """What Lightning asks of a dataloader that has a fresh order every epoch and can be resumed inside one.

    Subclasses count the batches that they serve in `_served`, and begin a pass at `_start`, which they set back to 0.
    """

    batch_sampler = None  # Lightning looks for one beside `sampler`
    _epoch = _start = _served = 0

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} batches)"

    @property
    def sampler(self) -> EpochLoader:
        """Itself: Lightning calls `set_epoch` on a dataloader's sampler when an epoch begins."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order: number `epoch` of this seed."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Batches already served of the current epoch, for a checkpoint inside it."""
        return {"served": self._served % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin where the checkpoint stopped."""
        self._start = int(state["served"])


class BatchLoader(EpochLoader):
    """Iterates over columns in batches; Lightning takes it as a dataloader.

    `batch_size` counts rows over *all* devices: each device gets its share of every batch, so that training takes the
    same steps on any number of them. Every row comes exactly once an epoch, on exactly one device; the last batch
    may be smaller and a device's share of it empty.

    The whole epoch is permuted at once and batches are views of it: per-row and per-batch gathers cost several times
    as much.

    Args:
        user: int32 or int64 [n], rows.
        item: int32 or int64 [n], rows.
        rating: float32 [n], rating units.
        batch_size: rows over all devices.
        shuffle: a fresh order every epoch, from `seed` and the epoch's number.
        seed: of the orders.
        rank: this device's number.
        world_size: number of devices.
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
        self.columns = (user.long(), item.long(), rating)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @property
    def num_rows(self) -> int:
        """Rows over all devices."""
        return len(self.columns[0])

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def _order(self) -> Tensor:
        """This device's rows of the epoch, in order: int64 [share of n]."""
        n = self.num_rows
        if self.shuffle:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self._epoch) % 2**63)
            order = torch.randperm(n, generator=generator)
        else:
            order = torch.arange(n)
        if self.world_size > 1:
            place = torch.arange(n) % self.batch_size  # within the batch
            order = order[place % self.world_size == self.rank]
        return order.to(self.columns[0].device)

    def __iter__(self) -> Iterator[RatingBatch]:
        order = self._order()
        user, item, rating = (column[order] for column in self.columns)
        start, self._start = self._start, 0
        begin = 0
        for number in range(len(self)):
            total = min(self.batch_size, self.num_rows - number * self.batch_size)
            end = begin + len(range(self.rank, total, self.world_size))
            if number >= start:
                self._served = number + 1
                share = slice(begin, end)
                yield RatingBatch(user[share], item[share], rating[share], order[share], total)
            begin = end


def default_batch_size(rows: int) -> int:
    """A batch size by the number of training rows: about eighty steps an epoch, within 256 and 16384."""
    return int(2 ** np.clip(np.round(np.log2(max(rows, 1) / 80)), 8, 14))
