"""What the arguments of `RatingsDataModule` must be, whatever the table holds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any, get_args

from cflightning.arguments import Arguments
from cflightning.data.reading import Feedback
from cflightning.data.sources import Source
from cflightning.data.split import Method, Nested
from cflightning.data.table import Duplicates


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
    limits = given["rating_range"]
    if limits is not None and not _is_range(limits):
        raise check.refuse("rating_range", "be finite and low < high")
    if given["synthetic"] is not None and not isinstance(given["synthetic"], Mapping):
        raise check.refuse("synthetic", "be settings by name")


def _is_range(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    if not all(isinstance(one, Real) and math.isfinite(one) for one in value):
        return False
    return bool(value[0] < value[1])
