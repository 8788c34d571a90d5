"""Timestamps of a table as seconds since 1970."""

from __future__ import annotations

from datetime import datetime
from itertools import product

import numpy as np
import pyarrow as pa

from cflightning.data.sources.arrow_types import empty_rows, encode, is_text, to_numpy
from cflightning.data.sources.column_errors import Where, bad_rows, decode

_LEAVE_OUT = "correct these rows, or leave the column out: --data.table.timestamp ''"
_DATES = (
    "%d.%m.%Y", "%m.%d.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
    "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d. %B %Y", "%m %d, %Y",
    "%d %m %Y", "%a, %d %b %Y", "%a %b %d %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y", "%y/%m/%d",
    "%y-%m-%d", "%d-%b-%y", "%d %b %y", "%b %d, %y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S",
           ", %I:%M %p", ", %I:%M:%S %p", " %H:%M:%S %z", " %H:%M:%S GMT")  # fmt: skip
FORMATS = (*map("".join, product(_DATES, _CLOCKS)), "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y")
"""Formats that are tried, as for `datetime.strptime`."""
_SAMPLE = 200
"""Texts that a format must parse before all are tried."""


def read_times(column: pa.ChunkedArray, where: Where, time_format: str | None, notes: list[str]) -> np.ndarray:
    """Read timestamps from seconds, dates or text: numbers, ISO 8601, or a named or unambiguous format.

    A format is unambiguous if it parses every text and every other format that does gives the same times; a day above
    12 distinguishes days from months.

    Args:
        column: Column from `simplify`.
        where: Names a row in messages.
        time_format: As for `datetime.strptime`, or None.
        notes: List to which a detected format is appended.

    Returns:
        Seconds since 1970, int64 [rows].

    Raises:
        DataError: A value is not a time, or is ambiguous.
    """
    missing = empty_rows(column)
    if missing.any():
        raise bad_rows(column, np.flatnonzero(missing), "timestamp", where, "must be a time",
                       "fill in or remove these rows, or leave the column out: --data.table.timestamp ''")  # fmt: skip
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        seconds: np.ndarray = to_numpy(column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()))
        return seconds
    if is_text(column.type):
        return _from_texts(column, where, time_format, notes)
    if not pa.types.is_boolean(column.type):
        return _from_numbers(column, to_numpy(column.cast(pa.float64(), safe=False)), where, notes)
    raise bad_rows(column, np.arange(len(column)), "timestamp", where, "must be seconds since 1970", _LEAVE_OUT)


def _from_numbers(column: pa.ChunkedArray, seconds: np.ndarray, where: Where, notes: list[str]) -> np.ndarray:
    if pa.types.is_signed_integer(column.type):
        exact: np.ndarray = to_numpy(column.cast(pa.int64()))
        days = _read_days(exact)
        if days is not None:
            notes.append("times as %Y%m%d")
        return exact if days is None else days
    bad = np.flatnonzero(~(np.abs(seconds) < 2.0**62))
    if len(bad):
        raise bad_rows(column, bad, "timestamp", where, "must be seconds since 1970", _LEAVE_OUT)
    rounded: np.ndarray = np.floor(seconds).astype(np.int64)
    return rounded


def _read_days(numbers: np.ndarray) -> np.ndarray | None:
    """Return the seconds of dates written as 20000730; None unless every number is such a date."""
    if not len(numbers) or not 19000101 <= numbers.min() <= numbers.max() <= 21001231:
        return None
    month, day = numbers // 100 % 100, numbers % 100
    months = (numbers // 10000 * 12 + month - 1 - 1970 * 12).astype("datetime64[M]")
    start, end = months.astype("datetime64[D]"), (months + 1).astype("datetime64[D]")
    if not ((month >= 1) & (month <= 12) & (day >= 1) & (start + (day - 1) < end)).all():
        return None
    seconds: np.ndarray = (start + (day - 1)).astype("datetime64[s]").astype(np.int64)
    return seconds


def _from_texts(column: pa.ChunkedArray, where: Where, time_format: str | None, notes: list[str]) -> np.ndarray:
    if time_format is None:
        for kind in (pa.int64(), pa.float64()):
            try:
                numbers = column.cast(kind)
            except pa.ArrowInvalid:
                continue
            return _from_numbers(numbers, to_numpy(numbers), where, notes)
    distinct, codes = encode(column)
    texts = [text.strip() for text in decode(column, distinct, codes, "timestamp", where)]
    if time_format is not None:
        times, must = _parse(texts, time_format), f"must be a time of the form {time_format} (--data.table.time_format)"
        remedy = _LEAVE_OUT
    else:
        times, must = _parse(texts, "ISO8601"), "must be seconds since 1970 or an ISO 8601 date"
        remedy = f"name the form with --data.table.time_format (such as %d.%m.%Y), {_LEAVE_OUT}"
        if np.isnat(times[:1]).any():
            fitting = _fitting(texts)
            if len(fitting) == 1:
                [(form, times)] = fitting.items()
                notes.append(f"times as {form}")
            elif fitting:
                first = next(place for place in range(len(texts)) if len({t[place] for t in fitting.values()}) > 1)
                rows = np.flatnonzero(codes == first)
                forms = " or ".join(f"--data.table.time_format '{form}'" for form in [*fitting][:3])
                raise bad_rows(column, rows[:1], "timestamp", where, "must be a time that can be read in one way only "
                               "(a day above 12 would decide)", f"say which is meant: {forms}")  # fmt: skip
    bad = np.flatnonzero(np.isnat(times)[codes])
    if len(bad):
        raise bad_rows(column, bad, "timestamp", where, must, remedy)
    seconds: np.ndarray = times.astype(np.int64)[codes]
    return seconds


def _fitting(texts: list[str]) -> dict[str, np.ndarray]:
    """Return the formats that parse all texts, with their times; only the first of formats that give the same times."""
    fitting: dict[str, np.ndarray] = {}
    for form in (form for form in FORMATS if _fits(texts[0], form)):
        if np.isnat(_parse(texts[:_SAMPLE], form)).any():
            continue
        times = _parse(texts, form)
        if not np.isnat(times).any() and not any(np.array_equal(times, other) for other in fitting.values()):
            fitting[form] = times
    return fitting


def _fits(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _parse(texts: list[str], form: str) -> np.ndarray:
    """Parse times, datetime64[s] [n]; NaT where the format does not match."""
    import pandas as pd  # imported late: it takes half a second, and numeric times do not need it

    times = pd.to_datetime(pd.Series(texts, dtype=object), format=form, utc=True, errors="coerce")
    parsed: np.ndarray = times.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
    return parsed
