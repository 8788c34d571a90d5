"""SvdppSides: what the items that a user has rated say of the user, and the users of an item of the item.

SVD++ (Koren 2008, eq. 15) adds to a user's factors the sum of the vectors y of all items that the user has rated,
whatever the rating; Rendle, Zhang & Koren 2019 add the same to items, by the users who have rated them. Here the sum is
the *prior mean* of the row instead of a part of it (as side information is in Macau, Simm et al. 2015)::

    p_u  ~  mean_u = w_u sum of y_j over j in N(u),  N(u): items that u has rated in the training part

so that the penalty pulls p_u to its bag's mean instead of to zero. The minimum is SVD++'s, but the table already holds
what answers: a model with bags is a plain dot product from the first step on, and checkpoints, export and serving never
learn of bags.

The weight is w_u = (|N(u)| - 1)^1/2 / |N(u)|, where Koren has |N(u)|^-1/2: that each rated item is one of its user's
bag, which no item to be predicted is, only teaches a bag to repeat ratings. The fewer items, the more so: whoever has
one has an empty bag, and with many the weight is Koren's.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from cflightning.models.penalty import count_weights


class Neighbours(NamedTuple):
    """The rows of the other side that each row meets, one after the other.

    Attributes:
        rows: int32 [n], rows of the other side.
        offsets: int32 [rows of this side], where each row's begin.
        counts: int64 [rows of this side].
    """

    rows: Tensor
    offsets: Tensor
    counts: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """Sum of the neighbours' rows of a table: float32 [rows of the other side, dim] -> [rows of this side, dim]."""
        return embedding_bag(self.rows, table, self.offsets, mode="sum")


def neighbours(own: Tensor, other: Tensor, size: int) -> Neighbours:
    """Group the pairs of two columns by the first.

    Args:
        own: int32 [n], rows.
        other: int32 [n], rows.
        size: rows of the first one's tables.
    """
    counts = torch.bincount(own, minlength=size)
    order = torch.sort(own, stable=True).indices
    return Neighbours(other[order].int(), (counts.cumsum(0) - counts).int(), counts)


class SvdppTerm:
    """The bag of one table: its vectors y, learnt from the rows that lean on them, and the rows' prior means.

    Args:
        own: of the table's rows.
        other: of the other side's rows: the same pairs the other way round.
        dim: width of the table.
        l2_exponent: of the penalty on the table's rows, see `count_weights`; y bears the same.
        penalty: on y, as a multiple of the penalty on the table's rows.

    Attributes:
        vectors: float32 [rows of the other side, dim], y.
        mean: float32 [rows, dim].
    """

    def __init__(self, own: Neighbours, other: Neighbours, dim: int, l2_exponent: float, penalty: float = 1.0) -> None:
        self.own, self.other = own, other
        # A row that is rated n times bears the penalty n times.
        (counts, precision), (_, penalties) = (
            (n, (n * count_weights(n, l2_exponent))[:, None]) for n in (own.counts.clamp(min=1), other.counts)
        )
        self.weight = (counts[:, None] - 1).float().sqrt() / counts[:, None]
        self.precision, self.penalties = precision, penalty * penalties
        self._first, self._spread = self.penalties, other.sums(self.weight.square() * precision)
        self.curvature = self._spread + self.penalties.clamp(min=1e-6)
        self.vectors = precision.new_zeros(len(other.counts), dim)
        self.mean = precision.new_zeros(len(counts), dim)

    def penalise(self, multiple: float) -> None:
        """Let y cost a multiple of what it costs by the arguments."""
        self.penalties = self._first * multiple
        self.curvature = self._spread + self.penalties.clamp(min=1e-6)

    def use(self, pool: Executor | None, helpers: int) -> None:
        """Threads for a kind of bag that wants them; torch has its own."""

    def step(self, table: Tensor, share: Tensor | None = None) -> None:
        """Move y down the gradient of the penalty, and the table's rows along with their means, in place.

        A step of preconditioned steepest descent, its length by an exact line search for each column. That the rows
        follow their means leaves what the ratings have taught them apart; without it rows lag behind.

        Args:
            table: float32 [rows, dim].
            share: float32 [rows], share of its way to the mean that each row goes first.
        """
        if share is not None:
            table.lerp_(self.mean, share[:, None])
        pull = self.precision * (table - self.mean)
        gradient = self.other.sums(self.weight * pull).sub_(self.penalties * self.vectors)
        change = gradient / self.curvature
        effect = self.own.sums(change).mul_(self.weight)
        bend = (self.precision * effect.square()).sum(0) + (self.penalties * change.square()).sum(0)
        length = (gradient * change).sum(0) / bend.clamp(min=1e-30)
        self.vectors += length * change
        effect *= length
        self.mean += effect
        table += effect
