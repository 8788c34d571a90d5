"""Which rows train, which choose, which test.

Every function is a pure function of the table and the seed, so every process cuts the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from cflightning.data.table import RatingTable
from cflightning.errors import DataError

Method = Literal["random", "time", "leave_last", "per_user", "predefined", "kfold"]


TRAIN, VAL, TEST = range(3)
CHUNK = 1 << 20
VAL_FRACTION = 0.05
FEW = 500
"""Validation rows below which nothing should be chosen by them: on made-up tables of 300 to 10,000 rows the chosen
epoch was worse than the last one, which has all rows to learn from, by 0.4 to 4 % of RMSE."""


@dataclass(frozen=True)
class Split:
    """The part of every row of a table, which takes a byte a row; lists of row numbers are made when asked for.

    Attributes:
        parts: uint8 [rows]: TRAIN, VAL or TEST.
    """

    parts: np.ndarray

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Rows of the three parts."""
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
    seed: int = 42,
) -> Split:
    """Cut a table into train, val and test.

    The test part is cut first; `val_fraction` of what is left is then cut in the same manner (time, leave_last and
    per_user) or at random (the others).

    Args:
        table: the ratings.
        method: `random` by ratio (``default_rng(seed).permutation(n)``, its first part tests); `time`: the newest rows
            test, one cut for all users; `leave_last`: each user's newest `leave_n` rows test, users with fewer than
            two more stay in training; `per_user`: the ratio of each user's rows, at random; `predefined`: the
            source's own test part; `kfold`: part `fold` of `folds` of a random permutation.
        test_fraction: of all rows (random, time, per_user).
        val_fraction: of the rows that do not test; 0 for no validation; None for `VAL_FRACTION`, or no validation where
            that were fewer than `FEW` rows.
        fold: 1 … `folds` with kfold.
        folds: parts of kfold.
        leave_n: rows per user with leave_last.
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
    n = len(table)
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
        test = _mark(n, _kfold(n, fold, folds, seed))
    else:
        test = _cut(table, np.ones(n, dtype=bool), method, test_fraction, leave_n, [seed])
    parts = np.where(test, TEST, TRAIN).astype(np.uint8)
    if share:
        nested: Method = method if method in ("time", "leave_last", "per_user") else "random"
        val = _cut(table, ~test, nested, share, leave_n, [seed, 1])
        if val_fraction is not None or np.count_nonzero(val) >= FEW:
            parts[~test] = np.where(val, VAL, TRAIN)
    split = Split(parts)
    if not split.sizes[TRAIN]:
        raise DataError(f"{table.name}: no row is left to train on ({n:,} rows, split {method}); test less")
    if val_fraction and not split.sizes[VAL]:
        raise DataError(
            f"{table.name}: the validation part is empty ({n - split.sizes[TEST]:,} rows left, split {method}); "
            "raise --data.val_fraction, or set it to 0 to train on every row without validation"
        )
    return split


def _kfold(n: int, fold: int, folds: int, seed: int) -> np.ndarray:
    order = permutation(np.random.default_rng(seed), n)
    return order[(fold - 1) * n // folds : fold * n // folds]


def _cut(
    table: RatingTable, among: np.ndarray, method: Method, fraction: float, leave_n: int, seed: list[int]
) -> np.ndarray:
    """Which of the rows `among` (bool [rows]) are held out: bool [how many these are]."""
    n = int(np.count_nonzero(among))
    size = int(n * fraction + 1e-9)  # the last digit of a float must not cost a row
    if method == "random":
        # A list of one is the same stream as the plain number, so published protocols can be met exactly.
        rng = np.random.default_rng(seed[0] if len(seed) == 1 else seed)
        return _mark(n, permutation(rng, n)[:size])
    if method == "time":
        time = _timestamps(table, method)[among]
        if size == 0:
            return np.zeros(n, dtype=bool)
        # One instant is never on both sides, so the part can be a little smaller than asked.
        cut: np.ndarray = time > np.partition(time, n - size - 1)[n - size - 1]
        return cut
    users = table.user.codes[among]
    counts = np.bincount(users)
    if method == "leave_last":
        order = np.lexsort((np.arange(n), _timestamps(table, method)[among], users))
        held = np.where(counts >= leave_n + 2, leave_n, 0)
    else:
        order = np.lexsort((np.random.default_rng(seed).random(n), users))
        held = np.minimum((counts * fraction + 0.5).astype(np.int64), counts - 1)
    # Position from the end within each user's run of `order`.
    ends = np.cumsum(counts)[users[order]]
    chosen = order[ends - np.arange(n) <= held[users[order]]]
    return _mark(n, chosen)


def permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """The numbers of ``rng.permutation(n)``, in half the memory where they fit."""
    return rng.permutation(np.arange(n, dtype=np.int32 if n < 2**31 else np.int64))


def _mark(n: int, chosen: np.ndarray) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[chosen] = True
    return mask


def _timestamps(table: RatingTable, method: str) -> np.ndarray:
    if table.timestamp is None:
        raise DataError(
            f"{table.name}: --data.split {method} needs timestamps, got none; name the column: --data.timestamp"
        )
    return table.timestamp
