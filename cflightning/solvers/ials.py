"""Implicit alternating least squares: what is there should score 1 and everything else, with little weight, 0.

For users u and items i, S the pairs that are there and c_ui their confidence, 1 if nothing else is said, this minimises
(Hu, Koren & Volinsky 2008; as in Rendle et al. 2022, "Revisiting the Performance of iALS on Item Recommendation")::

    sum over S of c_ui (1 - <p_u, q_i>)^2  +  weight * sum over all u, i of <p_u, q_i>^2
        + l2 * (sum over u of (n_u + weight * I)^exponent |p_u|^2  +  sum over i of (n_i + weight * U)^exponent |q_i|^2)

with n_u and n_i the numbers of pairs, U and I those of users and items. With one side fixed the rows of the other are
independent quadratic problems, and the sum over all pairs is a Gram matrix that they share. A row's problem is solved
for a block of its columns at a time (iALS++, Rendle et al. 2021): a Newton step with the others as they are, which is
the minimum where one block holds all columns. A wide row costs in proportion to dim times block instead of dim squared.
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
from cflightning.kernels.compiling import usable
from cflightning.solvers.interactions import Side, interactions
from cflightning.solvers.svd import DegreeScaledSVD
from cflightning.utils.thread_pool import Threads

UNIT = 16
"""Blocks are multiples of so many columns: a tile of the compiled kernel. Zeros fill them up and stay."""
CHUNK = 1 << 14
"""Pairs whose errors are summed at a time."""


class Problem(NamedTuple):
    """The rows of one side and what they are solved from, but for the vectors.

    Attributes:
        order: int64 [m], rows that have pairs; those with most of them first, so that threads end together.
        rows: int32 [n], rows of the other side that each row meets, one row after the other.
        offsets: int64 [size + 1], where each row's begin.
        roots: float32 [n], root of each pair's confidence; or [0], for 1 throughout.
        penalties: float32 [size].
    """

    order: NDArray[np.int64]
    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]
    roots: NDArray[np.float32]
    penalties: NDArray[np.float32]


class Ials:
    """The alternation, a sweep at a time; the vectors are the caller's.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows; pairs with row 0 are left out.
        num_users: rows of a user table, the unknown row included.
        num_items: rows of an item table, the unknown row included.
        weight: of all pairs, whether they are there or not.
        l2: penalty.
        exponent: how much more the rows with more pairs are penalised: 0 not at all, 1 in proportion.
        block: columns that are solved for at a time, rounded up to a multiple of 16.
        threads: any number gives the same bits.
        confidence: float32 [n], at least 0; None for 1 throughout.

    Raises:
        ConfigError: a number is out of range.
        DataError: columns do not fit together, or a confidence is below 0.
    """

    def __init__(
        self,
        user: Tensor,
        item: Tensor,
        num_users: int,
        num_items: int,
        *,
        weight: float = 0.1,
        l2: float = 0.007,
        exponent: float = 1.0,
        block: int = 64,
        threads: int = 1,
        confidence: Tensor | None = None,
    ) -> None:
        for name, value, enough in (("weight", weight, weight >= 0), ("l2", l2, l2 > 0), ("block", block, block > 0)):
            if not enough:
                raise ConfigError(f"ials: {name} must be {'above' if name != 'weight' else 'at least'} 0, got {value}")
        if confidence is not None and (bad := int((~(confidence >= 0)).sum())):
            raise DataError(f"ials: confidences must be at least 0, got {bad} others")
        self.weight, self.l2, self.exponent, self.block, self.threads = weight, l2, exponent, block, threads
        self.sides = interactions(user, item, num_users, num_items, confidence)
        self.users = self._problem(self.sides.users, num_items)
        self.items = self._problem(self.sides.items, num_users)

    def _problem(self, side: Side, others: int) -> Problem:
        counts = side.counts
        order = torch.argsort(counts, descending=True, stable=True)[: int((counts > 0).sum())]
        penalties = self.l2 * (counts + self.weight * max(others - 1, 0)).double() ** self.exponent
        roots = torch.empty(0) if side.values is None else side.values.sqrt()
        return Problem(*(part.numpy() for part in (order, side.rows, side.offsets, roots, penalties.float())))

    def start(self, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Vectors to start from: about the best approximation of the matrix of pairs itself, a truncated SVD.

        From here three sweeps on MovieLens 1M end where ten from random numbers do. Item vectors are of length 1 in the
        mean; rows without pairs are zeros.

        Args:
            dim: latent factors.
            seed: of where the SVD's iteration starts.

        Returns:
            float32 [num_users, dim], float32 [num_items, dim].

        Raises:
            ConfigError: `dim` is below 1.
        """
        plain = {"user_power": 0.0, "item_power": 0.0, "score_power": 0.0}
        solver = DegreeScaledSVD(self.sides, dim, **plain, seed=seed, threads=self.threads)
        solver.sweep()
        users, items = solver.finish()
        length = float(items.norm(dim=1)[self.sides.items.counts > 0].mean()) if len(self.items.order) else 1.0
        return users * length, items / length

    def sweep(self, user_factors: Tensor, item_factors: Tensor) -> None:
        """Solve for all users, and then for all items; in place.

        Args:
            user_factors: float32 [num_users, dim]; rows without pairs, row 0 among them, must be zero and stay so.
            item_factors: float32 [num_items, dim]; likewise.

        Raises:
            DataError: the tables do not fit.
        """
        self._check(user_factors, item_factors)
        self._solve(self.users, user_factors, item_factors)
        self._solve(self.items, item_factors, user_factors)

    def fold_in(self, item_factors: Tensor, lists: Sequence[Tensor]) -> Tensor:
        """Vectors of new users: those that a sweep would give them, whatever the block.

        Args:
            item_factors: float32 [num_items, dim].
            lists: int [any number] for each user, item rows; row 0 is left out.

        Returns:
            float32 [users, dim]; zeros for a user without items.

        Raises:
            DataError: a row is out of range.
        """
        lengths = torch.tensor([len(rows) for rows in lists], dtype=torch.int64)
        user = torch.repeat_interleave(torch.arange(1, len(lists) + 1), lengths).int()
        item = torch.cat([torch.empty(0, dtype=torch.int32), *(rows.int() for rows in lists)])
        sides = interactions(user, item, len(lists) + 1, len(item_factors))
        found = torch.zeros(len(lists) + 1, item_factors.shape[1])
        self._solve(self._problem(sides.users, len(item_factors)), found, item_factors, whole=True)
        return found[1:]

    def loss(self, user_factors: Tensor, item_factors: Tensor) -> float:
        """What is minimised: the sum at the top of this module."""
        self._check(user_factors, item_factors)
        problem = self.users
        counts = torch.from_numpy(np.diff(problem.offsets))
        user = torch.repeat_interleave(torch.arange(len(counts)), counts)
        total = 0.0
        for begin in range(0, len(user), CHUNK):
            part = slice(begin, begin + CHUNK)
            item = torch.from_numpy(problem.rows[part])
            error = 1 - (user_factors[user[part]] * item_factors[item]).sum(1).double()
            if len(problem.roots):
                error *= torch.from_numpy(problem.roots[part])
            total += float(error.square().sum())
        tables = user_factors.double(), item_factors.double()
        total += self.weight * float(((tables[0].mT @ tables[0]) * (tables[1].mT @ tables[1])).sum())
        for side, table in zip((self.users, self.items), tables, strict=True):
            total += float(torch.from_numpy(side.penalties).double() @ table.square().sum(1))
        return total

    def _solve(self, problem: Problem, own: Tensor, other: Tensor, whole: bool = False) -> None:
        """Solve for the rows of one side, in place; `whole`: for all columns at once."""
        dim = own.shape[1]
        blocks = 1 if whole else -(-dim // self.block)
        block = -(-dim // (blocks * UNIT)) * UNIT
        filled = 0, blocks * block - dim
        near, far = (pad(table.detach(), filled).contiguous() for table in (own, other))
        with Threads(self.threads) as threads:
            gram = (self.weight * threads.gram(far)).float().numpy()
            arguments = *problem[:-1], near.numpy(), far.numpy(), gram, problem.penalties
            if not usable():
                solve_rows(*arguments, block)
            else:
                from cflightning.kernels import ials

                threads.call(ials.solve_rows, *arguments, block)
        if bad := int((~near.isfinite()).any(1).sum()):
            raise TrainingError(f"ials: vectors must be finite, got {bad} rows that are not; raise l2 or weight")
        own.copy_(near[:, :dim])

    def _check(self, user_factors: Tensor, item_factors: Tensor) -> None:
        for name, table, problem in (("user", user_factors, self.users), ("item", item_factors, self.items)):
            rows = len(problem.penalties)
            if table.dim() != 2 or table.dtype != torch.float32 or table.shape != (rows, user_factors.shape[-1]):
                raise DataError(
                    f"ials: {name}_factors must be float32 [{rows}, dim], the same dim for both, "
                    f"got {table.dtype} {[*table.shape]}"
                )


def solve_rows(
    order: NDArray[np.int64],
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    roots: NDArray[np.float32],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
    gram: NDArray[np.float32],
    penalties: NDArray[np.float32],
    block: int,
) -> None:
    """Move rows of one side to their minimum in each block of columns; what `kernels.ials.solve_rows` compiles."""
    for row in order:
        pairs = slice(offsets[row], offsets[row + 1])
        near = other[rows[pairs]]
        root = roots[pairs] if len(roots) else np.ones(len(near), np.float32)
        for left in range(0, own.shape[1], block):
            columns = slice(left, left + block)
            part = root[:, None] * near[:, columns]
            error = root * (near @ own[row] - 1)
            slope = part.T @ error + gram[columns] @ own[row] + penalties[row] * own[row, columns]
            bend = part.T @ part + gram[columns, columns] + penalties[row] * np.eye(block, dtype=np.float32)
            own[row, columns] -= np.linalg.solve(bend, slope)
