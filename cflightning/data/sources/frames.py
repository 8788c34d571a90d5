"""A pandas frame, or another table in memory that Arrow can take over, as a ratings table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from cflightning.data.sources.column_errors import show
from cflightning.data.sources.columns import KINDS, choose_columns
from cflightning.data.sources.options import AS_WRITTEN, ValueOptions
from cflightning.data.sources.tables import from_arrow, optional_roles
from cflightning.data.table import UNKNOWN_ORIGIN, RatingTable
from cflightning.errors import DataError

NAME = "the frame"


def from_frame(
    frame: Any, columns: dict[str, str | None], *, need_rating: bool = True, values: ValueOptions = AS_WRITTEN
) -> RatingTable:
    """Make a ratings table from a frame.

    Args:
        frame: of pandas, or of another library that hands out Arrow data (polars, pyarrow).
        columns: role -> column name, or None to go by the usual names.
        need_rating: whether a rating column must be there; if not, it is not read either.
        values: how the values are meant.

    Raises:
        DataError: the frame or one of its columns cannot be read, such as one that mixes integers and strings.
    """
    if not (hasattr(frame, "iloc") and hasattr(frame, "columns")):
        return from_arrow(_arrow_table(frame), NAME, columns, need_rating=need_rating, values=values)
    if frame.columns.nlevels > 1:
        raise DataError(
            f"{NAME}: must have one name for each column, got {frame.columns.nlevels} levels such as "
            f"{show(frame.columns[0]) if len(frame.columns) else 'none'}; flatten them, for example "
            "frame.columns = ['_'.join(map(str, names)) for names in frame.columns]"
        )
    names = [str(name) for name in frame.columns]
    _refuse_repeated(names)
    chosen = choose_columns(names, columns, NAME, optional_roles(need_rating))
    converted = {
        name: _to_arrow(frame.iloc[:, names.index(name)], name, role)
        for role, name in chosen.items()
        if need_rating or role != "rating"
    }
    found = {role: name if name in converted else None for role, name in chosen.items()}
    table = from_arrow(pa.table(converted), NAME, columns | found, need_rating=need_rating, values=values)
    unread = tuple(name for name in names if name not in converted)
    return replace(table, origin=replace(table.origin or UNKNOWN_ORIGIN, unread=unread))


def _arrow_table(frame: Any) -> Any:
    """Take over the table of another library than pandas."""
    if not isinstance(frame, pa.Table) and (not hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "iloc")):
        raise DataError(f"{NAME}: must be a pandas DataFrame, got {type(frame).__name__}; make one of it")
    table = pa.table(frame)
    _refuse_repeated(table.column_names)
    return table


def _refuse_repeated(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        shown = ", ".join(twice[:3])[:100]
        raise DataError(f"{NAME}: must have columns of different names, got {shown} more than once; rename them")


def _to_arrow(column: Any, name: str, role: str) -> Any:
    """Return a column of pandas as a pyarrow array."""
    import pandas as pd

    if isinstance(column.dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if column.dtype == np.longdouble:
        column = column.astype(np.float64)
    try:
        return pa.array(column, from_pandas=True)
    except OverflowError as error:
        raise DataError(
            f"{NAME}, column {show(name)}: must hold {KINDS[role]} that fit in 64 bits, got larger integers; "
            f"{_remedy(name, role)}"
        ) from error
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        kinds = sorted({type(value).__name__ for value in column})
        got = f"mixed types {', '.join(kinds[:5])}" if len(kinds) > 1 else f"{kinds[0]} ({column.dtype})"
        raise DataError(
            f"{NAME}, column {show(name)}: must hold one type of {KINDS[role]}, got {got}; {_remedy(name, role)}"
        ) from error


def _remedy(name: str, role: str) -> str:
    column = f"frame[{show(name)}]"
    made = {"numbers": f"pd.to_numeric({column})", "times": f"pd.to_datetime({column})"}
    return f"convert it, for example by {made.get(KINDS[role], f'{column}.astype(str)')}"
