"""Ratings and weights of a table as float32."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cflightning.data.sources.arrow_types import empty_rows, encode, is_text, to_numpy
from cflightning.data.sources.column_errors import Where, bad_rows, decode
from cflightning.data.sources.table_format import TableFormat, to_number
from cflightning.data.table import LARGEST_RATING
from cflightning.errors import DataError

_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
_NOT_RATED = {
    "",
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "nil",
    "missing",
    "unknown",
    "unrated",
    "not rated",
    "-",
    "--",
    "?",
}
_NEGATIVE_WORDS = {"dislike", "no", "n", "down", "bad", "negative", "thumbs_down", "thumbs down", "skip", "👎"}
_BEGINS_WITH_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)[^0-9.].*")  # 4/5, 80%, 3 stars
_MOST_VALUES = 12
"""Maximum number of distinct values for which an error suggests numbers."""


class _Numbers(NamedTuple):
    """A column of numbers; a text column by its distinct values.

    Attributes:
        column: Column [rows], for messages.
        values: Numbers, float64 [values].
        absent: Which values mean "not rated", bool [values].
        codes: Index of each row's value, int32 [rows]; None if there is one value per row.
    """

    column: pa.ChunkedArray
    values: np.ndarray
    absent: np.ndarray
    codes: np.ndarray | None

    def expand(self, values: np.ndarray) -> np.ndarray:
        """Expand an array [values] to [rows]."""
        return values if self.codes is None else values[self.codes]

    def check(self, bad: np.ndarray, role: str, where: Where, must: str, remedy: str) -> None:
        """Raise an error for bad values, bool [values], except those that mean "not rated".

        Raises:
            DataError: There are such values.
        """
        bad = bad & ~self.absent
        if bad.any():
            raise bad_rows(self.column, np.flatnonzero(self.expand(bad)), role, where, must, remedy)

    def as_float32(self, role: str, where: Where) -> np.ndarray:
        """Return the values as float32 [values], 0 for "not rated".

        Raises:
            DataError: A value is not finite.
        """
        bad = ~(np.abs(self.values) <= np.finfo(np.float32).max)  # also NaN
        self.check(bad, role, where, "must be a finite number within float32", "correct or remove these rows")
        return np.where(self.absent, 0, self.values).astype(np.float32)


def read_ratings(
    column: pa.ChunkedArray, where: Where, table_format: TableFormat, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a column of ratings.

    Args:
        column: Column from `simplify`.
        where: Names a row in messages.
        table_format: Interpretation of the values.
        notes: List to which detected properties are appended.

    Returns:
        Ratings, float32 [rows], and which rows have one, bool [rows], or None if all have.

    Raises:
        DataError: A value is not a number, or float32 cannot hold it.
    """
    numbers = _read(column, "rating", where, table_format, notes)
    ratings = numbers.as_float32("rating", where)
    numbers.check(
        (np.abs(numbers.values - ratings) >= 0.5) | (np.abs(numbers.values) > LARGEST_RATING), "rating", where,
        "must be a number that float32 holds to its whole part",
        "whole numbers are exact up to 16,777,216 there; divide the ratings, or, if they are counts, give "
        "--data.feedback implicit --data.table.weight COLUMN",
    )  # fmt: skip
    if not numbers.absent.any():
        return numbers.expand(ratings), None
    absent = numbers.expand(numbers.absent)
    notes.append(f"{np.count_nonzero(absent):,} rows not rated (--data.table.missing) left out")
    return numbers.expand(ratings), ~absent


