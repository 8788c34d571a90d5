"""From the options of a data module to its table: read, put together, checked, every pair once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from cflightning.data.sources import Source, load_candidates, load_table
from cflightning.data.sources.frames import from_frame
from cflightning.data.sources.options import AS_WRITTEN, ValueOptions, parse_range, split_list
from cflightning.data.sources.predefined_folder import CandidateLists
from cflightning.data.splits.split import Method
from cflightning.data.suspects import warn_of_ratings
from cflightning.data.table import Duplicates, RatingTable, check_range, merge_duplicates
from cflightning.errors import DataError

log = logging.getLogger(__name__)

Feedback = Literal["ratings", "choices"]


@dataclass(frozen=True)
class Reading:
    """What is read, and as what. The options are those of :class:`~cflightning.data.datamodule.RatingsDataModule`.

    Attributes:
        columns: role -> column, or None to go by the usual names.
        names: column names of a text table that has no header line, or one text with commas between them.
        values: how the values are meant.
        frame: a pandas frame in place of path and source. (A type that is not named: jsonargparse would import pandas
            to look.)
    """

    path: str | None
    source: Source
    columns: dict[str, str | None]
    names: list[str] | str | None
    delimiter: str | None
    encoding: str | None
    split: Method | None
    fold: int | str | None
    test_path: str | None
    feedback: Feedback
    min_rating: float | None
    duplicates: Duplicates | None
    rating_range: tuple[float, float] | str | None
    synthetic: dict[str, Any] | None
    cache: bool
    values: ValueOptions = AS_WRITTEN
    frame: Any = None

    def table(self) -> RatingTable:
        """All ratings or choices, checked and without duplicates.

        Raises:
            DataError: an option or a row that cannot be.
        """
        self._check()
        choices = self.feedback == "choices"
        table = self._read(self.path, not choices or self.min_rating is not None)
        if self.test_path is not None:
            table = self._with_test_table(table, not choices or self.min_rating is not None)
        if self.columns.get("weight") and table.weight is None:
            raise DataError(f"--data.weight: is {self.columns['weight']}, but {table.name} has no such column")
        if choices:
            table = as_choices(table, self.min_rating)
        elif self.bounds is not None:
            check_range(table, self.bounds)
        else:
            column = table.origin.columns.get("rating") if table.origin is not None else None
            if (warning := warn_of_ratings(table, column or "COLUMN")) is not None:
                log.warning(warning)
        return merge_duplicates(table, self.duplicates or ("sum" if choices else "error"))

    def pairs(self) -> RatingTable:
        """Every row as it stands, to be scored; ratings and weights, if there are any, are not read."""
        return replace(self, columns=self.columns | {"weight": None})._read(self.path, need_rating=False)

    def candidates(self) -> CandidateLists | None:
        """The candidate lists of a leave-one-out folder; None where the source has none."""
        return None if self.frame is not None else load_candidates(self.path)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest rating as given."""
        return parse_range(self.rating_range)

    def _check(self) -> None:
        if self.feedback not in get_args(Feedback):
            raise DataError(f"--data.feedback: must be one of {', '.join(get_args(Feedback))}, got {self.feedback!r}")
        if self.feedback == "ratings":
            for name, value in (("min_rating", self.min_rating), ("weight", self.columns.get("weight"))):
                if value is not None:
                    raise DataError(f"--data.{name}: is {value}, but ratings are all taken as they are; give "
                                    "--data.feedback choices, or leave it out")  # fmt: skip
        elif self.rating_range is not None:
            raise DataError("--data.rating_range: is given, but --data.feedback choices has no ratings; leave it out")
        if self.test_path is not None and self.split not in (None, "predefined"):
            raise DataError("--data.test_path: needs --data.split predefined")

    def _read(self, path: str | None, need_rating: bool) -> RatingTable:
        if self.frame is not None and path is None:
            return from_frame(self.frame, self.columns, need_rating=need_rating, values=self.values)
        return load_table(
            self.source,
            path,
            columns=self.columns,
            names=split_list(self.names) or None,
            values=self.values,
            delimiter=self.delimiter,
            encoding=self.encoding,
            predefined=self._published(),
            need_rating=need_rating,
            synthetic=self.synthetic,
            keep=self.cache,
        )

    def _published(self) -> str | None:
        """Name of the official split of ml-100k that is asked for."""
        if self.split != "predefined" or self.test_path is not None or self.fold is None:
            return None
        return f"u{self.fold}" if isinstance(self.fold, int) or self.fold.isdigit() else self.fold

    def _with_test_table(self, table: RatingTable, need_rating: bool) -> RatingTable:
        if table.test_rows is not None:
            raise DataError(f"--data.test_path: is {self.test_path}, but {table.name} has a test part; leave it out")
        return table.append(self._read(self.test_path, need_rating), table.name)


def as_choices(table: RatingTable, min_rating: float | None) -> RatingTable:
    """Rows as positives, without their ratings.

    Args:
        table: any table.
        min_rating: rating units; rows rated below are left out. None for every row, whatever its rating.

    Raises:
        DataError: no row is left, or there is no rating to go by.
    """
    if min_rating is not None:
        keep = table.ratings >= min_rating
        low = len(table) - int(np.count_nonzero(keep))
        if low == len(table):
            raise DataError(
                f"--data.min_rating: must leave a row, got {min_rating:g}, but the highest rating of {table.name} is "
                f"{table.ratings.max():g}; lower it"
            )
        log.info("%s: %d of %d rows are rated below %g and left out", table.name, low, len(table), min_rating)
        table = table.take(keep) if low else table
    return replace(table, rating=None, noise_floor=None)
