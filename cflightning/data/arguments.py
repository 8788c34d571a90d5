"""What the arguments of `RatingsDataModule` must be, whatever the table holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, get_args

from cflightning.data.load_options import Feedback
from cflightning.data.sources import Source
from cflightning.data.sources.options import ValueOptions, parse_range, split_list
from cflightning.data.splits.split import Method, Nested
from cflightning.data.table import LARGEST_RATING, Duplicates
from cflightning.utils.arguments import Arguments


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse arguments that no table could make good.

    Args:
        given: Argument -> value.

    Raises:
        ArgumentError: An argument is none of its choices, or outside its range.
    """
    check = Arguments("data", given)
    for name in ("path", "test_path"):
        value = given[name]
        if value is not None and (not isinstance(value, str | os.PathLike) or not str(value).strip()):
            raise check.refuse(name, "name a file or folder")
    check.choice("source", get_args(Source))
    check.choice("feedback", get_args(Feedback))
    check.choice("split", get_args(Method), optional=True)
    check.choice("val_split", get_args(Nested))
    check.choice("duplicates", get_args(Duplicates), optional=True)
    check.number("test_fraction", 0, 1)
    check.number("val_fraction", 0, 1, optional=True)
    check.number("fold_out", above=0, below=1)
    check.number("min_rating", optional=True)
    check.whole("folds", 2)
    check.whole("leave_n", 1)
    check.whole("batch_size", 1, optional=True)
    check.whole("eval_batch_size", 1)
    check.whole("seed", 0)
    check.flag("cache")
    check.flag("other_data")
    if not isinstance(given["fold"], str):
        check.whole("fold", 1, optional=True)
    for name in ("test_users", "val_users"):
        check.number(name, 0, optional=True)
        if (given[name] or 0) >= 1 and given[name] % 1:
            raise check.refuse(name, "be a share below 1 or a whole number of users")
    _check_values(check)
    if given["synthetic"] is not None and not isinstance(given["synthetic"], Mapping):
        raise check.refuse("synthetic", "be settings by name")


def _check_values(check: Arguments) -> None:
    """Refuse what says nothing of how values are meant."""
    given = check.given
    check.choice("decimal", (".", ","), optional=True)
    check.flag("drop_zero_weights")
    form = given["time_format"]
    if form is not None and (not isinstance(form, str) or "%" not in form):
        raise check.refuse("time_format", "be a form such as %d.%m.%Y or %m/%d/%Y %H:%M")
    options = ValueOptions(rating_values=given["rating_values"], missing=given["missing"])
    limits = None
    parsed: tuple[tuple[str, Callable[[], Any], str], ...] = (
        ("columns", lambda: split_list(given["columns"]), "be names with commas between them"),
        ("rating_values", lambda: options.values, "be VALUE=NUMBER with commas between them, or such a mapping"),
        ("missing", lambda: options.absent, "be values with commas between them"),
        ("rating_range", lambda: parse_range(given["rating_range"]), "be finite and low < high, such as 0.5,5"),
    )
    for name, parse, must in parsed:
        try:
            limits = parse()
        except (TypeError, ValueError) as error:
            raise check.refuse(name, must) from error
    if limits is None:
        return
    low, high = limits
    if not -math.inf < low < high < math.inf:
        raise check.refuse("rating_range", "be finite and low < high, such as 0.5,5")
    if max(-low, high) > LARGEST_RATING:
        raise check.refuse("rating_range", f"lie within {-LARGEST_RATING:g} and {LARGEST_RATING:g}: the squares of "
                           "larger errors leave float32")  # fmt: skip
