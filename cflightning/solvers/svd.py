"""Degree-scaled truncated SVD: vectors for ranking without gradient descent.

With X the matrix of interactions, 0/1 unless they have values, and D_u, D_i the numbers of interactions of its rows and
columns, M is ``D_u^-user_power X D_i^-item_power`` and V its leading right singular vectors. The vectors are::

    P = X D_i^-item_power V          Q = D_i^score_power V

All directions that are kept have the same weight, as in an ideal low-pass filter of the graph (Shen et al. 2021, "How
Powerful is Graph Convolution for Recommendation?", with 1/2 for the three powers). The powers decide how much active
users and popular items count in finding the directions, and in the scores.

V comes from subspace iteration (`solvers.subspace`). Two sweeps are enough: at dim 1024 on Gowalla more exact
directions did not rank better.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.solvers import subspace
from cflightning.solvers.inverse_gram import ScaledInteractions
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.csr import Csr
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool


class DegreeScaledSVD:
    """The subspace iteration, one sweep at a time.

    Args:
        interactions: Interactions of the training part; their values, if there are any, are the entries of X.
        dim: Latent factors.
        user_power: Exponent by which interactions of active users count less.
        item_power: Exponent by which interactions with popular items count less.
        score_power: Exponent by which popular items score higher.
        seed: Seed of the start of the iteration.
        threads: Number of threads; the result does not depend on it, bit for bit.

    Attributes:
        basis: float32 [num_items, width], orthonormal columns, most important first: with the data the whole state of
            the iteration. None before the first sweep.
        values: float64 [width], their eigenvalues of A, falling.

    Raises:
        ConfigError: `dim` is below 1.
    """

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        *,
        user_power: float = 0.3,
        item_power: float = 0.5,
        score_power: float = 0.4,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        if dim < 1:
            raise ConfigError(f"svd: dim must be at least 1, got {dim}")
        self.interactions = interactions
        degrees = [matrix.counts.clamp(min=1).float() for matrix in interactions]
        self.user_scale, self.item_scale = degrees[0] ** -user_power, degrees[1] ** -item_power
        self.score_scale = degrees[1] ** score_power * (interactions.by_item.counts > 0)
        by_user = interactions.by_user
        entries = self.item_scale[by_user.indices] * torch.repeat_interleave(self.user_scale, by_user.counts)
        if by_user.values is not None:
            entries *= by_user.values
        self.squared_norm = float(entries.square().sum(dtype=torch.float64))
        self.dim, self.seed, self.threads = dim, seed, threads
        self.basis: Tensor | None = None
        self.values = torch.zeros(0, dtype=torch.float64)

    def sweep(self) -> float:
        """Run an iteration.

        Returns:
            Share of the squared Frobenius norm of M in the leading `dim` directions, which grows from sweep to sweep.
        """
        with ThreadPool(self.threads) as pool:
            if self.basis is None:
                self.basis = subspace.random_directions(len(self.item_scale), self.dim, self.seed)
            matrix = ScaledInteractions(self.interactions, self.user_scale, self.item_scale)
            products = partial(matrix.apply, pool=pool), partial(matrix.apply_transposed, pool=pool)
            self.basis, self.values = subspace.sweep(self.basis, *products, pool)
        return float(self.values[: self.dim].sum()) / max(self.squared_norm, subspace.MIN_EIGENVALUE)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the current vectors.

        Returns:
            float32 [num_users, dim], float32 [num_items, dim]. A user's vector is the sum of ``D_i^-item_power V`` over
            the user's items, so fold-in of a new user is the same sum.

        Raises:
            ConfigError: There was no sweep yet.
        """
        if self.basis is None:
            raise ConfigError("svd: there must be a sweep before the vectors, got none; call sweep() first")
        directions = self.basis[:, : self.dim].contiguous()
        with ThreadPool(self.threads) as pool:
            ones = torch.ones_like(self.user_scale)
            users = scaled_product(self.interactions.by_user, ones, self.item_scale, directions, pool)
        return users, self.score_scale[:, None] * directions


def fold_in(
    item_vectors: Tensor,
    users: Csr,
    counts: Tensor,
    *,
    item_power: float = 0.5,
    score_power: float = 0.4,
    threads: int = 1,
) -> Tensor:
    """Compute the vectors of new users: the same sums over their items as in training.

    Args:
        item_vectors: float32 [num_items, dim], trained.
        users: The items of every user; their values, if there are any, are multiplied in as in training.
        counts: int64 [num_items], interactions of each item in training.
        item_power: Exponent in training.
        score_power: Exponent in training; it is taken out of the item vectors.
        threads: Number of threads; the result does not depend on it, bit for bit.

    Returns:
        float32 [users, dim].
    """
    scale = counts.clamp(min=1).float() ** -(item_power + score_power)
    with ThreadPool(threads) as pool:
        return scaled_product(users, torch.ones(users.num_rows), scale, item_vectors.contiguous(), pool)
