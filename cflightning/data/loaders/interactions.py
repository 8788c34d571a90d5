"""Batches of choices, each with its negatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.data.loaders.negative_sampling import Drawn, Negatives
from cflightning.data.loaders.ratings import EpochLoader
from cflightning.errors import DataError

_PRIME = 1_000_003


class InteractionBatch(NamedTuple):
    """Some choices: who chose what, and what stands for all that was not chosen.

    Attributes:
        user: int64 [batch], rows.
        item: int64 [batch], rows.
        negatives: int64 [batch, m], rows of items; or [m], shared by the batch of all devices.
        log_q: float32 of the same shape, log of the probability that a draw is that item; None where all are alike.
        position: int64 [batch], positions in the part that the batch was cut from.
        total: choices of this batch over all devices: the denominator of its mean loss.
    """

    user: Tensor
    item: Tensor
    negatives: Tensor
    log_q: Tensor | None
    position: Tensor
    total: int

    def __repr__(self) -> str:
        return (
            f"InteractionBatch({len(self.user):,} of {self.total:,} interactions, {self.negatives.shape[-1]:,} "
            "negatives "
            f"on {self.user.device})"
        )


class InteractionLoader(EpochLoader):
    """Iterates over choices in batches, as `BatchLoader` does over ratings, and draws negatives for each.

    What is drawn depends on the seed, the epoch and the number of the batch alone: a pass that is resumed, and any
    number of devices, see the same. Every device draws for the whole batch and takes its share.

    Args:
        user: int32 or int64 [n], rows.
        item: int32 or int64 [n], rows.
        negatives: what draws them.
        batch_size: choices over all devices.
        shuffle: a fresh order every epoch, from `seed` and the epoch's number.
        seed: of the orders and the draws.
        rank: this device's number.
        world_size: number of devices.

    Raises:
        DataError: the columns differ in length.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        negatives: Negatives,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if user.shape != item.shape or user.dim() != 1:
            raise DataError(
                f"InteractionLoader: must be two columns of one length, got {[*user.shape]} and {[*item.shape]}"
            )
        self.columns = (user.long(), item.long())
        self.negatives = negatives
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @property
    def num_rows(self) -> int:
        """Choices over all devices."""
        return len(self.columns[0])

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def _generator(self, *numbers: int) -> torch.Generator:
        """A generator of its own for an epoch, or for a batch of it."""
        state = self.seed
        for number in (self._epoch, *numbers):
            state = state * _PRIME + number
        return torch.Generator().manual_seed(state % 2**63)

    def _order(self) -> Tensor:
        """The epoch's choices in order, those of all devices: int64 [n]."""
        n = self.num_rows
        order = torch.randperm(n, generator=self._generator()) if self.shuffle else torch.arange(n)
        return order.to(self.columns[0].device)

    def _share(self, drawn: Drawn) -> Drawn:
        """This device's rows of what was drawn for each choice; what is shared stays."""
        if drawn.items.dim() == 1:
            return drawn
        own = slice(self.rank, None, self.world_size)
        return Drawn(drawn.items[own], None if drawn.log_q is None else drawn.log_q[own])

    def __iter__(self) -> Iterator[InteractionBatch]:
        order = self._order()
        user, item = (column[order] for column in self.columns)
        start, self._start = self._start, 0
        for number in range(start, len(self)):
            begin = number * self.batch_size
            end = min(begin + self.batch_size, self.num_rows)
            drawn = self._share(self.negatives.draw(item[begin:end], self._generator(number + 1)))
            self._served = number + 1
            share = slice(begin + self.rank, end, self.world_size)
            yield InteractionBatch(user[share], item[share], *drawn, order[share], end - begin)
