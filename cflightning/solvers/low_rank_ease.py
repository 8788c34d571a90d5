"""Low-rank EASE: a linear autoencoder of interactions in closed form, whose scores are one dot product.

With X the matrix of interactions and D_u, D_i their numbers by user and by item, EASE (Steck 2019) regresses the
columns of ``M = D_u^-user_power X D_i^-item_power`` on each other, with a ridge and a zero diagonal::

    P = (M^T M + L)^-1          B = I - P diag(P)^-1          L = l2 s + dropout / (1 - dropout) diag(M^T M)

s is the mean squared entry of M, so l2 is in interactions. The second part of L is the effect of hiding a share of the
interactions in training (EDLAE, Steck 2020). The best approximation of rank dim of all scores,
``F = M B D_i^item_power``, is ``F V V^T``, with V the leading right singular vectors of F. So the vectors are::

    encoder = D_i^-item_power B D_i^item_power V          users = X encoder          items = V

The vector of a new user is the same sum of rows of the encoder as that of a user in training. On MovieLens 1M rank 256
ranks as well as the full matrix. B is never formed: P is an operator (`solvers.inverse_gram`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.solvers import subspace
from cflightning.solvers.inverse_gram import ScaledInteractions, invert_gram
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool


class LinearTables(NamedTuple):
    """A linear autoencoder of low rank.

    Attributes:
        user_vectors: float32 [num_users, dim], for each user the sum of the encoder's rows of the user's items.
        encoder: float32 [num_items, dim].
        item_vectors: float32 [num_items, dim], the decoder.
    """

    user_vectors: Tensor
    encoder: Tensor
    item_vectors: Tensor


class LowRankEase:
    """The closed form, whose leading singular vectors are found by subspace iteration, one sweep at a time.

    Args:
        interactions: Interactions of the training part; values are entries of X.
        dim: Latent factors.
        l2: Ridge, in interactions.
        user_power: Exponent by which interactions of active users count less.
        item_power: Exponent by which interactions with popular items count less.
        dropout: Share of the interactions that are hidden in effect, below 1.
        seed: Seed of the start of the iteration.
        threads: Number of threads; the result does not depend on it.

    Attributes:
        basis: float32 [num_items, width], orthonormal columns, most important first. None before the first sweep.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        *,
        l2: float = 200.0,
        user_power: float = 0.2,
        item_power: float = 0.0,
        dropout: float = 0.2,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        if dim < 1 or not l2 > 0 or not 0 <= dropout < 1:
            raise ConfigError(
                "ease: must have dim of at least 1, l2 above 0 and dropout from 0 to below 1, "
                f"got {dim}, {l2} and {dropout}"
            )
        self.dim, self.seed, self.threads = dim, seed, threads
        user_counts, self._item_counts = (matrix.counts.clamp(min=1).float() for matrix in interactions)
        self._matrix = ScaledInteractions(interactions, user_counts**-user_power, self._item_counts**-item_power)
        self._score_scale = self._item_counts[:, None] ** item_power
        with ThreadPool(threads) as pool:
            squares = self._matrix.gram_diagonal(pool)
            unit = float(squares.sum()) / max(len(interactions.by_user.indices), 1)
            penalty = l2 * max(unit, 1e-12) + dropout / (1 - dropout) * squares
            self._inverse = invert_gram(self._matrix, penalty, pool, rank=2 * dim, seed=seed)
        self._constraint = 1 / self._inverse.diagonal[:, None]
        self.basis: Tensor | None = None

    def sweep(self) -> float:
        """Run an iteration.

        Returns:
            The squared error of the scores, as a share of the squared norm of ``D_u^-user_power X``.
        """
        with ThreadPool(self.threads) as pool:

            def apply(table: Tensor) -> Tensor:
                return self._matrix.apply(self._weights(self._score_scale * table, pool), pool)

            def apply_transposed(table: Tensor) -> Tensor:
                return self._score_scale * self._weights_transposed(self._matrix.apply_transposed(table, pool), pool)

            if self.basis is None:  # from random users, as random items lose weak directions to rounding
                users = subspace.random_directions(len(self._matrix.user_scale), self.dim, self.seed)
                self.basis, _ = subspace.rayleigh_ritz(apply_transposed(users), apply, pool)
            else:
                self.basis, _ = subspace.sweep(self.basis, apply, apply_transposed, pool)
            return self._loss(pool)

    def tables(self) -> LinearTables:
        """Return the current tables.

        Raises:
            ConfigError: There was no sweep yet.
        """
        if self.basis is None:
            raise ConfigError("ease: there must be a sweep before the tables, got none; call sweep() first")
        items = self.basis[:, : self.dim].contiguous()
        with ThreadPool(self.threads) as pool:
            encoder = self._weights(self._score_scale * items, pool) / self._score_scale
            known = self._matrix.interactions.by_item.counts[:, None] > 0
            encoder, items = encoder * known, items * known
            by_user = self._matrix.interactions.by_user
            users = scaled_product(by_user, torch.ones(by_user.num_rows), torch.ones(len(encoder)), encoder, pool)
        return LinearTables(users, encoder, items)

    def _weights(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``B table``: float32 [num_items, width] -> float32 [num_items, width]."""
        return table - self._inverse.apply(self._constraint * table, pool)

    def _weights_transposed(self, table: Tensor, pool: ThreadPool) -> Tensor:
        """``B^T table``: float32 [num_items, width] -> float32 [num_items, width]."""
        return table - self._constraint * self._inverse.apply(table, pool)

    def _loss(self, pool: ThreadPool) -> float:
        assert self.basis is not None
        items = self.basis[:, : self.dim].contiguous()
        scores = self._matrix.apply(self._weights(self._score_scale * items, pool), pool).double()
        target = self._matrix._replace(item_scale=torch.ones(len(items)))
        total = float(target.gram_diagonal(pool).double().sum())
        matched = float((target.apply(items, pool).double() * scores).sum())
        return (total - 2 * matched + float(scores.square().sum())) / max(total, 1e-12)
