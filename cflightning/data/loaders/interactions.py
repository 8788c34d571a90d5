"""Batches of interactions with negative samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from cflightning.data.loaders.batches import ColumnLoader
from cflightning.data.loaders.negative_sampling import NegativeSample, NegativeSampler
from cflightning.errors import DataError


class InteractionBatch(NamedTuple):
    """A batch of interactions and its negative samples.

    Attributes:
        user: int64 [batch], indices.
        item: int64 [batch], indices.
        negatives: int64 [batch, m], indices of items; or [m], shared by the batch of all devices.
        log_q: float32 of the same shape, log probability of each negative sample; None where all are equally likely.
        position: int64 [batch], positions in the part that the batch is from.
        total: Interactions of the batch over all devices, the denominator of its mean loss.
    """

    user: Tensor
    item: Tensor
    negatives: Tensor
    log_q: Tensor | None
    position: Tensor
    total: int

    def __repr__(self) -> str:
        return (
            f"InteractionBatch({len(self.user):,} of {self.total:,} interactions, "
            f"{self.negatives.shape[-1]:,} negatives on {self.user.device})"
        )


class InteractionLoader(ColumnLoader):
    """Dataloader of interactions in batches, with negative samples for each.

    The samples depend on the seed, the epoch and the number of the batch alone, so a resumed pass and any number of
    devices have the same ones. Every device samples for the whole batch and takes its share.

    Args:
        user: int32 or int64 [n], indices.
        item: int32 or int64 [n], indices.
        negatives: The sampler.
        batch_size: Interactions of a batch over all devices.
        shuffle: Whether the order changes every epoch, by `seed` and the number of the epoch.
        seed: Seed of the orders and the samples.
        rank: Number of this device.
        world_size: Number of devices.

    Raises:
        DataError: The columns differ in length.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        negatives: NegativeSampler,
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
        super().__init__(
            user.long(), item.long(), batch_size=batch_size, shuffle=shuffle, seed=seed, rank=rank,
            world_size=world_size,
        )  # fmt: skip
        self.negatives = negatives

    def _share(self, sample: NegativeSample) -> NegativeSample:
        """Return this device's rows of a sample; a shared one is returned whole."""
        if sample.items.dim() == 1:
            return sample
        rows = slice(self.rank, None, self.world_size)
        return NegativeSample(sample.items[rows], None if sample.log_q is None else sample.log_q[rows])

    def __iter__(self) -> Iterator[InteractionBatch]:
        order = self._order().to(self.columns[0].device)
        user, item = (column[order] for column in self.columns)
        for number, begin, end in self._pass():
            sample = self._share(self.negatives.draw(item[begin:end], self._generator(number + 1)))
            share = slice(begin + self.rank, end, self.world_size)
            yield InteractionBatch(user[share], item[share], *sample, order[share], end - begin)
