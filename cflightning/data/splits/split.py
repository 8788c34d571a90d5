"""Which rows train, which choose, which test, and which say who somebody is that no one has seen in training.

Every function is a pure function of the table and the seed, so every process cuts the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from cflightning.data.splits import strategies as cuts
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

Method = Literal["random", "hash", "time", "leave_last", "per_user", "users", "predefined", "kfold"]
Nested = Literal["same", "random", "hash", "time", "leave_last", "per_user"]

TRAIN, VAL, TEST, FOLD_IN = range(4)
CHUNK = 1 << 20
VAL_FRACTION = 0.05
FEW = 500
"""Validation rows below which nothing should be chosen by them: on made-up tables of 300 to 10,000 rows the chosen
epoch was worse than the last one, which has all rows to learn from, by 0.4 to 4 % of RMSE."""


@dataclass(frozen=True, repr=False)
class Split:
    """The part of every row of a table, which takes a byte a row; lists of row numbers are made when asked for.

    Attributes:
        parts: uint8 [rows]: TRAIN, VAL or TEST; FOLD_IN for what is given of users that are held out whole.
    """

    parts: np.ndarray

    def __repr__(self) -> str:
        given = int(np.count_nonzero(self.parts == FOLD_IN))
        sizes = ", ".join(f"{size:,} {name}" for size, name in zip(self.sizes, ("train", "val", "test"), strict=True))
        return f"Split({sizes}{f', {given:,} given of held-out users' if given else ''})"

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Rows of TRAIN, VAL and TEST."""
        train, val, test = (int(np.count_nonzero(self.parts == part)) for part in (TRAIN, VAL, TEST))
        return train, val, test

    @property
    def train(self) -> np.ndarray:
        """Rows that train: int64, ascending."""
        return np.flatnonzero(self.parts == TRAIN)

    @property
    def val(self) -> np.ndarray:
        """Rows that choose the best epoch: int64, ascending; may be empty."""
        return np.flatnonzero(self.parts == VAL)

    @property
    def test(self) -> np.ndarray:
        """Rows that test: int64, ascending; may be empty."""
        return np.flatnonzero(self.parts == TEST)

    @property
    def fold_in(self) -> np.ndarray:
        """Rows given of held-out users: int64, ascending; empty but for the method `users`."""
        return np.flatnonzero(self.parts == FOLD_IN)

    def chunks(self, part: int) -> Iterator[np.ndarray]:
        """The rows of a part, ascending, a chunk of the table at a time: a huge list of numbers never exists."""
        for start in range(0, len(self.parts), CHUNK):
            yield np.flatnonzero(self.parts[start : start + CHUNK] == part) + start


