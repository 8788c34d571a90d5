"""Conversion of a file's columns to a ratings table: roles of columns, ids, titles and categories.

Text columns are converted by their distinct values only, which is strict (leading zeros survive) and fast (a million
ratings have a handful of distinct values).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cflightning.data.ids import Id, IdColumn, Ids
from cflightning.data.sources.arrow_types import UnreadableType, empty_rows, encode, is_text, simplify, to_numpy
from cflightning.data.sources.column_errors import Where, bad_rows, decode, show, show_names, undecodable
from cflightning.data.sources.ratings import read_ratings, read_weights
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.timestamps import read_times
from cflightning.data.table import UNKNOWN_ORIGIN, Origin, RatingTable
from cflightning.errors import DataError

log = logging.getLogger(__name__)

_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"  # canonical: int(text) written again gives the same text
_WHOLE = r"^(0|-?[1-9][0-9]{0,18})(\.0*|,0)?$"  # 7.0, or 7,0 where the decimal mark is a comma
_LARGEST_ID = 2**63 - 1
_LARGEST_WHOLE = 2.0**53  # above, floats skip integers
KINDS = {
    "user": "ids", "item": "ids", "rating": "numbers", "weight": "numbers", "timestamp": "times", "title": "text",
    "categories": "text",
}  # fmt: skip
"""Kind of values of each role's column, for messages."""

# Column names of common data sets, lower case without separators, most specific first.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "customer", "customerid", "reviewerid", "member", "memberid", "visitorid"),
    "item": ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "asin", "isbn", "book", "bookid",
             "artist", "artistid", "track", "trackid", "song", "songid", "title"),
    "rating": ("rating", "ratings", "score", "stars", "overall", "value", "bookrating"),
    "timestamp": ("timestamp", "time", "date", "datetime", "ts", "unixreviewtime", "createdat", "ratedat"),
}  # fmt: skip

NO_CATEGORY = {"", "unknown", "(no genres listed)"}
"""Genres that MovieLens writes for items without any."""


def choose_columns(
    names: Sequence[str], wanted: dict[str, str | None], source: str, optional: set[str]
) -> dict[str, str]:
    """Assign columns of a file to the roles user, item, rating, timestamp, title, categories and weight.

    Args:
        names: Column names of the file.
        wanted: Role -> column named by the user, or None to match common names.
        source: Name of the table in messages.
        optional: Roles that may be missing.

    Returns:
        Role -> column, without missing optional roles.

    Raises:
        DataError: A named column is missing, or a required role matches no column.
    """
    chosen: dict[str, str] = {}
    plain = {plain_name(name): name for name in reversed(names)}
    for role, name in wanted.items():
        if name == "" and role in optional:
            continue
        if name is not None:
            if name not in names:
                raise DataError(
                    f"{source}: --data.table.{role} must name a column, got {show(name)}; the columns are "
                    f"{show_names(names)}"
                )
            chosen[role] = name
            continue
        usual_column = next((plain[usual] for usual in USUAL_NAMES.get(role, ()) if usual in plain), None)
        if usual_column is not None and usual_column not in chosen.values():
            chosen[role] = usual_column
        elif role not in optional:
            hint = f"name it with --data.table.{role}"
            if names[0].lower().startswith("sep=") or (len(names) == 1 and names[0].startswith("#")):
                hint = "the first line does not seem to be a header: remove the lines above the header"
            elif len(names) == 1:
                hint = "it has one column, so the delimiter is probably another one: give --data.table.delimiter"
            if role == "rating":
                hint += ", or give --data.feedback implicit, which needs none"
            raise DataError(
                f"{source}: must have a column for the {role}, got only {show_names(map(repr, names))}; {hint}"
            )
    return chosen


def plain_name(name: str) -> str:
    """Normalise a column name: lower case, without separators."""
    return "".join(c for c in name.lower() if c.isalnum())


