"""Degree-scaled truncated SVD: vectors that rank well, without a gradient.

With X the 0/1 matrix of interactions and D_u, D_i the numbers of interactions of its rows and columns, M is
``D_u^-user_power X D_i^-item_power`` and V its leading right singular vectors. The vectors are::

    P = X D_i^-item_power V S^value_power          Q = D_i^score_power V

with S the singular values as shares of the largest. With value_power 0 all directions that are kept count alike, as in
an ideal low-pass filter of the graph (Shen et al. 2021, "How Powerful is Graph Convolution for Recommendation?", with
1/2 for the other powers). These say how much active users and popular items count in finding the directions and in the
scores.

V comes from subspace iteration on A = M^T M (Halko et al. 2011) with a Rayleigh-Ritz step in each sweep. Products
with a sparse M are cheap beside making the columns orthogonal, which Gram matrices and their eigenvectors in double
precision do much faster than a QR of tall tables. Two sweeps are enough: at dim 1024 on Gowalla directions that were
found more exactly ranked no better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cflightning.errors import ConfigError
from cflightning.solvers.interactions import Interactions, Side, interactions
from cflightning.solvers.sparse import product
from cflightning.utils.thread_pool import Threads
from cflightning.utils.torch_threads import one_thread

OVERSAMPLING = 32
"""Directions at least beyond those wanted: the last of a subspace are the least exact."""
UNIT = 64
"""The subspace has a multiple of so many directions, a strip of the compiled product."""
LEAST = 1e-7
"""Directions whose squared length is below this share of the longest's are rounding errors."""


