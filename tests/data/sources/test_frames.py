"""Every data frame is read with its values, or rejected in one line."""

import datetime
import decimal
import re
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources.table_format import TableFormat
from cflightning.errors import DataError

FRAME = pd.DataFrame(
    {"user": [1, 2, 3, 1], "item": [5, 6, 5, 6], "rating": [1, 2, 3, 4], "timestamp": [10, 20, 30, 40]}
)


def table(frame, **options):
    return RatingsDataModule.from_frame(frame, **options).table


def error(frame, **options):
    with pytest.raises(DataError) as caught:
        table(frame, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 350
    return message


DAYS = pd.date_range("2020-01-01", periods=4)
SECONDS = [1577836800 + 86400 * day for day in range(4)]


@pytest.mark.parametrize(
    "times",
    [
        DAYS.tz_localize("UTC"),
        DAYS.as_unit("s"),
        DAYS.to_period("D"),
        pd.array(DAYS.to_period("D")),
        [day.date() for day in DAYS],
        pd.Series([day.to_pydatetime() for day in DAYS], dtype=object),
        DAYS.strftime("%Y-%m-%d"),
        pd.Categorical(DAYS.strftime("%Y-%m-%d")),
    ],
)
def test_times(times):
    assert table(FRAME.assign(timestamp=times)).timestamp.tolist() == SECONDS


@pytest.mark.parametrize(
    "ratings",
    [
        pd.arrays.SparseArray([1.0, 0, 3, 0], fill_value=0.0),
        pd.array([1, 0, 3, 0], "Int64"),
        np.array([1, 0, 3, 0], np.longdouble),
        np.array([1, 0, 3, 0], np.float16),
        [decimal.Decimal(value) for value in (1, 0, 3, 0)],
        pd.Categorical([1, 0, 3, 0]),
        ["1", "0", "3.0", "0"],
        pd.array([1, 0, 3, 0], pd.ArrowDtype(pa.int8())),
    ],
)
def test_ratings(ratings):
    assert table(FRAME.assign(rating=ratings)).rating.tolist() == [1, 0, 3, 0]


@pytest.mark.parametrize(
    ("users", "ids"),
    [
        (pd.array(["a", "b", "c", "a"], "string[pyarrow]"), ["a", "b", "c", "a"]),
        ([b"a", b"b", b"c", b"a"], ["a", "b", "c", "a"]),
        ([uuid.UUID(int=number) for number in (1, 2, 3, 1)], [str(uuid.UUID(int=number)) for number in (1, 2, 3, 1)]),
        (pd.arrays.SparseArray([1, 2, 3, 1]), [1, 2, 3, 1]),
        ([1.0, 2.0, 3.0, 1.0], [1, 2, 3, 1]),
        ([-(2**63), 2**63 - 1, 0, 7], [-(2**63), 2**63 - 1, 0, 7]),
        (pd.Categorical(["a", "b", "c", "a"], ordered=True), ["a", "b", "c", "a"]),
    ],
)
def test_ids(users, ids):
    assert table(FRAME.assign(user=users)).user.values.tolist() == ids


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", pd.Series([2**70, 1, 2, 3], dtype=object), "must hold ids that fit in 64 bits"),
        ("user", pd.Series([1, "a", 2, 3], dtype=object), "must hold one type of ids, got mixed types int, str"),
        ("user", pd.cut([1, 2, 3, 1], 2), "column 'user': must hold one type of ids|must hold ids, got values of type"),
        ("user", [(1, 2), (3, 4), (5, 6), (1, 2)], "must hold ids, got values of type list"),
        ("user", [1.0, np.nan, 2, 3], "row 2, column 'user': must be an id, got nothing"),
        ("user", [True, False, True, True], "ids must be integers or strings, got bool"),
        ("rating", np.array([1, 2, 3, 4]) + 0j, r"must hold one type of numbers, got complex .*pd.to_numeric"),
        ("rating", pd.Series([1, "2", 3, 4], dtype=object), "must hold one type of numbers, got mixed types int, str"),
        ("timestamp", pd.to_timedelta([1, 2, 3, 4], unit="s"), "must hold times, got values of type duration"),
        ("timestamp", pd.Series([datetime.date(2020, 1, 1), "3", 4, 5], dtype=object), "must hold one type of times"),
    ],
)
def test_columns_that_cannot_be_read(column, values, message):
    assert re.search(message, error(FRAME.assign(**{column: values})))


def test_names_of_columns():
    assert "got 2 levels such as ('a', 'user'); flatten" in error(
        FRAME.set_axis(pd.MultiIndex.from_product([["a"], FRAME.columns]), axis=1)
    )
    twice = pd.DataFrame([[1, 2, 3, 4]], columns=["user", "user", "item", "rating"])
    assert "different names, got user more than once" in error(twice)
    assert "different names, got 1 more than once" in error(
        pd.DataFrame([[1, 2, 3, 4]], columns=["user", 1, "1", "item"])
    )
    numbered = FRAME.set_axis(range(4), axis=1)
    assert table(numbered, table=TableFormat(user="0", item="1", rating="2", timestamp="")).rating.tolist() == [
        1,
        2,
        3,
        4,
    ]


def test_the_index_of_a_frame_is_no_matter():
    assert table(FRAME.set_axis([0] * 4)).rating.tolist() == [1, 2, 3, 4]


def test_arrow_tables_and_what_hands_them_out():
    arrow = pa.table(FRAME)
    assert table(arrow).rating.tolist() == [1, 2, 3, 4]
    assert "different names" in error(pa.table([[1], [2]], names=["user", "user"]))


@pytest.mark.parametrize("other", [[1, 2], {"user": [1]}, "ratings.csv", np.zeros((2, 3)), FRAME["user"]])
def test_what_is_no_frame(other):
    assert "must be a pandas DataFrame" in error(other)


def test_ratings_of_rows_to_score_are_not_even_converted():
    rows = RatingsDataModule.from_frame(FRAME.assign(rating=pd.Series([1, "x", None, {}], dtype=object))).rows_to_score
    assert rows.user.values.tolist() == [1, 2, 3, 1]
