"""From the columns of a file to the columns of a ratings table, with one clear error for each bad input.

Text columns arrive as strings and are looked at by their distinct values only, which is both strict (leading zeros
survive, no value is guessed away) and fast (a million ratings have a handful of distinct values).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cflightning.data.ids import IdColumn
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

log = logging.getLogger(__name__)

_NO_TIME = "correct these rows, or leave the column out: --data.timestamp ''"
_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"  # canonical: int(text) written again gives the same text

# What the usual data sets call the columns, lower case without separators, most telling first.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "customer", "customerid", "reviewerid", "member", "memberid", "visitorid"),
    "item": ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "asin", "isbn", "book", "bookid",
             "artist", "artistid", "track", "trackid", "song", "songid", "title"),
    "rating": ("rating", "ratings", "score", "stars", "overall", "value", "bookrating"),
    "timestamp": ("timestamp", "time", "date", "datetime", "ts", "unixreviewtime", "createdat", "ratedat"),
}  # fmt: skip

NO_CATEGORY = {"", "unknown", "(no genres listed)"}
"""What MovieLens writes for an item of no category."""

Where = Callable[[int], str]
"""Names a row for messages: ``where(16)`` -> ``"ratings.csv: line 18"``."""


def choose_columns(
    names: Sequence[str], wanted: dict[str, str | None], source: str, optional: set[str]
) -> dict[str, str]:
    """Which column of the file is user, item, rating, timestamp, title, categories and weight.

    Args:
        names: the file's columns.
        wanted: role -> column named by the user, or None to go by the usual names.
        source: file name for messages.
        optional: roles that may be missing.

    Returns:
        role -> column, without the optional roles that are missing.

    Raises:
        DataError: a named column is missing, or a needed role has no usual name.
    """
    chosen: dict[str, str] = {}
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}
    for role, name in wanted.items():
        if name == "" and role in optional:
            continue
        if name is not None:
            if name not in names:
                raise DataError(
                    f"{source}: --data.{role} must name a column, got {name!r}; the columns are {', '.join(names)}"
                )
            chosen[role] = name
            continue
        found = next((plain[usual] for usual in USUAL_NAMES.get(role, ()) if usual in plain), None)
        if found is not None and found not in chosen.values():
            chosen[role] = found
        elif role not in optional:
            hint = (
                "it has one column, so the delimiter is probably another one: give --data.delimiter"
                if len(names) == 1
                else f"name it with --data.{role}"
            )
            if role == "rating":
                hint += ", or give --data.feedback choices, which needs none"
            raise DataError(
                f"{source}: must have a column for the {role}, got only {', '.join(map(repr, names))}; {hint}"
            )
    return chosen


def to_numpy(array: Any) -> np.ndarray:
    """A pyarrow array of numbers or truths, none missing, as it lies in memory; its own `to_numpy` imports pandas."""
    if pa.types.is_boolean(array.type):
        return to_numpy(array.cast(pa.uint8())).astype(bool)
    buffer, dtype = array.buffers()[1], np.dtype(array.type.to_pandas_dtype())
    if buffer is None:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array)]


def to_table(columns: dict[str, Any], where: Where, source: str) -> RatingTable:
    """Check and convert the columns of one file.

    Args:
        columns: role -> pyarrow array; strings where the file is text.
        where: names a row for messages.
        source: file name for messages, and the table's.

    Raises:
        DataError: with file, line, column, value and count of what is wrong.
    """
    convert = {"user": read_ids, "item": read_ids, "rating": _numbers, "timestamp": _timestamps, "weight": _weights}
    data: dict[str, Any] = {"rating": None, "timestamp": None}
    for role, function in convert.items():
        if role in columns:
            column = columns[role]
            if isinstance(column, pa.ChunkedArray):
                column = column.combine_chunks()
            data[role] = function(column, role, where)
    if not len(data["user"]):
        raise DataError(f"{source}: must have at least one row, got none below the header; is it the right file?")
    return RatingTable(**data, name=source)


def split_categories(text: Any) -> tuple[str, ...]:
    """`Crime|Drama` -> its parts, each once; none for a missing value or one that says so."""
    if not isinstance(text, str):
        return ()
    return tuple(dict.fromkeys(part.strip() for part in text.split("|") if part.strip() not in NO_CATEGORY))


def read_ids(column: Any, role: str, where: Where) -> IdColumn:
    """Ids as integers only if every one of them is written canonically, else as strings."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    _refuse_missing(column, role, where, "an id")
    if not pa.types.is_integer(column.type) and not _is_text(column.type):
        raise DataError(
            f"{where(0)}, column {role!r}: ids must be integers or strings, got {column.type}; "
            f"convert the column (floats usually come from missing values)"
        )
    coded = column.dictionary_encode()
    distinct, codes = coded.dictionary, to_numpy(coded.indices)
    if pa.types.is_integer(column.type):
        try:
            return IdColumn.from_codes(codes, to_numpy(distinct.cast(pa.int64())))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{where(0)} ff., column {role!r}: ids must fit in 64 bits, {error}; use strings"
            ) from error
    canonical = pc.match_substring_regex(distinct, _INTEGER)
    if pc.all(canonical).as_py():
        try:
            return IdColumn.from_codes(codes, to_numpy(distinct.cast(pa.int64())))
        except pa.ArrowInvalid:  # 19 digits that do not fit
            pass
    like_float = pc.match_substring_regex(distinct, r"^-?[0-9]+\.[0-9]*$")
    if pc.any(like_float).as_py():
        rows = np.flatnonzero(to_numpy(like_float)[codes])
        mixed = "mixed id types: some" if len(rows) < len(column) else "all"
        raise _offence(column, rows, role, where, f"ids must be integers or strings, got {mixed} written as decimals",
                       "write them as 7, not 7.0 (pandas does that to integers beside missing values)")  # fmt: skip
    others = distinct.filter(pc.invert(canonical))
    if 0 < len(others) < len(distinct):
        log.info("column %r: read as strings, for %d of %d ids are no plain integers (such as %r)",
                 role, len(others), len(distinct), others[0].as_py())  # fmt: skip
    return IdColumn.from_codes(codes, np.array(distinct.to_pylist(), dtype=object))


