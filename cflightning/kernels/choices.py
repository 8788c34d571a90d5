"""The fused training step of choices on the CPU: logistic loss with sampled negatives.

**Rule** (Rendle et al. 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited", section 3): for a
sample with label y, 1 for an item that the user chose and 0 for one that was drawn, and c = 1 - lr l2::

    g = lr (y - sigmoid(b + b_u + b_i + <p_u, q_i>))
    p_u, q_i = c p_u + g q_i, c q_i + g p_u        b_u, b_i, b = c b_u + g, c b_i + g, b + g

The negatives that a choice draws from one group of items are a group of samples: p_u, which all of them have, stays in
registers and moves at the end: ``c^n p_u + sum of g q_i``. Gradients of `BATCH` such groups are taken before any of
them updates, which makes the scalar arithmetic a vector's. See `choice_cells` for the order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cflightning.errors import ConfigError, DataError
from cflightning.kernels.choice_cells import GRID, GROUP, deal, draw, make_cells, shuffle
from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _FAST, _prefetch, _sigmoid, _take
from cflightning.kernels.layout import F32, I32
from cflightning.kernels.vectors import dots, steps

BATCH = 4
"""Groups of samples whose gradients are taken before any of them updates."""
WINDOW = 64
"""Groups that are drawn ahead, so that their rows can be asked for in time; whole batches."""
LANES = 8
"""Samples whose gradients are taken at once; arrays are filled up to a multiple, since a rest would go one by one."""
LEAST = np.float32(1e-7)
"""Least probability that counts in the loss, where single precision ends."""

_ONE = np.float32(1)
_kernels: dict[int, Callable[..., None]] = {}


def kernel(dim: int) -> Callable[..., None]:
    """The step for a dim, which is a constant of it, so that rows are vectors in registers.

    Returns:
        A function ``(user, item, starts, drawn, ends, asking, cuts, states, cells, size, taken, biases, losses, users,
        items, user_bias, item_bias, bias, lr, l2)`` that takes cells until none is left; run it on as many threads as
        you like with the same arguments. The first eight are of `Cells` and `Deal`; `cells` int64 [cells] are the
        numbers of those to be done, `size` the negatives of a group, `taken` int64 [1], 0 at first; into `biases`
        (float32 [cells]) and `losses` (float64 [cells]) go every cell's global bias and sum of logistic losses. It lets
        go of Python's lock.
    """
    if (found := _kernels.get(dim)) is not None:
        return found

    @compiled(fastmath=_FAST, error_model="numpy", nogil=True)
    def take_cells(
        user: Any, item: Any, starts: Any, drawn: Any, ends: Any, asking: Any, cuts: Any, states: Any, cells: Any,
        size: Any, taken: Any, biases: Any, losses: Any, users: Any, items: Any, user_bias: Any, item_bias: Any,
        start_bias: Any, lr: Any, l2: Any,
    ) -> None:  # fmt: skip
        room = WINDOW * size + LANES
        owner, first = np.empty(WINDOW, np.int64), np.zeros(WINDOW + 1, np.int64)
        row, at = np.empty(room, np.int64), np.empty(room, np.int64)
        sign, z, g = np.ones(room, np.float32), np.zeros(room, np.float32), np.zeros(room, np.float32)
        keep = _ONE - lr * l2
        while True:
            number: Any = _take(taken)
            if number >= cells.size:
                break
            cell = cells[number]
            a, b = cell // GRID, cell % GRID
            order, asked = np.arange(starts[cell], starts[cell + 1]), asking[cuts[a, b] : cuts[a, b + 1]]
            state, cursor = shuffle(order, states[cell]), np.zeros(2, np.int64)
            bias, loss, likelihood = start_bias, np.float64(0), np.float64(1)
            while True:
                here, state = draw(
                    user, item, order, asked, drawn[ends[b] : ends[b + 1]], size, cursor, state, owner, first, row, sign
                )
                if here == 0:
                    break
                for v0 in range(0, here, BATCH):
                    v1 = min(v0 + BATCH, here)
                    for v in range(v1, min(v1 + BATCH, here)):
                        for f in range(0, dim, 16):
                            _prefetch(users, owner[v] * dim + f)
                        for k in range(first[v], first[v + 1]):
                            for f in range(0, dim, 16):
                                _prefetch(items, row[k] * dim + f)
                    # 1. Scores. Sums start from the biases: a pass over vectors of single sums would wait for them.
                    for v in range(v0, v1):
                        u = owner[v]
                        base = bias + user_bias[u]
                        for k in range(first[v], first[v + 1]):
                            at[k] = row[k] * dim
                            z[k] = base + item_bias[row[k]]
                        dots(users, u * dim, items, at, first[v], first[v + 1], z, dim)
                    # 2. Probability of the true label and step: a vector lane per sample.
                    s, x, h = sign[first[v0] :], z[first[v0] :], g[first[v0] :]
                    for k in range((first[v1] - first[v0] + LANES - 1) // LANES * LANES):
                        p = _sigmoid(s[k] * x[k])
                        h[k] = s[k] * lr * (_ONE - p)
                        x[k] = max(p, LEAST)
                    # 3. Update, one group after the other: a row that comes twice gets both changes.
                    for v in range(v0, v1):
                        u = owner[v]
                        kept, total = _ONE, np.float32(0)
                        for k in range(first[v], first[v + 1]):
                            kept *= keep
                            total += g[k]
                            likelihood *= z[k]
                            item_bias[row[k]] = keep * item_bias[row[k]] + g[k]
                        steps(users, u * dim, items, at, first[v], first[v + 1], g, kept, keep, dim)
                        user_bias[u] = kept * user_bias[u] + total
                        bias += total
                        if likelihood < 1e-150:  # a group more cannot take it below the least double
                            loss -= np.log(likelihood)
                            likelihood = 1.0
            biases[number], losses[number] = bias, loss - np.log(likelihood)

    _kernels[dim] = take_cells
    return take_cells


class ChoiceTables(NamedTuple):
    """What is trained, in place. Row 0 of each, the unknown one, is left as it is.

    Attributes:
        user_factors: float32 [num_users, dim].
        item_factors: float32 [num_items, dim].
        user_bias: float32 [num_users].
        item_bias: float32 [num_items].
        global_bias: float32 [1].
    """

    user_factors: F32
    item_factors: F32
    user_bias: F32
    item_bias: F32
    global_bias: F32


class SampledLogistic:
    """Minimises the logistic loss of choices and of negatives that are drawn afresh every epoch.

    An epoch depends on the seed, its number and the tables, not on the epochs before: training can be resumed. It is
    the same for any number of threads, bit for bit.

    Args:
        user: int32 [n], rows; choices with row 0 on either side are left out.
        item: int32 [n], rows.
        num_users: rows of the user tables.
        num_items: rows of the item tables.
        negatives: items drawn for each choice, uniform over the catalogue.
        seed: of groups, orders and negatives.
        threads: at most; more than `GRID` are of no use.
        step: makes the step for a dim; tests put a plain one here.

    Attributes:
        samples: samples of an epoch, choices and negatives.

    Raises:
        ConfigError: `negatives` or `threads` is below 1.
        DataError: columns do not fit together, or rows are outside the tables.
    """

    def __init__(
        self,
        user: I32,
        item: I32,
        num_users: int,
        num_items: int,
        *,
        negatives: int,
        seed: int,
        threads: int,
        step: Callable[[int], Callable[..., None]] = kernel,
    ) -> None:
        if negatives < 1 or threads < 1:
            raise ConfigError(f"SampledLogistic: negatives and threads must be at least 1, got {negatives}, {threads}")
        if user.shape != item.shape or user.ndim != 1 or not user.dtype == item.dtype == np.int32:
            got = ", ".join(f"{column.dtype} {[*column.shape]}" for column in (user, item))
            raise DataError(f"SampledLogistic: columns must be int32 [n] twice, got {got}")
        for name, column, rows in (("user", user, num_users), ("item", item, num_items)):
            if bad := int(np.count_nonzero((column < 0) | (column >= rows))):
                raise DataError(f"SampledLogistic: {name} rows must be in [0, {rows}), got {bad} others")
        known = (user > 0) & (item > 0)
        self.cells = make_cells(user[known], item[known], num_users, num_items, np.random.default_rng(seed))
        self.rows, self.seed, self.negatives, self.step = (num_users, num_items), seed, negatives, step
        self.size = max(size for size in range(1, GROUP + 1) if negatives % size == 0)
        self.samples = len(self.cells.user) * (1 + negatives)
        self.helpers = min(threads, GRID) - 1
        self.pool = ThreadPoolExecutor(self.helpers) if self.helpers else None

    def epoch(self, number: int, tables: ChoiceTables, learning_rate: float, l2: float) -> float:
        """Train on every choice and its negatives once, in place.

        Args:
            number: of the epoch, from 0.
            tables: what is trained.
            learning_rate: lr of the rule.
            l2: of the rule; every sample costs its rows.

        Returns:
            The sum of the logistic losses of all samples, each as it was when its turn came.

        Raises:
            DataError: tables of other types or shapes, or not contiguous.
        """
        dim = self._check(tables)
        rng = np.random.default_rng([self.seed, number])
        dealt = deal(self.cells, self.negatives, self.size, rng)
        samples = np.diff(self.cells.starts) + np.diff(dealt.cuts).reshape(-1) * self.size
        step, loss = self.step(dim), 0.0
        for cells in dealt.stages:
            taken, biases, losses = np.zeros(1, np.int64), np.zeros(GRID, np.float32), np.zeros(GRID)
            order = dealt.asking, dealt.cuts, dealt.states, cells, self.size
            results = taken, biases, losses
            constants = tables.global_bias[0], np.float32(learning_rate), np.float32(l2)
            job = *self.cells, *order, *results, *tables[:4], *constants
            others = [self.pool.submit(step, *job) for _ in range(self.helpers)] if self.pool is not None else []
            step(*job)
            for other in others:
                other.result()
            if samples[cells].any():  # each cell has taken the bias to where its part of the stage wants it
                tables.global_bias[0] = np.average(biases, weights=samples[cells])
            loss += float(losses.sum())
        return loss

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()

    def _check(self, tables: ChoiceTables) -> int:
        """The tables' dim."""
        users, items = self.rows
        dim = tables.user_factors.shape[-1] if tables.user_factors.ndim else 0
        shapes = (users, dim), (items, dim), (users,), (items,), (1,)
        for name, table, shape in zip(tables._fields, tables, shapes, strict=True):
            if table.shape != shape or table.dtype != np.float32 or not table.flags.c_contiguous or dim < 1:
                raise DataError(
                    f"SampledLogistic: {name} must be float32 {[*shape]} and contiguous, got {table.dtype} "
                    f"{[*table.shape]}"
                )
        return dim
