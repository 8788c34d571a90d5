"""Training by the logistic loss (BCE) of interactions and sampled negatives on the CPU.

**Rule** (Rendle et al. 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited", section 3): for a
sample with label y, 1 for an interaction and 0 for a negative, and c = 1 - lr l2::

    g = lr (y - sigmoid(b + b_u + b_i + <p_u, q_i>))
    p_u, q_i = c p_u + g q_i, c q_i + g p_u        b_u, b_i, b = c b_u + g, c b_i + g, b + g

The negatives of an interaction from one group of items are one group of samples: their common p_u stays in registers
and is updated at the end, ``c^n p_u + sum of g q_i``. The gradients of `BATCH` groups are computed before any of them
updates, which vectorises the scalar arithmetic. See `logistic_cells` for the order of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cflightning.errors import ConfigError, DataError
from cflightning.kernels import F32, I32
from cflightning.kernels.compiling import compiled
from cflightning.kernels.logistic_cells import GRID, MAX_GROUP, draw_epoch, make_cells, next_samples
from cflightning.kernels.prng import shuffle
from cflightning.kernels.simd import FASTMATH, prefetch, sigmoid, take_next
from cflightning.kernels.vectors import dots, steps

BATCH = 4
"""Groups of samples whose gradients are computed before any of them updates."""
WINDOW = 64
"""Groups that are drawn ahead, so that their vectors can be prefetched; a multiple of `BATCH`."""
LANES = 8
"""SIMD lanes: arrays of samples are padded to a multiple, since the rest would be processed one by one."""
MIN_PROBABILITY = np.float32(1e-7)
"""Lower bound of a probability in the loss, the precision of float32."""

_ONE = np.float32(1)
_kernels: dict[int, Callable[..., None]] = {}


def kernel(dim: int) -> Callable[..., None]:
    """Return the compiled step for a dim, which is a compile-time constant, so that vectors stay in registers.

    Returns:
        A function ``(user, item, starts, candidates, ends, negative_user, cuts, states, cells, size, taken, biases,
        losses, users, items, user_bias, item_bias, bias, lr, l2)`` that processes cells until none is left, and
        releases the GIL. It may run on any number of threads with the same arguments. The first eight are those of
        `LogisticCells` and `EpochDraw`; `cells` int64 [m] has the numbers of the cells to process; `size` is the number
        of negatives of a group; `taken` int64 [1] is 0 at first. The outputs are every cell's global bias in `biases`
        (float32 [m]) and its sum of logistic losses in `losses` (float64 [m]).
    """
    if (compiled_step := _kernels.get(dim)) is not None:
        return compiled_step

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def train_cells(
        user, item, starts, candidates, ends, negative_user, cuts, states, cells, size, taken, biases, losses, users,
        items, user_bias, item_bias, start_bias, lr, l2,
    ):  # fmt: skip
        room = WINDOW * size + LANES
        owner, first = np.empty(WINDOW, np.int64), np.zeros(WINDOW + 1, np.int64)
        sample, at = np.empty(room, np.int64), np.empty(room, np.int64)
        sign, z, g = np.ones(room, np.float32), np.zeros(room, np.float32), np.zeros(room, np.float32)
        keep = _ONE - lr * l2
        while True:
            number: int = take_next(taken)
            if number >= cells.size:
                break
            cell = cells[number]
            a, b = cell // GRID, cell % GRID
            order, negatives = np.arange(starts[cell], starts[cell + 1]), negative_user[cuts[a, b] : cuts[a, b + 1]]
            state, cursor = shuffle(order, states[cell]), np.zeros(2, np.int64)
            bias, loss, likelihood = start_bias, np.float64(0), np.float64(1)
            while True:
                here, state = next_samples(
                    user, item, order, negatives, candidates[ends[b] : ends[b + 1]], size, cursor, state, owner, first,
                    sample, sign,
                )  # fmt: skip
                if here == 0:
                    break
                for v0 in range(0, here, BATCH):
                    v1 = min(v0 + BATCH, here)
                    for v in range(v1, min(v1 + BATCH, here)):
                        for f in range(0, dim, 16):
                            prefetch(users, owner[v] * dim + f)
                        for k in range(first[v], first[v + 1]):
                            for f in range(0, dim, 16):
                                prefetch(items, sample[k] * dim + f)
                    # 1. Scores. Sums start from the biases: a pass over the finished dot products would wait for them.
                    for v in range(v0, v1):
                        u = owner[v]
                        base = bias + user_bias[u]
                        for k in range(first[v], first[v + 1]):
                            at[k] = sample[k] * dim
                            z[k] = base + item_bias[sample[k]]
                        dots(users, u * dim, items, at, first[v], first[v + 1], z, dim)
                    # 2. Probability of the true label, and step size: one SIMD lane per sample.
                    s, x, h = sign[first[v0] :], z[first[v0] :], g[first[v0] :]
                    for k in range((first[v1] - first[v0] + LANES - 1) // LANES * LANES):
                        p = sigmoid(s[k] * x[k])
                        h[k] = s[k] * lr * (_ONE - p)
                        x[k] = max(p, MIN_PROBABILITY)
                    # 3. Update, one group after the other: an index that occurs twice gets both changes.
                    for v in range(v0, v1):
                        u = owner[v]
                        keep_user, total = _ONE, np.float32(0)
                        for k in range(first[v], first[v + 1]):
                            keep_user *= keep
                            total += g[k]
                            likelihood *= z[k]
                            item_bias[sample[k]] = keep * item_bias[sample[k]] + g[k]
                        steps(users, u * dim, items, at, first[v], first[v + 1], g, keep_user, keep, dim)
                        user_bias[u] = keep_user * user_bias[u] + total
                        bias += total
                        if likelihood < 1e-150:  # the next group cannot make it underflow
                            loss -= np.log(likelihood)
                            likelihood = 1.0
            biases[number], losses[number] = bias, loss - np.log(likelihood)

    _kernels[dim] = train_cells
    return train_cells


class LogisticTables(NamedTuple):
    """The parameters, trained in place. Index 0, the unknown one, is not changed.

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
    """Minimises the logistic loss of interactions and of negatives that are drawn again in every epoch.

    An epoch depends on the seed, its number and the tables, not on the previous epochs, so training can be resumed.
    The result does not depend on the number of threads, bit for bit.

    Args:
        user: int32 [n], user indices; interactions with index 0 on either side are left out.
        item: int32 [n], item indices.
        num_users: Size of the user tables.
        num_items: Size of the item tables.
        negatives: Number of negatives of each interaction, uniform over the catalogue.
        seed: Seed of groups, orders and negatives.
        threads: Number of threads; at most `GRID` are used.
        step: Another implementation of `kernel`.

    Attributes:
        samples: Number of samples of an epoch, interactions and negatives.

    Raises:
        ConfigError: `negatives` or `threads` is below 1.
        DataError: The columns differ in length or type, or indices are outside the tables.
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
        for name, column, size in (("user", user, num_users), ("item", item, num_items)):
            if bad := int(np.count_nonzero((column < 0) | (column >= size))):
                raise DataError(f"SampledLogistic: {name} indices must be in [0, {size}), got {bad} others")
        known = (user > 0) & (item > 0)
        self.cells = make_cells(user[known], item[known], num_users, num_items, np.random.default_rng(seed))
        self.num_users, self.num_items = num_users, num_items
        self.seed, self.negatives, self.step = seed, negatives, step
        self.size = max(size for size in range(1, MAX_GROUP + 1) if negatives % size == 0)
        self.samples = len(self.cells.user) * (1 + negatives)
        self.helpers = min(threads, GRID) - 1
        self.pool = ThreadPoolExecutor(self.helpers) if self.helpers else None

    def epoch(self, number: int, tables: LogisticTables, learning_rate: float, l2: float) -> float:
        """Train on every interaction and its negatives once, in place.

        Args:
            number: Number of the epoch, from 0.
            tables: The parameters.
            learning_rate: Lr of the rule.
            l2: L2 penalty of the rule, for every sample.

        Returns:
            Sum of the logistic losses of all samples, each before its update.

        Raises:
            DataError: A table has another type or shape, or is not contiguous.
        """
        dim = self._check(tables)
        rng = np.random.default_rng([self.seed, number])
        drawn = draw_epoch(self.cells, self.negatives, self.size, rng)
        samples = np.diff(self.cells.starts) + np.diff(drawn.cuts).reshape(-1) * self.size
        step, loss = self.step(dim), 0.0
        for cells in drawn.stages:
            taken, biases, losses = np.zeros(1, np.int64), np.zeros(GRID, np.float32), np.zeros(GRID)
            arguments = (
                *self.cells, drawn.negative_user, drawn.cuts, drawn.states, cells, self.size, taken, biases, losses,
                *tables[:4], tables.global_bias[0], np.float32(learning_rate), np.float32(l2),
            )  # fmt: skip
            jobs = [self.pool.submit(step, *arguments) for _ in range(self.helpers)] if self.pool is not None else []
            step(*arguments)
            for job in jobs:
                job.result()
            if samples[cells].any():  # each cell has updated a copy of the bias by its own samples
                tables.global_bias[0] = np.average(biases, weights=samples[cells])
            loss += float(losses.sum())
        return loss

    def close(self) -> None:
        """Shut down the thread pool."""
        if self.pool is not None:
            self.pool.shutdown()

    def _check(self, tables: LogisticTables) -> int:
        """Check the tables and return their dim."""
        dim = tables.user_factors.shape[-1] if tables.user_factors.ndim else 0
        shapes = (self.num_users, dim), (self.num_items, dim), (self.num_users,), (self.num_items,), (1,)
        for name, table, shape in zip(tables._fields, tables, shapes, strict=True):
            if table.shape != shape or table.dtype != np.float32 or not table.flags.c_contiguous or dim < 1:
                raise DataError(
                    f"SampledLogistic: {name} must be float32 {[*shape]} and contiguous, got {table.dtype} "
                    f"{[*table.shape]}"
                )
        return dim
