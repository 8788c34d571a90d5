"""Negative samples of a batch, drawn in one call.

An item that the user has chosen in another row may be among them. With many items this is rare, and the sampling
probabilities account for it. Accidental hits within a row, where the negative sample is the chosen item itself, are
masked: see `accidental_hits`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.errors import ConfigError, DataError


class NegativeSample(NamedTuple):
    """Negative samples of a batch.

    Attributes:
        items: int64 [batch, m], indices; or [m], shared by the batch.
        log_q: float32 of the same shape, log probability of each sample; None where all items are equally likely.
    """

    items: Tensor
    log_q: Tensor | None = None


class NegativeSampler(ABC):
    """A distribution of negative samples."""

    @abstractmethod
    def draw(self, item: Tensor, generator: torch.Generator) -> NegativeSample:
        """Draw negative samples for the batch of all devices.

        Args:
            item: int64 [batch], indices of the chosen items.
            generator: A generator on the CPU on any device, so that all devices have the same samples.
        """


class UniformNegatives(NegativeSampler):
    """Uniform distribution over all items but the unknown one.

    Args:
        num_items: Number of item embeddings, the unknown item included.
        m: Number of samples of each interaction, or of each batch if they are shared.
        shared: Whether the batch shares one sample.

    Raises:
        ConfigError: There is no item, or `m` is below 1.
    """

    def __init__(self, num_items: int, m: int, shared: bool = False) -> None:
        if num_items < 2 or m < 1:
            raise ConfigError(
                "UniformNegatives: there must be an item beside the unknown one, and m must be at least 1, "
                f"got {num_items} embeddings and {m}"
            )
        self.num_items, self.m, self.shared = num_items, m, shared

    def draw(self, item: Tensor, generator: torch.Generator) -> NegativeSample:
        """See `NegativeSampler.draw`."""
        shape = (self.m,) if self.shared else (len(item), self.m)
        return NegativeSample(torch.randint(1, self.num_items, shape, generator=generator).to(item.device))


class InBatchNegatives(NegativeSampler):
    """The chosen items of the batch itself, sampled in proportion to their popularity (Yi et al. 2019).

    Args:
        counts: int64 [num_items], interactions of each item in the training part.
    """

    def __init__(self, counts: Tensor) -> None:
        self.log_q = (counts / counts.sum().clamp(min=1)).log()

    def draw(self, item: Tensor, generator: torch.Generator) -> NegativeSample:
        """See `NegativeSampler.draw`; the generator is not used.

        Raises:
            DataError: An item has no interaction in the training part.
        """
        self.log_q = self.log_q.to(item.device)
        log_q = self.log_q[item]
        if bad := int(log_q.isinf().sum()):
            raise DataError(
                f"InBatchNegatives: every item of a batch must be one of the training part, got {bad} others"
            )
        return NegativeSample(item, log_q)


def accidental_hits(item: Tensor, negatives: Tensor) -> Tensor:
    """Find negative samples that are the chosen item: int64 [batch], int64 [batch, m] or [m] -> bool [batch, m]."""
    return item[:, None] == negatives