def split_table(
    table: RatingTable,
    method: Method,
    *,
    test_fraction: float = 0.1,
    val_fraction: float | None = None,
    fold: int | str | None = None,
    folds: int = 5,
    leave_n: int = 1,
    val_split: Nested = "same",
    test_users: float | None = None,
    val_users: float | None = None,
    fold_out: float = 0.2,
    seed: int = 42,
) -> Split:
    """Cut a table into train, val and test.

    The test part is cut first; `val_fraction` of what is left is then cut as `val_split` says.

    Args:
        table: the ratings.
        method: `random` by ratio (``default_rng(seed).permutation(n)``, its first part tests); `hash`: the rows whose
            (user, item) pair has a hash below the ratio (:mod:`~cflightning.data.splits.pair_hash`), the same ones when
            rows are added or reordered; `time`: the newest rows test, one cut for all users; `leave_last`: each user's
            newest `leave_n` rows test, users with fewer than two more stay in training; `per_user`: the ratio of each
            user's rows, at random; `users`: users held out whole, but for what is given of them
            (:func:`~cflightning.data.splits.strategies.held_out_users`); `predefined`: the source's own test part;
            `kfold`: part `fold` of `folds` of a random permutation.
        test_fraction: of all rows (random, hash, time, per_user).
        val_fraction: of the rows that do not test; 0 for no validation; None for `VAL_FRACTION`, or no validation where
            that were fewer than `FEW` rows (but for the method `users`).
        fold: 1 … `folds` with kfold.
        folds: parts of kfold.
        leave_n: rows per user with leave_last.
        val_split: how the validation part is cut: `same` as the test part (hash, time, leave_last, per_user, users)
            and at random where that is no way to cut (predefined, kfold), or one of the others.
        test_users: how many users test (users), below 1 a share of them; None for `test_fraction`.
        val_users: how many users choose, likewise; None for `val_fraction`, and none where that is 0.
        fold_out: share of a held-out user's rows that test or choose; the others are given.
        seed: of the permutations.

    Raises:
        DataError: the table lacks what the method needs, or a part would be empty.
    """
    if method not in get_args(Method):
        raise DataError(f"--data.split: must be one of {', '.join(get_args(Method))}, got {method!r}")
    if fold is not None and method not in ("kfold", "predefined"):
        raise DataError(f"--data.fold: is {fold!r}, but --data.split {method} has none; choose predefined or kfold")
    share = VAL_FRACTION if val_fraction is None else val_fraction
    for name, fraction in (("test_fraction", test_fraction), ("val_fraction", share)):
        if not 0 <= fraction < 1:
            raise DataError(f"--data.{name}: must be at least 0 and below 1, got {fraction:g}")
    if val_split not in get_args(Nested):
        raise DataError(f"--data.val_split: must be one of {', '.join(get_args(Nested))}, got {val_split!r}")
    for name, number in (("test_users", test_users), ("val_users", val_users)):
        if number is not None and method != "users":
            raise DataError(f"--data.{name}: is {number}, but --data.split {method} has none; choose users")
    n = len(table)
    if method == "users":
        if val_split != "same":
            raise DataError(
                f"--data.val_split: must be same with --data.split users, which holds out users to choose by, "
                f"got {val_split}"
            )
        tests = test_fraction if test_users is None else test_users
        choose = share if val_users is None or not share else val_users
        held = cuts.held_out_users(table, tests, choose, fold_out, seed)
        parts = np.select(held, [TEST, VAL, FOLD_IN], TRAIN).astype(np.uint8)
        return _checked(table, Split(parts), method, share)
    if method == "predefined":
        if table.test_rows is None:
            raise DataError(
                f"{table.name}: has no test part of its own; choose another --data.split, "
                "or name one: --data.fold u1 (ml-100k) or --data.test_path FILE"
            )
        test = table.test_rows
    elif method == "kfold":
        if not isinstance(fold, int) or isinstance(fold, bool) or folds < 2 or not 1 <= fold <= folds:
            raise DataError(
                f"--data.fold: must be 1 to {folds} (--data.folds) with --data.split kfold, got {fold!r}; "
                "for all of them: python -m cflightning kfold"
            )
        test = cuts.kfold(n, fold, folds, seed)
    else:
        test = cuts.cut(table, np.ones(n, dtype=bool), method, test_fraction, leave_n, [seed], "split")
    parts = np.where(test, TEST, TRAIN).astype(np.uint8)
    if share:
        nested: str = val_split
        if val_split == "same":
            nested = method if method in ("hash", "time", "leave_last", "per_user") else "random"
        option = "split" if val_split == "same" else "val_split"
        val = cuts.cut(table, ~test, nested, share, leave_n, [seed, 1], option)
        if val_fraction is not None or np.count_nonzero(val) >= FEW:
            parts[~test] = np.where(val, VAL, TRAIN)
    return _checked(table, Split(parts), method, val_fraction)


def _checked(table: RatingTable, split: Split, method: str, val_fraction: float | None) -> Split:
    n = len(table)
    if not split.sizes[TRAIN]:
        raise DataError(f"{table.name}: no row is left to train on ({n:,} rows, split {method}); test less")
    if val_fraction and not split.sizes[VAL]:
        raise DataError(
            f"{table.name}: the validation part is empty ({n - split.sizes[TEST]:,} rows left, split {method}); "
            "raise --data.val_fraction, or set it to 0 to train on every row without validation"
        )
    return split
