"""Implicit alternating least squares (iALS): interactions should score 1, and all other pairs, with a low weight, 0.

For users u and items i, with S the interactions and c_ui their confidence (1 by default), the objective is (Hu, Koren &
Volinsky 2008; in the form of Rendle et al. 2022, "Revisiting the Performance of iALS on Item Recommendation")::

    sum over S of c_ui (1 - <p_u, q_i>)^2  +  weight * sum over all u, i of <p_u, q_i>^2
        + l2 * (sum over u of (n_u + weight * I)^exponent |p_u|^2  +  sum over i of (n_i + weight * U)^exponent |q_i|^2)

where n_u and n_i are numbers of interactions, and U and I those of users and items. With one side fixed, the vectors of
the other are independent quadratic problems, and the sum over all pairs is a Gram matrix that they share. Each problem
is solved for a block of its columns at a time (iALS++, Rendle et al. 2021): a Newton step with the other columns fixed,
which reaches the minimum if one block holds all columns. The cost of a vector grows with dim times block instead of dim
squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from cflightning.errors import ConfigError, DataError, TrainingError
from cflightning.kernels.availability import kernels_available
from cflightning.solvers.svd import DegreeScaledSVD
from cflightning.utils.csr import Csr
from cflightning.utils.interactions import Interactions, make_interactions
from cflightning.utils.thread_pool import ThreadPool

BLOCK_UNIT = 16
"""Unit of the number of columns of a block: a tile of the compiled kernel. Blocks are padded with zeros."""
CHUNK = 1 << 14
"""Interactions whose errors are summed at a time."""


class LeastSquares(NamedTuple):
    """The least-squares problems of one side, without the vectors of the other.

    Attributes:
        order: int64 [m], indices that have interactions; those with most first, which balances the threads.
        indices: int32 [n], indices of the other side, see `Csr`.
        offsets: int64 [size + 1], see `Csr`.
        roots: float32 [n], square root of each confidence; or [0] if all are 1.
        penalties: float32 [size].
    """

    order: NDArray[np.int64]
    indices: NDArray[np.int32]
    offsets: NDArray[np.int64]
    roots: NDArray[np.float32]
    penalties: NDArray[np.float32]


class AlternatingLeastSquares:
    """Alternating least squares, one sweep at a time; the caller holds the vectors.

    Args:
        interactions: Interactions of the training part; their values, at least 0, are the confidences.
        weight: Weight of all pairs.
        l2: L2 penalty.
        exponent: Growth of the penalty with the number of interactions: 0 none, 1 in proportion.
        block: Columns of a Newton step, rounded up to a multiple of 16.
        threads: Number of threads; the result does not depend on it, bit for bit.

    Raises:
        ConfigError: A number is out of range.
        DataError: A confidence is below 0.
    """

    def __init__(
        self,
        interactions: Interactions,
        *,
        weight: float,
        l2: float,
        exponent: float = 1.0,
        block: int = 64,
        threads: int = 1,
    ) -> None:
        for name, value, enough in (("weight", weight, weight >= 0), ("l2", l2, l2 > 0), ("block", block, block > 0)):
            if not enough:
                raise ConfigError(f"ials: {name} must be {'above' if name != 'weight' else 'at least'} 0, got {value}")
        confidence = interactions.by_user.values
        if confidence is not None and (bad := int((~(confidence >= 0)).sum())):
            raise DataError(f"ials: confidences must be at least 0, got {bad} others")
        self.weight, self.l2, self.exponent, self.block, self.threads = weight, l2, exponent, block, threads
        self.interactions = interactions
        self.users, self.items = (self._problems(matrix) for matrix in interactions)

    def _problems(self, matrix: Csr) -> LeastSquares:
        counts = matrix.counts
        order = torch.argsort(counts, descending=True, stable=True)[: int((counts > 0).sum())]
        penalties = self.l2 * (counts + self.weight * max(matrix.num_columns - 1, 0)).double() ** self.exponent
        roots = torch.empty(0) if matrix.values is None else matrix.values.sqrt()
        parts = order, matrix.indices, matrix.offsets, roots, penalties.float()
        return LeastSquares(*(part.numpy() for part in parts))

    def start(self, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Compute initial vectors: a truncated SVD of the interaction matrix.

        Three sweeps from here reach the result of ten sweeps from random vectors on MovieLens 1M. The mean length of
        the item vectors is 1; indices without interactions have zero vectors.

        Args:
            dim: Latent factors.
            seed: Seed of the SVD.

        Returns:
            float32 [num_users, dim], float32 [num_items, dim].

        Raises:
            ConfigError: `dim` is below 1.
        """
        solver = DegreeScaledSVD(
            self.interactions, dim, user_power=0.0, item_power=0.0, score_power=0.0, seed=seed, threads=self.threads
        )
        solver.sweep()
        users, items = solver.vectors()
        has_users = self.interactions.by_item.counts > 0
        length = float(items.norm(dim=1)[has_users].mean()) if len(self.items.order) else 1.0
        return users * length, items / length

    def sweep(self, user_factors: Tensor, item_factors: Tensor) -> None:
        """Solve for all users, then for all items, in place.

        Args:
            user_factors: float32 [num_users, dim]; the vectors of indices without interactions must be zero.
            item_factors: float32 [num_items, dim]; likewise.

        Raises:
            DataError: A table has another size or type.
        """
        self._check(user_factors, item_factors)
        self.solve(self.users, user_factors, item_factors)
        self.solve(self.items, item_factors, user_factors)

    def fold_in(self, item_factors: Tensor, item_lists: Sequence[Tensor]) -> Tensor:
        """Compute the vectors that a sweep would give new users, in one block.

        Args:
            item_factors: float32 [num_items, dim].
            item_lists: Item indices of each user, int [any number]; index 0 is left out.

        Returns:
            float32 [users, dim]; zeros for a user without items.

        Raises:
            DataError: An index is out of range.
        """
        lengths = torch.tensor([len(items) for items in item_lists], dtype=torch.int64)
        user = torch.repeat_interleave(torch.arange(1, len(item_lists) + 1), lengths).int()
        item = torch.cat([torch.empty(0, dtype=torch.int32), *(items.int() for items in item_lists)])
        interactions = make_interactions(user, item, len(item_lists) + 1, len(item_factors))
        vectors = torch.zeros(len(item_lists) + 1, item_factors.shape[1])
        self.solve(self._problems(interactions.by_user), vectors, item_factors, single_block=True)
        return vectors[1:]

    def loss(self, user_factors: Tensor, item_factors: Tensor) -> float:
        """Compute the objective, see the module."""
        self._check(user_factors, item_factors)
        problems = self.users
        counts = torch.from_numpy(np.diff(problems.offsets))
        user = torch.repeat_interleave(torch.arange(len(counts)), counts)
        total = 0.0
        for begin in range(0, len(user), CHUNK):
            part = slice(begin, begin + CHUNK)
            item = torch.from_numpy(problems.indices[part])
            error = 1 - (user_factors[user[part]] * item_factors[item]).sum(1).double()
            if len(problems.roots):
                error *= torch.from_numpy(problems.roots[part])
            total += float(error.square().sum())
        tables = user_factors.double(), item_factors.double()
        total += self.weight * float(((tables[0].mT @ tables[0]) * (tables[1].mT @ tables[1])).sum())
        for problems, table in zip((self.users, self.items), tables, strict=True):
            total += float(torch.from_numpy(problems.penalties).double() @ table.square().sum(1))
        return total

    def solve(self, problems: LeastSquares, side: Tensor, opposite: Tensor, single_block: bool = False) -> None:
        """Take a Newton step on each block of columns of one side, in place.

        Args:
            problems: Problems of the side, `users` or `items`.
            side: float32 [size, dim], vectors of the side.
            opposite: float32 [size of the opposite side, dim].
            single_block: Whether to solve for all columns at once.
        """
        dim = side.shape[1]
        blocks = 1 if single_block else -(-dim // self.block)
        block = -(-dim // (blocks * BLOCK_UNIT)) * BLOCK_UNIT
        padding = 0, blocks * block - dim
        near, far = (pad(table.detach(), padding).contiguous() for table in (side, opposite))
        with ThreadPool(self.threads) as pool:
            gram = (self.weight * pool.gram(far)).float().numpy()
            arguments = *problems[:-1], near.numpy(), far.numpy(), gram, problems.penalties
            if kernels_available():
                from cflightning.kernels import ials

                pool.run_kernel(ials.solve_rows, *arguments, block)
            else:
                solve_rows(*arguments, block)
        if bad := int((~near.isfinite()).any(1).sum()):
            raise TrainingError(f"ials: vectors must be finite, got {bad} others; raise l2 or weight")
        side.copy_(near[:, :dim])

    def _check(self, user_factors: Tensor, item_factors: Tensor) -> None:
        for name, table, problems in (("user", user_factors, self.users), ("item", item_factors, self.items)):
            size = len(problems.penalties)
            if table.dim() != 2 or table.dtype != torch.float32 or table.shape != (size, user_factors.shape[-1]):
                raise DataError(
                    f"ials: {name}_factors must be float32 [{size}, dim], the same dim for both, "
                    f"got {table.dtype} {[*table.shape]}"
                )


def solve_rows(
    order: NDArray[np.int64],
    indices: NDArray[np.int32],
    offsets: NDArray[np.int64],
    roots: NDArray[np.float32],
    near: NDArray[np.float32],
    far: NDArray[np.float32],
    gram: NDArray[np.float32],
    penalties: NDArray[np.float32],
    block: int,
) -> None:
    """Compute `kernels.ials.solve_rows` without numba; the arguments are the same."""
    for row in order:
        entries = slice(offsets[row], offsets[row + 1])
        gathered = far[indices[entries]]
        root = roots[entries] if len(roots) else np.ones(len(gathered), np.float32)
        for left in range(0, near.shape[1], block):
            columns = slice(left, left + block)
            part = root[:, None] * gathered[:, columns]
            error = root * (gathered @ near[row] - 1)
            gradient = part.T @ error + gram[columns] @ near[row] + penalties[row] * near[row, columns]
            hessian = part.T @ part + gram[columns, columns] + penalties[row] * np.eye(block, dtype=np.float32)
            near[row, columns] -= np.linalg.solve(hessian, gradient)