def to_table(
    columns: dict[str, pa.ChunkedArray],
    where: Where,
    source: str,
    table_format: TableFormat = PLAIN_TABLE,
    origin: Origin = UNKNOWN_ORIGIN,
) -> RatingTable:
    """Check and convert the columns of one file.

    Args:
        columns: Role -> column; strings if the file is text.
        where: Names a row in messages.
        source: Name of the table.
        table_format: Interpretation of the values.
        origin: Columns of the file; detected properties of the values are added.

    Raises:
        DataError: A column is invalid; names file, line, column, value and number of bad rows.
    """
    notes: list[str] = []
    simple = {role: read_column(column, role, where) for role, column in columns.items()}
    user, item = (read_ids(simple[role], role, where, notes) for role in ("user", "item"))
    data: dict[str, np.ndarray | None] = {"rating": None, "weight": None, "timestamp": None}
    keep: np.ndarray | None = None
    for role, read in (("rating", read_ratings), ("weight", read_weights)):
        if role in simple:
            data[role], has_value = read(simple[role], where, table_format, notes)
            if has_value is not None:
                keep = has_value if keep is None else keep & has_value
    if "timestamp" in simple:
        data["timestamp"] = read_times(simple["timestamp"], where, table_format.time_format, notes)
    if not len(user):
        raise DataError(f"{source}: must have at least one row, got none below the header; is it the right file?")
    titles, categories = (_first_of_items(item, simple.get(role)) for role in ("title", "categories"))
    named = {key: split_categories(text) for key, text in categories.items()}
    table = RatingTable(
        user, item, data["rating"], data["timestamp"], source, titles=titles, weight=data["weight"],
        categories={key: names for key, names in named.items() if names},
        origin=replace(origin, notes=(*origin.notes, *notes)),
    )  # fmt: skip
    if keep is None:
        return table
    if not keep.any():
        raise DataError(f"{source}: must have a row that is not left out, got none of {len(keep):,}; leave out less")
    return table.take(keep)


def _first_of_items(item: IdColumn, column: pa.ChunkedArray | None) -> dict[Id, str]:
    """Return the first value of each item in a text column, by item id."""
    if column is None:
        return {}
    rows = np.flatnonzero(~to_numpy(column.is_null(nan_is_null=not is_text(column.type))))
    _, first = np.unique(item.codes[rows], return_index=True)
    rows = np.sort(rows[first])
    values = column.take(pa.array(rows)).cast(pa.large_string()).to_pylist()
    return dict(zip(item.ids.values[item.codes[rows]].tolist(), values, strict=True))


def split_categories(text: object) -> tuple[str, ...]:
    """Split ``Crime|Drama`` into distinct categories; empty for a missing value or a placeholder."""
    if not isinstance(text, str):
        return ()
    return tuple(dict.fromkeys(part.strip() for part in text.split("|") if part.strip() not in NO_CATEGORY))


def read_column(column: pa.Array | pa.ChunkedArray, role: str, where: Where) -> pa.ChunkedArray:
    """Convert a column to one of Arrow's plain types.

    Raises:
        DataError: The type is nested or unknown, or a text is not UTF-8.
    """
    try:
        listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        if role == "categories" and listed and is_text(column.type.value_type):
            column = pc.binary_join(column, "|")
        return simplify(column)
    except UnreadableType as error:
        raise DataError(
            f"{where(0)}, column {role!r}: must hold {KINDS[role]}, got values of type {str(error)[:80]}; "
            "convert the column"
        ) from error
    except pa.ArrowInvalid as error:
        row = undecodable(column)
        raise DataError(
            f"{where(row)}, column {role!r}: must be UTF-8, got {show(column[row].as_py())}; write the column as text"
        ) from error


