"""Strategies that choose the rows to hold out.

The choice depends on the table, the fractions and the seed alone, so every process of a training makes the same one.
"""

from __future__ import annotations

import numpy as np

from cflightning.data.splits.pair_hash import hold_out_by_hash
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

EPSILON = 1e-9
"""Rows that are added before a fraction of rows is rounded down, against the rounding error of the product."""


def hold_out_fold(n: int, fold: int, folds: int, seed: int) -> np.ndarray:
    """Hold out part `fold` (from 1) of `folds` of a random permutation of `n` rows -> bool [n]."""
    order = permutation(np.random.default_rng(seed), n)
    return _mask(n, order[(fold - 1) * n // folds : fold * n // folds])


def hold_out(
    table: RatingTable, among: np.ndarray, method: str, fraction: float, leave_n: int, seed: list[int], option: str
) -> np.ndarray:
    """Hold out some of the rows `among`.

    Args:
        table: All rows.
        among: bool [rows], candidates.
        method: `random`, `hash`, `time`, `leave_last` or `per_user`.
        fraction: Share of the candidates to hold out, except for leave_last.
        leave_n: Rows of each user to hold out by leave_last.
        seed: Seed of the random methods.
        option: Name of the option that chose the method, for messages.

    Returns:
        bool [candidates], True where held out.

    Raises:
        DataError: The method needs timestamps, and there are none.
    """
    n = int(np.count_nonzero(among))
    size = int(n * fraction + EPSILON)
    if method == "random":
        # A list of one seed has the stream of the plain number, as published protocols use it.
        rng = np.random.default_rng(seed[0] if len(seed) == 1 else seed)
        return _mask(n, permutation(rng, n)[:size])
    if method == "hash":
        by_hash: np.ndarray = hold_out_by_hash(table, fraction, seed)[among]
        return by_hash
    if method == "time":
        time = _timestamps(table, f"{option} {method}")[among]
        if size == 0:
            return np.zeros(n, dtype=bool)
        # Rows of one second are in the same part, so the part can be a little smaller than the fraction.
        newest: np.ndarray = time > np.partition(time, n - size - 1)[n - size - 1]
        return newest
    users = table.user.codes[among]
    counts = np.bincount(users)
    if method == "leave_last":
        order = np.lexsort((np.arange(n), _timestamps(table, f"{option} {method}")[among], users))
        sizes = np.where(counts >= leave_n + 2, leave_n, 0)
    else:
        order = np.lexsort((np.random.default_rng(seed).random(n), users))
        sizes = np.minimum((counts * fraction + 0.5).astype(np.int64), counts - 1)
    return _last_of_each_user(users, order, counts, sizes)


def hold_out_users(
    table: RatingTable, test_users: float, val_users: float, holdout_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hold out users for strong generalisation.

    The protocol is that of Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering", section 4: none
    of a held-out user's rows trains. A share of them, at random and at least one, is measured; the others are for
    fold-in. Users with a single row stay in training.

    Args:
        table: All rows.
        test_users: Number of test users, or below 1 their share of the users with two rows or more.
        val_users: Number or share of validation users; the two sets are disjoint.
        holdout_fraction: Share of the rows of a held-out user to measure.
        seed: Seed of the choice of users and rows.

    Returns:
        Measured rows of test users, measured rows of validation users, fold-in rows of both: bool [rows] each.

    Raises:
        DataError: There are fewer users than are to be held out.
    """
    users, n = table.user.codes, len(table)
    counts = np.bincount(users)
    eligible = np.flatnonzero(counts >= 2)
    sizes = [int(size if size >= 1 else len(eligible) * size + EPSILON) for size in (test_users, val_users)]
    if sum(sizes) > len(eligible):
        raise DataError(
            f"{table.name}: must have {sum(sizes):,} users of two rows or more to hold out (--data.split.test_users "
            "and "
            f"--data.split.val_users), got {len(eligible):,}; hold out fewer"
        )
    part = np.zeros(len(counts), dtype=np.uint8)  # 1 for test users, 2 for validation users
    order = eligible[permutation(np.random.default_rng([seed, 2]), len(eligible))]
    part[order[: sizes[0]]] = 1
    part[order[sizes[0] : sum(sizes)]] = 2
    measured = np.clip((counts * holdout_fraction + 0.5).astype(np.int64), 1, np.maximum(counts - 1, 1))
    order = np.lexsort((np.random.default_rng([seed, 3]).random(n), users))
    held_out = _last_of_each_user(users, order, counts, np.where(part > 0, measured, 0))
    row_part = part[users]
    return held_out & (row_part == 1), held_out & (row_part == 2), ~held_out & (row_part > 0)


def permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return the numbers of ``rng.permutation(n)``, in half the memory where they fit into 32 bits."""
    return rng.permutation(np.arange(n, dtype=np.int32 if n < 2**31 else np.int64))


def _last_of_each_user(users: np.ndarray, order: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the last ``sizes[user]`` rows of each user in `order`: bool [rows].

    Args:
        users: int [rows], the user of each row.
        order: int [rows], positions sorted by user.
        counts: int [users], rows of each user.
        sizes: int64 [users], rows of each user to return.
    """
    ends = np.cumsum(counts)[users[order]]
    return _mask(len(users), order[ends - np.arange(len(users)) <= sizes[users[order]]])


def _mask(n: int, positions: np.ndarray) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[positions] = True
    return mask


def _timestamps(table: RatingTable, option: str) -> np.ndarray:
    if table.timestamp is None:
        raise DataError(
            f"{table.name}: --data.split.{option} needs timestamps, got none; name the column: --data.table.timestamp"
        )
    return table.timestamp
