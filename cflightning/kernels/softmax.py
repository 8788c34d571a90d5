"""Sampled softmax of cosines on the CPU: scores, weights, gradients and updates of a block of choices at a time.

The objective is `objectives.ranking.softmax` with a temperature t and the choice outside the denominator, on rows of
length 1 (Wu et al. 2022): for user u, item i and the negatives N of their block, without i ::

    log sum over n in N of e^(<p_u, q_n> / t)  -  <p_u, q_i> / t

**Rule.** A row x with gradient g of its block takes the part of g that turns it, and goes back to length 1; the step
is row-wise Adagrad's (Duchi et al. 2011, with one accumulator a row)::

    g -= <g, x> x        v += |g|^2 / dim        x <- (x - lr g / sqrt(v)) / |x - lr g / sqrt(v)|

**Threads.** Users and items are dealt into `GRID` groups each, anew in every epoch, and choices into cells, see
`dealing`. The negatives of a block are drawn from its cell's own items, so threads take cells without locks and without
races, and the result does not depend on their number, bit for bit. An item comes at most once in a draw, so whether a
choice is among its negatives is one look at a table.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cflightning.errors import ConfigError, DataError
from cflightning.kernels.dealing import GRID, deal
from cflightning.kernels.softmax_step import take_cells

F32 = NDArray[np.float32]


class SampledSoftmax:
    """Trains tables of unit rows by the sampled softmax of their cosines; any number of threads gives the same bits.

    Row 0 of both tables, the unknown row, takes no part.

    Args:
        user: integers [n], rows from 1.
        item: integers [n], rows from 1.
        num_users: rows of the user table, the unknown row included.
        num_items: rows of the item table, the unknown row included.
        negatives: shared by `BLOCK` choices; at most what an eighth of the items has are drawn.
        temperature: t; a small one has the hardest negatives count most.
        seed: of the groups, orders and draws, with the epoch's number.
        threads: that cells are shared among; up to `GRID` are used.

    Attributes:
        squares: float32 [num_users] and [num_items], the accumulators: with both tables, all that a checkpoint needs.

    Raises:
        ConfigError: an option is out of its range.
        DataError: the columns do not fit together, or a row is out of its table.
    """

    def __init__(
        self,
        user: NDArray[Any],
        item: NDArray[Any],
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
        if not 0.025 <= temperature < math.inf:  # below, e^(-2 / t) is nothing in float32
            raise ConfigError(f"SampledSoftmax: temperature must be at least 0.025, got {temperature}")
        if num_items <= 2 * GRID:  # at least two in a group: one of them is not the choice
            raise ConfigError(f"SampledSoftmax: there must be more than {2 * GRID} rows of items, got {num_items}")
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
        """Take every choice once, in the order of this epoch; updates both tables in place.

        Args:
            number: of the epoch, from 0.
            user_factors: float32 [num_users, dim], C-contiguous; rows from 1 of length 1, or 0, see `unit_rows`.
            item_factors: float32 [num_items, dim], as above.
            learning_rate: lr of the rule.

        Returns:
            Mean loss of a choice, each before its update; NaN without choices.

        Raises:
            DataError: a table does not fit.
        """
        tables = (user_factors, self.num_users), (item_factors, self.num_items)
        for table, rows in tables:
            if table.dtype != np.float32 or table.ndim != 2 or len(table) != rows or not table.flags.c_contiguous:
                raise DataError(
                    f"SampledSoftmax: a table must be contiguous float32 [{rows}, dim], "
                    f"got {table.dtype} {[*table.shape]}"
                )
        if (dim := user_factors.shape[1]) != item_factors.shape[1]:
            raise DataError(f"SampledSoftmax: tables must be of one dim, got {dim} and {item_factors.shape[1]}")
        rng = np.random.default_rng([self.seed, number])
        columns = deal(self.user, self.item, self.num_users, self.num_items, rng)
        seed = np.uint64(rng.integers(1 << 62))
        total = 0.0
        with ThreadPoolExecutor(self.threads) as pool:
            for shift in rng.permutation(GRID):
                cells = np.arange(GRID) * GRID + (np.arange(GRID) + shift) % GRID
                cells = cells[np.argsort(-np.diff(columns.starts)[cells], kind="stable")]  # a large one last would wait
                losses = np.zeros(GRID)
                shared = (
                    np.zeros(1, np.int64), cells, columns, self._places, user_factors, item_factors, self.squares,
                    np.float32(1 / self.temperature), np.float32(learning_rate), seed, self.negatives, losses,
                )  # fmt: skip
                for done in [pool.submit(take_cells, *shared) for _ in range(self.threads)]:
                    done.result()
                total += float(losses.sum())
        return total / self.user.size if self.user.size else math.nan


def random_rows(rows: int, dim: int, seed: int) -> F32:
    """Random directions to begin with, and zeros in row 0: float32 [rows, dim]."""
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32))


def unit_rows(table: F32) -> F32:
    """A table's directions, to begin with or to go on from: float32 [rows, dim] -> the same shape, contiguous.

    Rows of zeros stay so, as who is not in the training part has them, and row 0 becomes one.
    """
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    found = np.ascontiguousarray(table / np.where(lengths > 0, lengths, 1), np.float32)
    found[0] = 0
    return found
