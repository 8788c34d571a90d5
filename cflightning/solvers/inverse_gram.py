"""The inverse ``P = (M^T M + diag(penalty))^-1`` of a regularised Gram matrix of items: exact, or of low rank."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.solvers import subspace
from cflightning.solvers.cooccurrence import cooccurrences
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool
from cflightning.utils.torch_threads import one_thread

log = logging.getLogger(__name__)

EXACT_OPERATIONS = 2e11
"""Multiplications above which the inverse is approximated: about five seconds of two cores."""
LARGE_BYTES = 1e9
"""Memory beyond which it is logged beforehand."""
MIN_SHARE = 1e-4
"""Lower limit of the share of an item's penalty in the diagonal of P, which rounding could turn negative."""


class ScaledInteractions(NamedTuple):
    """The matrix ``M = diag(user_scale) X diag(item_scale)``.

    Attributes:
        interactions: X, by user and by item.
        user_scale: float32 [num_users].
        item_scale: float32 [num_items].
    """

    interactions: Interactions
    user_scale: Tensor
    item_scale: Tensor

    def apply(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``M table``: float32 [num_items, width] -> float32 [num_users, width]."""
        return scaled_product(self.interactions.by_user, self.user_scale, self.item_scale, table, pool)

    def apply_transposed(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``M^T table``: float32 [num_users, width] -> float32 [num_items, width]."""
        return scaled_product(self.interactions.by_item, self.item_scale, self.user_scale, table, pool)

    def transpose(self) -> ScaledInteractions:
        """Return ``M^T``."""
        return ScaledInteractions(Interactions(*reversed(self.interactions)), self.item_scale, self.user_scale)

    def gram(self, pool: ThreadPool) -> Tensor:
        """``M^T M``: float32 [num_items, num_items]."""
        gram = torch.empty(len(self.item_scale), len(self.item_scale))
        for first, block in cooccurrences(self.interactions, pool, self.user_scale.square()):
            gram[first : first + len(block)] = block
        return gram.mul_(self.item_scale).mul_(self.item_scale[:, None])

    def gram_diagonal(self, pool: ThreadPool) -> Tensor:
        """Return the squared norms of the columns of M: float32 [num_items]."""
        squares = self.interactions.by_item
        if squares.values is not None:
            squares = squares._replace(values=squares.values.square())
        ones = torch.ones(len(self.user_scale), 1)
        return scaled_product(squares, self.item_scale.square(), self.user_scale.square(), ones, pool)[:, 0]


class InverseGram(ABC):
    """The inverse P as an operator.

    Attributes:
        diagonal: float32 [num_items], its diagonal.
    """

    diagonal: Tensor

    @abstractmethod
    def apply(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``P table``: float32 [num_items, width] -> float32 [num_items, width]."""


class PrimalInverse(InverseGram):
    """The exact inverse, for fewer items than users.

    Args:
        matrix: M.
        penalty: float32 [num_items], above 0.
        pool: Threads; the result does not depend on their number.
    """

    def __init__(self, matrix: ScaledInteractions, penalty: Tensor, pool: ThreadPool) -> None:
        self._inverse = _invert(matrix.gram(pool), penalty)
        self.diagonal = self._inverse.diagonal().clone()

    def apply(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``P table``; see `InverseGram.apply`."""
        return pool.product(self._inverse, table)


class DualInverse(InverseGram):
    """The exact inverse, for fewer users than items.

    With L the penalty it is ``L^-1 - L^-1 M^T (M L^-1 M^T + I)^-1 M L^-1`` (Woodbury): only a matrix of users by
    users is inverted.

    Args:
        matrix: M.
        penalty: float32 [num_items], above 0.
        pool: Threads; the result does not depend on their number.
    """

    def __init__(self, matrix: ScaledInteractions, penalty: Tensor, pool: ThreadPool) -> None:
        self._root = penalty.rsqrt()
        self._matrix = matrix._replace(item_scale=matrix.item_scale * self._root)  # M L^-1/2
        users = torch.ones(len(matrix.user_scale))
        self._inverse = _invert(self._matrix.transpose().gram(pool), users)
        captured = torch.empty(len(penalty))
        by_item, scale = self._matrix.interactions.by_item, self._matrix.item_scale
        for first in range(0, len(penalty), subspace.WIDTH_UNIT * 4):
            last = min(first + subspace.WIDTH_UNIT * 4, len(penalty))
            columns = by_item.part(first, last).dense_columns()  # [num_users, last - first]
            columns = self._matrix.user_scale[:, None] * columns * scale[first:last]
            captured[first:last] = (columns * pool.product(self._inverse, columns)).sum(0)
        self.diagonal = (1 - captured).clamp(min=MIN_SHARE) / penalty

    def apply(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``P table``; see `InverseGram.apply`."""
        table = self._root[:, None] * table
        users = pool.product(self._inverse, self._matrix.apply(table, pool))
        return self._root[:, None] * (table - self._matrix.apply_transposed(users, pool))


class TruncatedInverse(InverseGram):
    """The inverse of the best approximation of ``M L^-1/2`` of some rank, L the penalty, for tables of any size.

    Args:
        matrix: M.
        penalty: float32 [num_items], above 0.
        pool: Threads; the result does not depend on their number.
        rank: Rank of the approximation.
        seed: Seed of the start of the subspace iteration.
    """

    def __init__(
        self, matrix: ScaledInteractions, penalty: Tensor, pool: ThreadPool, *, rank: int, seed: int = 0
    ) -> None:
        self._root = penalty.rsqrt()
        scaled = matrix._replace(item_scale=matrix.item_scale * self._root)
        directions = subspace.random_directions(len(penalty), rank, seed)
        for _ in range(2):
            directions, values = subspace.sweep(
                directions, lambda t: scaled.apply(t, pool), lambda t: scaled.apply_transposed(t, pool), pool
            )
        self._directions = directions[:, :rank].contiguous()
        self._shrinkage = (values / (values + 1))[:rank].float()
        captured = self._directions.square() @ self._shrinkage
        self.diagonal = (1 - captured).clamp(min=MIN_SHARE) / penalty

    def apply(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``P table``; see `InverseGram.apply`."""
        table = self._root[:, None] * table
        captured = pool.transposed_product(self._directions, table)
        return self._root[:, None] * (table - pool.product(self._directions, self._shrinkage[:, None] * captured))


def exact_operations(num_users: int, num_items: int) -> tuple[float, float]:
    """Return the multiplications of the primal and of the dual form of the exact inverse."""
    return float(num_items) ** 3, float(num_users) ** 3 + float(num_users) ** 2 * num_items


def invert_gram(
    matrix: ScaledInteractions, penalty: Tensor, pool: ThreadPool, *, rank: int, seed: int = 0
) -> InverseGram:
    """Invert the regularised Gram matrix: exactly if one of the two forms is cheap enough, else at the given rank."""
    users, items = len(matrix.user_scale), len(matrix.item_scale)
    primal, dual = exact_operations(users, items)
    exact = min(primal, dual) <= EXACT_OPERATIONS
    # Two square matrices, or four tables of the width of the iteration for users and items.
    size = 8 * min(users, items) ** 2 if exact else 16 * (users + items) * (rank + 2 * subspace.OVERSAMPLING)
    how = "exact inverse" if exact else f"inverse of rank {rank}"
    log.log(
        logging.INFO if size > LARGE_BYTES else logging.DEBUG,
        "Gram matrix of %d users and %d items: %s, about %.1f GB of memory", users, items, how, size / 1e9,
    )  # fmt: skip
    if not exact:
        return TruncatedInverse(matrix, penalty, pool, rank=rank, seed=seed)
    return (PrimalInverse if primal <= dual else DualInverse)(matrix, penalty, pool)


def _invert(gram: Tensor, penalty: Tensor) -> Tensor:
    gram.diagonal().add_(penalty)
    with one_thread():
        factor, info = torch.linalg.cholesky_ex(gram)
        if int(info):
            raise ConfigError("--model.ranking.l2: must be larger, the matrix of this table is singular in float32")
        return torch.cholesky_inverse(factor)