def read_ids(column: pa.Array | pa.ChunkedArray, role: str, where: Where, notes: list[str] | None = None) -> IdColumn:
    """Read ids: integers if every text is a canonical integer or a whole decimal (7.0), else strings.

    Args:
        column: Column of ids.
        role: `user` or `item`.
        where: Names a row in messages.
        notes: List to which detected properties are appended.

    Raises:
        DataError: An id is missing, or neither an integer nor a string.
    """
    column = read_column(column, role, where)
    kind = column.type
    _refuse_missing(column, role, where)
    if pa.types.is_boolean(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        raise DataError(f"{where(0)}, column {role!r}: ids must be integers or strings, got {kind}; convert the column")
    distinct, codes = encode(column)
    if not is_text(kind):
        return _integer_ids(column, distinct, codes, role, where, notes)
    canonical = pc.match_substring_regex(distinct, _INTEGER)
    if pc.all(canonical).as_py():
        try:
            return IdColumn.from_codes(codes, to_numpy(distinct.cast(pa.int64())))
        except pa.ArrowInvalid:  # 19 digits beyond 64 bits
            pass
    is_whole = pc.match_substring_regex(distinct, _WHOLE)
    if pc.all(is_whole).as_py():
        shortened = pc.replace_substring_regex(distinct, r"[.,]0*$", "")
        try:
            return _merged(codes, to_numpy(shortened.cast(pa.int64())), role, notes)
        except pa.ArrowInvalid:
            pass
    texts = decode(column, distinct, codes, role, where)
    like_float = to_numpy(pc.match_substring_regex(distinct, r"^-?[0-9]+\.[0-9]*$"))
    if like_float.any():
        parts = like_float & ~to_numpy(is_whole)
        if parts.any() and np.all(like_float | to_numpy(canonical)):
            remedy = "correct or remove these rows, or, if they are names, put a letter before every id"
            rows = np.flatnonzero(parts[codes])
            raise bad_rows(column, rows, role, where, "ids must be integers or strings", remedy)
        rows = np.flatnonzero(like_float[codes])
        mixed = "mixed id types: some" if len(rows) < len(column) else "all"
        raise bad_rows(column, rows, role, where, f"ids must be integers or strings, got {mixed} written as decimals",
                       "write them as 7, not 7.0 (pandas does that to integers beside missing values)")  # fmt: skip
    others = distinct.filter(pc.invert(canonical))
    if 0 < len(others) < len(distinct):
        log.info("column %r: read as strings, for %d of %d ids are not plain integers (such as %s)",
                 role, len(others), len(distinct), show(others[0].as_py()))  # fmt: skip
    return IdColumn.from_codes(codes, np.array(texts, dtype=object))


def _integer_ids(
    column: pa.ChunkedArray, distinct: pa.Array, codes: np.ndarray, role: str, where: Where, notes: list[str] | None
) -> IdColumn:
    """Read ids from a column of numbers."""
    if pa.types.is_integer(distinct.type):
        try:
            return IdColumn.from_codes(codes, to_numpy(distinct.cast(pa.int64())))
        except pa.ArrowInvalid as error:
            large = np.array([value > _LARGEST_ID for value in distinct.to_pylist()], dtype=bool)
            raise bad_rows(column, np.flatnonzero(large[codes]), role, where, "ids must fit in 64 bits with a sign",
                           "use strings") from error  # fmt: skip
    values = np.array(distinct.cast(pa.float64(), safe=False).to_pylist(), dtype=np.float64)
    broken = ~(values == np.floor(values)) | ~(np.abs(values) <= _LARGEST_WHOLE)
    if broken.any():
        raise bad_rows(column, np.flatnonzero(broken[codes]), role, where, "ids must be integers or strings, or whole "
                       "numbers up to 2^53 where they are decimals", "convert the column")  # fmt: skip
    return _merged(codes, values.astype(np.int64), role, notes)


def _merged(codes: np.ndarray, values: np.ndarray, role: str, notes: list[str] | None) -> IdColumn:
    """Merge integers that were written as decimals, perhaps in several ways."""
    distinct, place = np.unique(values, return_inverse=True)
    if notes is not None:
        notes.append(f"{role} ids written as decimals (7.0) taken for integers")
    return IdColumn(Ids(distinct), place.astype(np.int32)[codes])


def _refuse_missing(column: pa.ChunkedArray, role: str, where: Where) -> None:
    missing = empty_rows(column)
    if missing.any():
        rows = np.flatnonzero(missing)
        raise bad_rows(column, rows, role, where, "must be an id", "fill in or remove these rows")