def _numbers(column: Any, role: str, where: Where) -> np.ndarray:
    """Ratings or weights as float32; every one finite."""
    _refuse_missing(column, role, where, "a number")
    if _is_text(column.type):
        coded = column.dictionary_encode()
        distinct = np.array([_number(text) for text in coded.dictionary.to_pylist()], dtype=np.float64)
        values = distinct[to_numpy(coded.indices)]
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        values = to_numpy(column.cast(pa.float64(), safe=False))
    else:
        raise DataError(f"{where(0)}, column {role!r}: {role}s must be numbers, got {column.type}; convert the column")
    bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max))  # also NaN
    if len(bad):
        raise _offence(column, bad, role, where, "must be a finite number", "correct or remove these rows")
    return np.asarray(values, dtype=np.float32)


def _weights(column: Any, role: str, where: Where) -> np.ndarray:
    """Weights as float32; every one finite and above 0."""
    weights = _numbers(column, role, where)
    bad = np.flatnonzero(weights <= 0)
    if len(bad):
        raise _offence(column, bad, role, where, "must be above 0", "correct or remove these rows")
    return weights


def _timestamps(column: Any, role: str, where: Where) -> Any:
    """Timestamps as int64 seconds since 1970, from seconds, dates or date-times (ISO 8601)."""
    _refuse_missing(column, role, where, "a time")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return to_numpy(column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()))
    if _is_text(column.type):
        try:
            return to_numpy(column.cast(pa.int64()))
        except pa.ArrowInvalid:
            pass
    try:
        seconds = to_numpy(column.cast(pa.float64()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    else:
        bad = np.flatnonzero(~(np.abs(seconds) < 2.0**62))
        if len(bad):
            raise _offence(column, bad, role, where, "must be seconds since 1970", _NO_TIME)
        return np.floor(seconds).astype(np.int64)
    import pandas as pd

    times = pd.to_datetime(column.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    bad = np.flatnonzero(times.isna().to_numpy())
    if len(bad):
        raise _offence(column, bad, role, where, "must be seconds since 1970 or an ISO 8601 date", _NO_TIME)
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _number(text: str) -> float:
    try:
        return float(text) if "_" not in text else np.nan  # Python reads 1_0 as 10; no table means that
    except ValueError:
        return np.nan


def _refuse_missing(column: Any, role: str, where: Where, kind: str) -> None:
    missing = to_numpy(column.is_null())
    if _is_text(column.type):
        missing = missing | (to_numpy(pc.binary_length(column.cast(pa.large_string()))) == 0)
    rows = np.flatnonzero(missing)
    if len(rows):
        raise _offence(column, rows, role, where, f"must be {kind}", "fill in or remove these rows")


def _offence(column: Any, rows: np.ndarray, role: str, where: Where, must: str, remedy: str) -> DataError:
    """The one error that names place, column, value and count."""
    first = int(rows[0])
    value = column[first].as_py()
    got = "nothing" if value is None or value == "" else repr(value)
    more = ""
    if len(rows) > 1:
        more = f" (and {len(rows) - 1:,} more such row{'s' if len(rows) > 2 else ''})"
    return DataError(f"{where(first)}, column {role!r}: {must}, got {got}{more}; {remedy}")
