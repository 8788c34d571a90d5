"""Loading of a table: read from its source, checked, and without duplicates."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from cflightning.data.sources import Source, load_candidates, load_table
from cflightning.data.sources.frames import from_frame
from cflightning.data.sources.leave_one_out import CandidateLists
from cflightning.data.sources.table_format import SKIP, TableFormat, parse_range
from cflightning.data.splits.options import SplitOptions
from cflightning.data.suspects import warn_of_ratings
from cflightning.data.table import LARGEST_RATING, Duplicates, RatingTable, check_range, merge_duplicates
from cflightning.errors import DataError
from cflightning.utils.arguments import Arguments

log = logging.getLogger(__name__)

Feedback = Literal["ratings", "implicit"]


@dataclass(frozen=True)
class LoadOptions:
    """Source of a table and what its rows mean: the arguments of `RatingsDataModule` with the same names.

    Attributes:
        frame: A data frame in place of path and source.
    """

    path: str | None
    source: Source
    test_path: str | None
    table: TableFormat
    feedback: Feedback
    min_rating: float | None
    duplicates: Duplicates | None
    rating_range: tuple[float, float] | str | None
    synthetic: Mapping[str, object] | None
    cache: bool
    frame: object = None

    def __post_init__(self) -> None:
        check = Arguments("data", self.__dict__)
        for name, path in (("path", self.path), ("test_path", self.test_path)):
            if path is not None and (not isinstance(path, str | os.PathLike) or not str(path).strip()):
                raise check.refuse(name, "name a file or folder")
        check.choice("source", get_args(Source))
        check.choice("feedback", get_args(Feedback))
        check.choice("duplicates", get_args(Duplicates), optional=True)
        check.number("min_rating", optional=True)
        check.flag("cache")
        if self.synthetic is not None and not isinstance(self.synthetic, Mapping):
            raise check.refuse("synthetic", "be settings by name")
        try:
            low, high = self.given_rating_range or (0.0, 1.0)
        except (TypeError, ValueError) as error:
            raise check.refuse("rating_range", "be finite and low < high, such as 0.5,5") from error
        if not -math.inf < low < high < math.inf:
            raise check.refuse("rating_range", "be finite and low < high, such as 0.5,5")
        if max(-low, high) > LARGEST_RATING:
            limits = f"{-LARGEST_RATING:g} and {LARGEST_RATING:g}"
            raise check.refuse("rating_range", f"lie within {limits}: the squares of larger errors exceed float32")

    @property
    def given_rating_range(self) -> tuple[float, float] | None:
        """The lowest and highest rating; None where they are to be observed."""
        return parse_range(self.rating_range)


def load_interactions(options: LoadOptions, split_options: SplitOptions) -> RatingTable:
    """Load all ratings or interactions, checked and without duplicates.

    Args:
        options: Source of the table and what its rows mean.
        split_options: Division of the table; a published split is read with its test part.

    Raises:
        DataError: Options contradict each other, or a row cannot be used.
    """
    _check_options(options)
    implicit = options.feedback == "implicit"
    table_format = options.table
    if implicit and options.min_rating is None:
        table_format = table_format.without_ratings()
    table = _read(options, split_options, options.path, table_format)
    if options.test_path is not None:
        if table.test_rows is not None:
            raise DataError(f"--data.test_path: is {options.test_path}, but {table.name} has a test part; leave it out")
        table = table.append(_read(options, split_options, options.test_path, table_format), table.name)
    if options.table.weight and table.weight is None:
        raise DataError(f"--data.table.weight: is {options.table.weight}, but {table.name} has no such column")
    if implicit:
        table = as_implicit(table, options.min_rating)
    elif options.given_rating_range is not None:
        check_range(table, options.given_rating_range)
    else:
        column = table.origin.columns.get("rating") if table.origin is not None else None
        if (warning := warn_of_ratings(table, column or "COLUMN")) is not None:
            log.warning(warning)
    return merge_duplicates(table, options.duplicates or ("sum" if implicit else "error"))


def load_rows_to_score(options: LoadOptions, split_options: SplitOptions) -> RatingTable:
    """Load every row as it is; ratings and weights are left unread."""
    return _read(options, split_options, options.path, replace(options.table, weight=None, rating=SKIP))


def load_candidate_lists(options: LoadOptions) -> CandidateLists | None:
    """Load the candidates of a leave-one-out folder; None where the source has none."""
    return None if options.frame is not None else load_candidates(options.path)


def as_implicit(table: RatingTable, min_rating: float | None) -> RatingTable:
    """Return the rows as implicit feedback, without ratings.

    Args:
        table: Ratings or interactions.
        min_rating: Rows rated below are left out; None keeps every row. Rating units.

    Raises:
        DataError: No row is left, or `min_rating` is given and there are no ratings.
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


def _check_options(options: LoadOptions) -> None:
    """Refuse options of the other kind of feedback."""
    if options.feedback == "ratings":
        for name, value in (("min_rating", options.min_rating), ("table.weight", options.table.weight)):
            if value is not None:
                raise DataError(
                    f"--data.{name}: is {value}, but ratings are all taken as they are; give --data.feedback implicit, "
                    "or leave it out"
                )
    elif options.rating_range is not None:
        raise DataError("--data.rating_range: is given, but --data.feedback implicit has no ratings; leave it out")
    if not options.table.reads_ratings and (options.feedback == "ratings" or options.min_rating is not None):
        raise DataError(
            "--data.table.rating: must name a column, got ''; leave it out, or give --data.feedback implicit"
        )


def _read(
    options: LoadOptions, split_options: SplitOptions, path: str | None, table_format: TableFormat
) -> RatingTable:
    if options.frame is not None and path is None:
        return from_frame(options.frame, table_format)
    return load_table(
        options.source,
        path,
        table_format,
        published_split=split_options.published_split if options.test_path is None else None,
        synthetic=options.synthetic,
        keep=options.cache,
    )
