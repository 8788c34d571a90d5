"""Ratings tables from pandas, polars or pyarrow tables in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from cflightning.data.sources.column_errors import show
from cflightning.data.sources.columns import KINDS, choose_columns
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import from_arrow, optional_roles
from cflightning.data.table import UNKNOWN_ORIGIN, RatingTable
from cflightning.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

NAME = "the frame"


def from_frame(frame: object, table_format: TableFormat = PLAIN_TABLE) -> RatingTable:
    """Convert a frame to a ratings table.

    Args:
        frame: pandas DataFrame, or a table of a library that exports Arrow data (polars, pyarrow).
        table_format: Columns and notation.

    Raises:
        DataError: The frame or a column cannot be read, for instance because it mixes integers and strings.
    """
    if not (hasattr(frame, "iloc") and hasattr(frame, "columns")):
        return from_arrow(_arrow_table(frame), NAME, table_format)
    if frame.columns.nlevels > 1:
        raise DataError(
            f"{NAME}: must have one name for each column, got {frame.columns.nlevels} levels such as "
            f"{show(frame.columns[0]) if len(frame.columns) else 'none'}; flatten them, for example "
            "frame.columns = ['_'.join(map(str, names)) for names in frame.columns]"
        )
    names = [str(name) for name in frame.columns]
    _refuse_repeated(names)
    chosen = choose_columns(names, table_format.columns, NAME, optional_roles(table_format))
    converted = {name: _to_arrow(frame.iloc[:, names.index(name)], name, role) for role, name in chosen.items()}
    table = from_arrow(pa.table(converted), NAME, table_format.with_columns(chosen))
    unread = tuple(name for name in names if name not in converted)
    return replace(table, origin=replace(table.origin or UNKNOWN_ORIGIN, unread=unread))


def _arrow_table(frame: object) -> pa.Table:
    """Convert a table of another library than pandas without a copy."""
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


def _to_arrow(column: pd.Series, name: str, role: str) -> pa.Array:
    """Convert a pandas column to Arrow."""
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