def read_weights(
    column: pa.ChunkedArray, where: Where, table_format: TableFormat, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a column of weights, which must be above 0; arguments, results and errors as for `read_ratings`."""
    numbers = _read(column, "weight", where, TableFormat(decimal=table_format.decimal), notes)
    weights = numbers.as_float32("weight", where)
    remedy = "correct or remove these rows"
    if not (weights < 0).any():
        remedy += ", or leave rows of weight 0 out: --data.table.drop_zero_weights true"
    drop = table_format.drop_zero_weights and bool((weights == 0).any())
    numbers.check(weights < 0 if drop else weights <= 0, "weight", where, "must be above 0", remedy)
    weights = numbers.expand(weights)
    if not drop:
        return weights, None
    notes.append(f"{np.count_nonzero(weights == 0):,} rows of weight 0 left out")
    return weights, weights > 0


def _read(column: pa.ChunkedArray, role: str, where: Where, table_format: TableFormat, notes: list[str]) -> _Numbers:
    texts, absent_numbers = table_format.missing_ratings
    nulls = empty_rows(column)
    if nulls.any() and "" not in texts:
        remedy = "fill in or remove these rows" + (
            ", or leave them out: --data.table.missing ''" if role == "rating" else ""
        )
        raise bad_rows(column, np.flatnonzero(nulls), role, where, "must be a number", remedy)
    if pa.types.is_boolean(column.type) and role == "rating":
        column = column.cast(pa.string())
    if is_text(column.type):
        return _from_texts(column, role, where, table_format, notes)
    if not (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
    ) and not pa.types.is_null(column.type):
        raise DataError(f"{where(0)}, column {role!r}: {role}s must be numbers, got {column.type}; convert the column")
    numbers = to_numpy(column.cast(pa.float64(), safe=False).fill_null(np.nan))
    values = numbers
    if table_format.rating_numbers:
        values = numbers.copy()
        for text, value in table_format.rating_numbers.items():
            if (number := to_number(text)) is not None:
                values[numbers == number] = value
    return _Numbers(column, values, nulls | np.isin(numbers, absent_numbers) if texts else nulls, None)


def _from_texts(
    column: pa.ChunkedArray, role: str, where: Where, table_format: TableFormat, notes: list[str]
) -> _Numbers:
    distinct, codes = encode(column)
    texts = [(text or "").strip() for text in decode(column, distinct, codes, role, where)]
    absent_texts, absent_numbers = table_format.missing_ratings
    lower = {text.lower(): value for text, value in table_format.rating_numbers.items()}
    numbers: dict[str, float] = {text: lower[text.lower()] for text in texts if text.lower() in lower}
    absent = {text for text in texts if text.lower() in absent_texts}
    plain = [text for text in texts if text not in numbers and text not in absent]
    if role == "rating" and plain and {text.lower() for text in plain} <= {"true", "false"}:
        numbers |= {text: float(text.lower() == "true") for text in plain}
        notes.append("ratings true and false as 1 and 0")
    else:
        mark = table_format.decimal or _guess_mark(plain)
        if mark == "," and table_format.decimal is None:
            notes.append("decimal comma")
        parsed = {text: value for text in plain if (value := _parse(text, mark)) is not None}
        absent |= {text for text, value in parsed.items() if value in absent_numbers}
        numbers |= parsed
    made = _Numbers(
        column,
        np.array([numbers.get(text, np.nan) for text in texts], dtype=np.float64),
        np.array([text in absent for text in texts], dtype=bool),
        codes,
    )
    wrong = [text for text in plain if text not in numbers]
    bad = np.isin(np.arange(len(texts)), [place for place, text in enumerate(texts) if text in {*wrong}])
    remedy = "correct or remove these rows" + _advice(wrong, role, table_format) if wrong else ""
    made.check(bad, role, where, "must be a finite number", remedy)
    return made


def _parse(text: str, mark: str | None) -> float | None:
    if mark == ",":
        return to_number(text.replace(",", ".")) if "." not in text and text.count(",") < 2 else None
    return to_number(text)


def _guess_mark(texts: list[str]) -> str | None:
    """Return a comma if it can only be the decimal mark, else None."""
    odd = [text for text in texts if to_number(text) is None]
    if not odd or not all(_COMMA.fullmatch(text) for text in odd) or any("." in text for text in texts):
        return None
    return None if all(_THOUSANDS.fullmatch(text) for text in odd) else ","


def _advice(wrong: list[str], role: str, table_format: TableFormat) -> str:
    """Return advice about values that are not numbers."""
    if table_format.decimal is None and all(_COMMA.fullmatch(text) or _THOUSANDS.fullmatch(text) for text in wrong):
        return ", or name the decimal mark: --data.table.decimal , if it is the decimal mark"
    if role != "rating":
        return ""
    if all(text.lower() in _NOT_RATED for text in wrong):
        return f", or leave them out as not rated: --data.table.missing={','.join(wrong[:3])}"
    leading = [match[1] for text in wrong if (match := _BEGINS_WITH_NUMBER.fullmatch(text)) is not None]
    if len({*map(float, leading)}) == len(wrong):
        numbers = dict(zip(wrong, leading, strict=True))
    else:
        words = sorted(wrong, key=lambda text: (text.lower() not in _NEGATIVE_WORDS, text))
        numbers = {text: str(number) for number, text in enumerate(words)}
    if len(wrong) > _MOST_VALUES or any(len(text) > 20 or {",", "="} & {*text} for text in wrong):
        return ", or give a number for each value: --data.table.rating_values VALUE=NUMBER,…"
    example = ",".join(f"{text}={numbers[text]}" for text in sorted(numbers, key=lambda text: float(numbers[text])))
    quoted = f"'{example}'" if re.search(r"[^\w=,./+-]", example) else example
    return f", or give a number for each value, for example --data.table.rating_values {quoted}"
