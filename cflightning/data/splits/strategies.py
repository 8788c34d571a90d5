"""Which rows of a table are held out, by one manner or another.

Every function is a pure function of the table and the seed, so every process cuts the same way.
"""

from __future__ import annotations

import numpy as np

from cflightning.data.splits.pair_hash import held_out_by_hash
from cflightning.data.table import RatingTable
from cflightning.errors import DataError


def kfold(n: int, fold: int, folds: int, seed: int) -> np.ndarray:
    """Part `fold` (from 1) of `folds` of a random permutation of `n` rows: bool [n]."""
    order = permutation(np.random.default_rng(seed), n)
    return _mark(n, order[(fold - 1) * n // folds : fold * n // folds])


def cut(
    table: RatingTable, among: np.ndarray, method: str, fraction: float, leave_n: int, seed: list[int], option: str
) -> np.ndarray:
    """Which of some rows are held out.

    Args:
        table: the rows.
        among: bool [rows], those to cut.
        method: `random`, `hash`, `time`, `leave_last` or `per_user`.
        fraction: of these rows; leave_last does without it.
        leave_n: rows of each user with leave_last.
        seed: of the random ones.
        option: that chose the method, for messages.

    Returns:
        bool [how many rows there are among them].

    Raises:
        DataError: there are no timestamps, and the method needs them.
    """
    n = int(np.count_nonzero(among))
    size = int(n * fraction + 1e-9)  # the last digit of a float must not cost a row
    if method == "random":
        # A list of one is the same stream as the plain number, so published protocols can be met exactly.
        rng = np.random.default_rng(seed[0] if len(seed) == 1 else seed)
        return _mark(n, permutation(rng, n)[:size])
    if method == "hash":
        by_hash: np.ndarray = held_out_by_hash(table, fraction, seed)[among]
        return by_hash
    if method == "time":
        time = _timestamps(table, f"{option} {method}")[among]
        if size == 0:
            return np.zeros(n, dtype=bool)
        # One instant is never on both sides, so the part can be a little smaller than asked.
        cut: np.ndarray = time > np.partition(time, n - size - 1)[n - size - 1]
        return cut
    users = table.user.codes[among]
    counts = np.bincount(users)
    if method == "leave_last":
        order = np.lexsort((np.arange(n), _timestamps(table, f"{option} {method}")[among], users))
        held = np.where(counts >= leave_n + 2, leave_n, 0)
    else:
        order = np.lexsort((np.random.default_rng(seed).random(n), users))
        held = np.minimum((counts * fraction + 0.5).astype(np.int64), counts - 1)
    return _last(users, order, counts, held)


def held_out_users(
    table: RatingTable, test_users: float, val_users: float, fold_out: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users that are held out whole: strong generalisation.

    Of each, `fold_out` of the rows, at random and at least one, is held out, and the rest given: from these a model
    that has never seen the user has to tell the others (Liang et al. 2018, "Variational Autoencoders for Collaborative
    Filtering", section 4). So none of them is in the training part, nor in its vocabulary. Users with a single row
    have nothing to give; they stay in training.

    Args:
        table: the rows.
        test_users: how many users test; below 1 a share of those with two rows or more.
        val_users: how many choose, likewise; drawn after these, so they do not decide who tests.
        fold_out: share of a user's rows that is held out.
        seed: of the users and of the rows.

    Returns:
        Rows held out of test users, those held out of validation users, and those given of both: bool [rows] each.

    Raises:
        DataError: no such share, or more users than there are.
    """
    if not 0 < fold_out < 1:
        raise DataError(f"--data.fold_out: must be above 0 and below 1, got {fold_out:g}")
    users, n = table.user.codes, len(table)
    counts = np.bincount(users)
    able = np.flatnonzero(counts >= 2)
    sizes = [_size(name, size, len(able)) for name, size in (("test_users", test_users), ("val_users", val_users))]
    if sum(sizes) > len(able):
        raise DataError(
            f"{table.name}: must have {sum(sizes):,} users of two rows or more to hold out (--data.test_users and "
            f"--data.val_users), got {len(able):,}; hold out fewer"
        )
    who = np.zeros(len(counts), dtype=np.uint8)
    order = able[permutation(np.random.default_rng([seed, 2]), len(able))]
    who[order[: sizes[0]]] = 1
    who[order[sizes[0] : sum(sizes)]] = 2
    held = np.where(who > 0, np.clip((counts * fold_out + 0.5).astype(np.int64), 1, np.maximum(counts - 1, 1)), 0)
    order = np.lexsort((np.random.default_rng([seed, 3]).random(n), users))
    out = _last(users, order, counts, held)
    of = who[users]
    return out & (of == 1), out & (of == 2), ~out & (of > 0)


def _size(name: str, size: float, users: int) -> int:
    if not (0 <= size < 1 or (size >= 1 and size % 1 == 0)):
        raise DataError(f"--data.{name}: must be a share below 1 or a whole number of users, got {size:g}")
    return int(size if size >= 1 else users * size + 1e-9)


def _last(users: np.ndarray, order: np.ndarray, counts: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The last `held` (int64 [users]) rows of each user's run of `order`: bool [rows]."""
    ends = np.cumsum(counts)[users[order]]
    return _mark(len(users), order[ends - np.arange(len(users)) <= held[users[order]]])


def permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """The numbers of ``rng.permutation(n)``, in half the memory where they fit."""
    return rng.permutation(np.arange(n, dtype=np.int32 if n < 2**31 else np.int64))


def _mark(n: int, chosen: np.ndarray) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[chosen] = True
    return mask


def _timestamps(table: RatingTable, option: str) -> np.ndarray:
    if table.timestamp is None:
        raise DataError(f"{table.name}: --data.{option} needs timestamps, got none; name the column: --data.timestamp")
    return table.timestamp
