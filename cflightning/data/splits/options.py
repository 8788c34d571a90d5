"""`SplitOptions`: how a table is divided into training, validation and test part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from cflightning.utils.arguments import Arguments

Method = Literal["random", "hash", "time", "leave_last", "per_user", "users", "predefined", "kfold"]
ValMethod = Literal["same", "random", "hash", "time", "leave_last", "per_user"]


@dataclass(frozen=True)
class SplitOptions:
    """Division into training, validation and test part.

    Attributes:
        method: Method of the test part: random; hash (by a hash of user and item id, so that rows keep their part when
            a table grows or is reordered); time (the newest rows); leave_last (the newest of each user); per_user (a
            share of each user's rows); users (held-out users, none of whose rows train, with fold-in); predefined (by
            the source: --data.test_path, a train and a test table, or --data.split.fold u1 of ml-100k); kfold. Default:
            predefined where there is a test table, else random.
        test_fraction: Share of the rows in the test part (random, hash, time, per_user).
        val_fraction: Share of the other rows in the validation part, which selects the best epoch; 0 trains on all of
            them. Default: 0.05, or 0 where that is fewer than 500 rows.
        val_method: Method of the validation part; same: that of the test part (random for predefined and kfold).
        fold: Number of the fold, from 1 (kfold), or name of the published split, u1 to u5, ua, ub (predefined).
        folds: Number of folds (kfold).
        leave_n: Rows of each user in the test part, and in the validation part (leave_last).
        test_users: Number or share of users in the test part (users). Default: test_fraction.
        val_users: Number or share of users in the validation part (users). Default: val_fraction.
        holdout_fraction: Share of the rows of each held-out user that is measured (users); the others are for fold-in.
        seed: Seed of the split and of the order of training rows.
    """

    method: Method | None = None
    test_fraction: float = 0.1
    val_fraction: float | None = None
    val_method: ValMethod = "same"
    fold: int | str | None = None
    folds: int = 5
    leave_n: int = 1
    test_users: float | None = None
    val_users: float | None = None
    holdout_fraction: float = 0.2
    seed: int = 42

    def __post_init__(self) -> None:
        check = Arguments("data.split", self.__dict__)
        check.choice("method", get_args(Method), optional=True)
        check.choice("val_method", get_args(ValMethod))
        check.number("test_fraction", 0, 1)
        check.number("val_fraction", 0, 1, optional=True)
        check.number("holdout_fraction", above=0, below=1)
        check.whole("folds", 2)
        check.whole("leave_n", 1)
        check.whole("seed", 0)
        if not isinstance(self.fold, str):
            check.whole("fold", 1, optional=True)
        for name, size in (("test_users", self.test_users), ("val_users", self.val_users)):
            check.number(name, 0, optional=True)
            if (size or 0) >= 1 and (size or 0) % 1:
                raise check.refuse(name, "be a share below 1 or a whole number of users")

    @property
    def published_split(self) -> str | None:
        """Name of the official split of ml-100k, such as u1; None for other splits."""
        if self.method != "predefined" or self.fold is None:
            return None
        return f"u{self.fold}" if isinstance(self.fold, int) or self.fold.isdigit() else self.fold

    def as_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


DEFAULT_SPLIT = SplitOptions()
"""The options of a split where none are set."""