class DegreeScaledSVD:
    """The iteration, a sweep at a time.

    Args:
        sides: who has what; confidences are not looked at.
        dim: latent factors.
        user_power: how much less an interaction of an active user counts.
        item_power: how much less an interaction with a popular item counts.
        score_power: how much popular items are preferred.
        value_power: how much more the directions with large singular values count, which does good where dim is large.
        seed: of where the iteration starts.
        threads: any number gives the same bits.

    Attributes:
        basis: float32 [num_items, width], orthonormal columns, the most important first; with the data the whole state
            of the iteration. None before the first sweep.
        values: float64 [width], eigenvalues of A that go with them, falling.

    Raises:
        ConfigError: `dim` is below 1.
    """

    def __init__(
        self,
        sides: Interactions,
        dim: int,
        *,
        user_power: float = 0.3,
        item_power: float = 0.5,
        score_power: float = 0.4,
        value_power: float = 0.0,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        if dim < 1:
            raise ConfigError(f"svd: dim must be at least 1, got {dim}")
        self.sides = sides
        degrees = [side.counts.clamp(min=1).float() for side in sides]
        self.user_scale, self.item_scale = degrees[0] ** -user_power, degrees[1] ** -item_power
        self.score_scale = degrees[1] ** score_power * (sides.items.counts > 0)
        self.squares = float(sides.users.sums(self.item_scale.square()) @ self.user_scale.square())
        self.value_power = value_power
        self.dim, self.seed, self.threads = dim, seed, threads
        self.basis: Tensor | None = None
        self.values = torch.zeros(0, dtype=torch.float64)

    def sweep(self) -> float:
        """Come closer to the leading directions.

        Returns:
            The share of M's squared entries that the leading `dim` directions hold: it grows from sweep to sweep.
        """
        with Threads(self.threads) as threads:
            table = self.basis
            if table is None:
                generator = torch.Generator().manual_seed(self.seed)
                width = -(-(self.dim + OVERSAMPLING) // UNIT) * UNIT
                table = torch.randn(len(self.item_scale), width, generator=generator)
            table = self._back(self._there(table, threads), threads)
            self.basis, self.values = self._rayleigh_ritz(table, threads)
        return float(self.values[: self.dim].sum()) / max(self.squares, LEAST)

    def finish(self) -> tuple[Tensor, Tensor]:
        """The vectors as they are now.

        Returns:
            float32 [num_users, dim], float32 [num_items, dim]. A user's vector is the sum of ``D_i^-item_power V`` over
            the user's items, so that of a new user needs no solving.

        Raises:
            ConfigError: there was no sweep yet.
        """
        if self.basis is None:
            raise ConfigError("svd: there must be a sweep before the vectors, got none; call sweep() first")
        directions = self.basis[:, : self.dim].contiguous()
        with Threads(self.threads) as threads:
            ones = torch.ones_like(self.user_scale)
            users = product(self.sides.users, ones, self.item_scale, directions, threads)
        weights = (self.values[: self.dim] / self.values[0].clamp(min=LEAST)) ** (self.value_power / 2)
        return users * weights.float(), self.score_scale[:, None] * directions

    def _there(self, table: Tensor, threads: Threads) -> Tensor:
        """``M table``: float32 [num_items, width] -> float32 [num_users, width]."""
        return product(self.sides.users, self.user_scale, self.item_scale, table, threads)

    def _back(self, table: Tensor, threads: Threads) -> Tensor:
        """``M^T table``: float32 [num_users, width] -> float32 [num_items, width]."""
        return product(self.sides.items, self.item_scale, self.user_scale, table, threads)

    def _rayleigh_ritz(self, table: Tensor, threads: Threads) -> tuple[Tensor, Tensor]:
        """Orthonormal columns of the same span that are eigenvectors of A within it, and their eigenvalues, falling."""
        gram = threads.gram(table)
        scale = gram.diagonal().clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
        with one_thread():
            lengths, turn = torch.linalg.eigh(gram * scale * scale[:, None])
        kept = lengths > LEAST * lengths[-1]
        white = scale[:, None] * turn * torch.where(kept, lengths, 1).rsqrt() * kept
        gram = threads.gram(self._there(table, threads))
        with one_thread():
            values, turn = torch.linalg.eigh(white.mT @ gram @ white)
            turn = (white @ turn).flip(1).float()
        return threads.product(table, turn), values.flip(0).clamp(min=0)


def fold_in(
    item_vectors: Tensor,
    given: Side,
    counts: Tensor,
    *,
    item_power: float = 0.5,
    score_power: float = 0.4,
    threads: int = 1,
) -> Tensor:
    """Vectors of new users, exactly what those of training would be with these items: sums over them.

    Args:
        item_vectors: float32 [num_items, dim], as finished, with value_power 0.
        given: the items of every user; values are not looked at.
        counts: int64 [num_items], interactions of each in training.
        item_power: as in training.
        score_power: likewise; the vectors hold it, so it is taken out.
        threads: any number gives the same bits.

    Returns:
        float32 [users, dim].
    """
    scale = counts.clamp(min=1).float() ** -(item_power + score_power)
    with Threads(threads) as pool:
        return product(given, torch.ones(len(given.counts)), scale, item_vectors.contiguous(), pool)


def degree_scaled_svd(
    user: Tensor,
    item: Tensor,
    num_users: int,
    num_items: int,
    dim: int,
    *,
    user_power: float = 0.3,
    item_power: float = 0.5,
    score_power: float = 0.4,
    value_power: float = 0.0,
    iterations: int = 2,
    seed: int = 0,
    threads: int = 1,
) -> tuple[Tensor, Tensor]:
    """The vectors after some sweeps; see :class:`DegreeScaledSVD`.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows; pairs with row 0 are left out.
        num_users: rows of a user table, the unknown row included.
        num_items: rows of an item table, the unknown row included.
        dim: latent factors.
        user_power: see :class:`DegreeScaledSVD`.
        item_power: see :class:`DegreeScaledSVD`.
        score_power: see :class:`DegreeScaledSVD`.
        value_power: see :class:`DegreeScaledSVD`.
        iterations: sweeps.
        seed: of where they start.
        threads: any number gives the same bits.

    Returns:
        float32 [num_users, dim], float32 [num_items, dim]; zero where there are fewer directions than `dim`.

    Raises:
        ConfigError: `dim` or `iterations` is below 1.
        DataError: see :func:`~cflightning.solvers.interactions.interactions`.
    """
    if iterations < 1:
        raise ConfigError(f"svd: iterations must be at least 1, got {iterations}")
    solver = DegreeScaledSVD(
        interactions(user, item, num_users, num_items), dim, user_power=user_power, item_power=item_power,
        score_power=score_power, value_power=value_power, seed=seed, threads=threads,
    )  # fmt: skip
    for _ in range(iterations):
        solver.sweep()
    return solver.finish()
