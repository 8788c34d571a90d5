"""Loaders that resume within an epoch: `EpochLoader`, and `ColumnLoader` for columns in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from cflightning.utils.seeds import SEED_FACTOR


class LoaderState(TypedDict):
    """State of a loader in a checkpoint: the number of batches that were served in the epoch."""

    served: int


class EpochLoader(ABC):
    """A dataloader with a new order every epoch, which can be resumed within an epoch.

    Subclasses count the batches that they serve in `_served`, begin a pass at batch `_start`, and set that to 0.
    """

    batch_sampler = None  # Lightning reads this attribute beside `sampler`
    _epoch = _start = _served = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the batches of an epoch."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} batches)"

    @property
    def sampler(self) -> EpochLoader:
        """The loader itself: Lightning calls `set_epoch` of a dataloader's sampler when an epoch begins."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order."""
        self._epoch = epoch

    def state_dict(self) -> LoaderState:
        """Return the batches that were served in the current epoch."""
        return {"served": self._served % max(len(self), 1)}

    def load_state_dict(self, state: LoaderState) -> None:
        """Begin the next pass where the checkpoint ended."""
        self._start = int(state["served"])


class ColumnLoader(EpochLoader):
    """A loader of the rows of some columns.

    Args:
        columns: Tensors [n].
        batch_size: Rows of a batch over all devices.
        shuffle: Whether the order changes every epoch, by `seed` and the number of the epoch.
        seed: Seed of the orders.
        rank: Number of this device.
        world_size: Number of devices.
    """

    def __init__(
        self,
        *columns: Tensor,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.columns = columns
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

    def _generator(self, *numbers: int) -> torch.Generator:
        """Return the random generator of the epoch, or of one of its batches."""
        state = self.seed
        for number in (self._epoch, *numbers):
            state = state * SEED_FACTOR + number
        return torch.Generator().manual_seed(state % 2**63)

    def _order(self) -> Tensor:
        """Return the rows of the epoch in order, for all devices: int64 [n], on the CPU."""
        n = self.num_rows
        return torch.randperm(n, generator=self._generator()) if self.shuffle else torch.arange(n)

    def _pass(self) -> Iterator[tuple[int, int, int]]:
        """Iterate over number, begin and end of the batches that a pass still has to serve; counts them as served."""
        start, self._start = self._start, 0
        for number in range(start, len(self)):
            self._served = number + 1
            begin = number * self.batch_size
            yield number, begin, min(begin + self.batch_size, self.num_rows)


def default_batch_size(rows: int) -> int:
    """Return a batch size by the number of training rows: about 80 steps an epoch, within 256 and 16384."""
    return int(2 ** np.clip(np.round(np.log2(max(rows, 1) / 80)), 8, 14))
