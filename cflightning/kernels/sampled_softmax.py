"""Training by the sampled softmax of cosines on the CPU.

The objective is `objectives.softmax.softmax_loss` with `inside=False`, on vectors of length 1 (Wu et al. 2022). For
user u, item i, temperature t and the negatives N of their block, without i::

    log sum over n in N of e^(<p_u, q_n> / t)  -  <p_u, q_i> / t

**Rule.** Riemannian gradient descent on the sphere: a vector x with gradient g of its block loses the part of g along x
and is normalised again; the step size is that of row-wise AdaGrad (Duchi et al. 2011, with one accumulator per
vector)::

    g -= <g, x> x        v += |g|^2 / dim        x <- (x - lr g / sqrt(v)) / |x - lr g / sqrt(v)|

**Threads.** Users and items are divided into `GRID` random groups in every epoch, and interactions into cells, see
`stratification`. The negatives of a block are drawn from the items of its cell, so threads process cells without locks
and without races, and the result does not depend on their number, bit for bit. An item occurs at most once in a draw,
so an accidental hit is found by one table look-up.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.errors import ConfigError, DataError
from cflightning.kernels import F32, I32, I64
from cflightning.kernels.softmax_step import GRID, train_cells
from cflightning.kernels.stratification import gather_cells, stage_cells


class SoftmaxCells(NamedTuple):
    """The interactions of an epoch by cell and the items by group, in random order.

    Attributes:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        starts: int64 [GRID * GRID + 1]; cell (a, b) is ``starts[a * GRID + b] : starts[a * GRID + b + 1]``.
        items: int32 [num_items - 1], all item indices but the unknown one.
        groups: int64 [GRID + 1]; group b is ``items[groups[b] : groups[b + 1]]``.
    """

    user: I32
    item: I32
    starts: I64
    items: I32
    groups: I64


def stratify(user: I32, item: I32, num_users: int, num_items: int, rng: np.random.Generator) -> SoftmaxCells:
    """Divide users and items into random groups of equal size, and interactions into the cells of both.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        num_users: Size of the user table.
        num_items: Size of the item table.
        rng: Generator of the groups and of the order.
    """
    shuffled = rng.permutation(num_items - 1).astype(np.int32) + np.int32(1)
    groups = np.arange(GRID + 1) * shuffled.size // GRID
    item_group = np.zeros(num_items, np.uint8)
    item_group[shuffled] = np.repeat(np.arange(GRID, dtype=np.uint8), np.diff(groups))
    user_group = (rng.permutation(num_users) % GRID).astype(np.uint8)
    columns = gather_cells(user, item, rng.permutation(user.size), user_group, item_group, GRID)
    return SoftmaxCells(*columns, shuffled, groups)


class SampledSoftmax:
    """Trains tables of unit vectors; the result does not depend on the number of threads, bit for bit.

    Index 0 of both tables, the unknown one, is ignored.

    Args:
        user: integers [n], user indices from 1.
        item: integers [n], item indices from 1.
        num_users: Size of the user table, the unknown index included.
        num_items: Size of the item table, the unknown index included.
        negatives: Number of negatives shared by a block of interactions; limited by the size of a group of items.
        temperature: t; with a low one the hardest negatives dominate.
        seed: Seed of the groups, orders and draws, with the number of the epoch.
        threads: Number of threads; at most `GRID` are used.

    Attributes:
        squares: float32 [num_users] and [num_items], AdaGrad's accumulators: with both tables, the state of training.

    Raises:
        ConfigError: An option is out of its range.
        DataError: The columns differ in length, or an index is outside its table.
    """

    def __init__(
        self,
        user: NDArray[np.integer],
        item: NDArray[np.integer],
        num_users: int,
        num_items: int,
        *,
        negatives: int = 256,
        temperature: float = 0.08,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        for name, value, least in (("negatives", negatives, 2), ("threads", threads, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"SampledSoftmax: {name} must be at least {least}, got {value}")
        if not 0.025 <= temperature < math.inf:  # below, e^(-2 / t) underflows in float32
            raise ConfigError(f"SampledSoftmax: temperature must be at least 0.025, got {temperature}")
        if num_items <= 2 * GRID:  # a group needs two items: one may be the positive
            raise ConfigError(f"SampledSoftmax: num_items must be more than {2 * GRID}, got {num_items}")
        if user.shape != item.shape or user.ndim != 1:
            raise DataError(
                f"SampledSoftmax: must be two columns of one length, got {[*user.shape]} and {[*item.shape]}"
            )
        for name, column, size in (("user", user, num_users), ("item", item, num_items)):
            if bad := int(((column < 1) | (column >= size)).sum()):
                raise DataError(f"SampledSoftmax: {name} must be at least 1 and below {size}, got {bad} others")
        self.user, self.item = user.astype(np.int32), item.astype(np.int32)
        self.num_users, self.num_items = num_users, num_items
        self.negatives, self.temperature, self.seed = negatives, temperature, seed
        self.threads = min(threads, GRID)
        self.squares = np.zeros(num_users, np.float32), np.zeros(num_items, np.float32)
        self._places = np.zeros(num_items, np.int32)

    def epoch(self, number: int, user_factors: F32, item_factors: F32, learning_rate: float) -> float:
        """Train on every interaction once; updates both tables in place.

        Args:
            number: Number of the epoch, from 0.
            user_factors: float32 [num_users, dim], C-contiguous; vectors of length 1 or 0, see `unit_vectors`.
            item_factors: float32 [num_items, dim], likewise.
            learning_rate: Learning rate.

        Returns:
            Mean loss of an interaction, each before its update; NaN without interactions.

        Raises:
            DataError: A table has another shape, type or layout.
        """
        for table, size in ((user_factors, self.num_users), (item_factors, self.num_items)):
            if table.dtype != np.float32 or table.ndim != 2 or len(table) != size or not table.flags.c_contiguous:
                raise DataError(
                    f"SampledSoftmax: a table must be contiguous float32 [{size}, dim], "
                    f"got {table.dtype} {[*table.shape]}"
                )
        if (dim := user_factors.shape[1]) != item_factors.shape[1]:
            raise DataError(f"SampledSoftmax: tables must be of one dim, got {dim} and {item_factors.shape[1]}")
        rng = np.random.default_rng([self.seed, number])
        columns = stratify(self.user, self.item, self.num_users, self.num_items, rng)
        seed = np.uint64(rng.integers(1 << 62))
        total = 0.0
        with ThreadPoolExecutor(self.threads) as pool:
            for shift in rng.permutation(GRID):
                cells = stage_cells(GRID, shift)
                cells = cells[np.argsort(-np.diff(columns.starts)[cells], kind="stable")]  # large cells first
                losses = np.zeros(GRID)
                arguments = (
                    np.zeros(1, np.int64), cells, columns, self._places, user_factors, item_factors, self.squares,
                    np.float32(1 / self.temperature), np.float32(learning_rate), seed, self.negatives, losses,
                )  # fmt: skip
                for job in [pool.submit(train_cells, *arguments) for _ in range(self.threads)]:
                    job.result()
                total += float(losses.sum())
        return total / self.user.size if self.user.size else math.nan


def unit_vectors(table: F32) -> F32:
    """Normalise the vectors of a table: float32 [n, dim] -> the same shape, contiguous.

    Zero vectors, of indices without training data, stay zero, and index 0 is set to zero.
    """
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    normalised = np.ascontiguousarray(table / np.where(lengths > 0, lengths, 1), np.float32)
    normalised[0] = 0
    return normalised
