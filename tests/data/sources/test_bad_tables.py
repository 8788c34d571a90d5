"""A bad table gets one clear error: file, line, column, value, count, remedy."""

import re

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import DataError


def error(path, **options):
    with pytest.raises(DataError) as caught:
        _ = RatingsDataModule(str(path), **options).split
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.fixture
def table(tmp_path):
    def write(text, name="ratings_of_mine.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


ROWS = "".join(f"{u},{i},3\n" for u in range(10) for i in range(5))


def test_missing_column(table):
    message = error(table("user,film,rating\n1,2,3\n"))
    assert "column for the item" in message
    assert "'user', 'film', 'rating'" in message
    assert "--data.table.item" in message


def test_named_column_that_is_not_there(table):
    assert "--data.table.item must name a column, got 'x'; the columns are user, item, rating" in error(
        table("user,item,rating\n1,2,3\n"), table=TableFormat(item="x")
    )


@pytest.mark.parametrize("bad", ["good", "1e39", "nan", "NaN", "inf", "1_0", "1,000", "0x1"])
def test_rating_that_is_no_number(table, bad):
    cell = f'"{bad}"'
    path = table(f"user,item,rating\n{ROWS}\n91,1,{cell}\n92,1,2\n93,1,{cell}\n")
    message = error(path)
    assert message.startswith(f"{path}: line 53, column 'rating'")  # the empty line counts as a line, not as a row
    assert repr(bad) in message
    assert "and 1 more such row" in message
    assert "correct or remove" in message


def test_missing_values(table):
    assert "line 3, column 'rating': must be a number, got nothing" in error(table("user,item,rating\n1,2,3\n2,2,\n"))
    assert "line 2, column 'user': must be an id, got nothing" in error(table("user,item,rating\n,2,3\n2,2,1\n"))


def test_rating_outside_the_given_range(table):
    message = error(table(f"user,item,rating\n{ROWS}90,1,7\n91,2,-1\n"), rating_range=(1, 5))
    assert "must lie in the given range 1 to 5, got 2 outside it" in message
    assert "user 90, item 1, rating 7; row 52" in message
    assert "--data.rating_range" in message


@pytest.mark.parametrize("text", ["", "\n\n", "user,item,rating\n"])
def test_empty_file(table, text):
    path = table(text)
    message = error(path)
    assert str(path) in message
    assert "empty file" in message or "at least one row" in message


def test_duplicates_and_their_policies(table):
    path = table(
        f"user,item,rating,timestamp\n{ROWS.replace('3', '3,10').replace('33,10', '33')}".replace("3,10,", "3,")
    )
    path.write_text("user,item,rating,timestamp\n1,1,4,20\n1,2,3,1\n1,1,1,10\n2,1,5,1\n2,2,5,1\n1,1,2,15\n")
    message = error(path)
    assert "got 2 repeated (row 3: user 1, item 1, rating 1; row 6: user 1, item 1, rating 2)" in message
    assert "--data.duplicates last" in message
    last = RatingsDataModule(str(path), duplicates="last").table.frame
    assert last.values.tolist() == [[1, 1, 4, 20], [1, 2, 3, 1], [2, 1, 5, 1], [2, 2, 5, 1]]  # newest, not lowest
    mean = RatingsDataModule(str(path), duplicates="mean").table.frame
    assert mean["rating"].tolist() == pytest.approx([7 / 3, 3, 5, 5])
    assert mean["timestamp"].tolist() == [20, 1, 1, 1]


def test_truncated_zip(movielens, tmp_path):
    whole = movielens("ml-1m", zipped=True).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    message = error(tmp_path / "cut.zip")
    assert "cut.zip: must be a zip file" in message
    assert "download it again" in message


def test_zip_with_a_damaged_member(movielens, tmp_path):
    whole = bytearray(movielens("ml-1m", zipped=True).read_bytes())
    at = whole.index(b"ratings.dat") + 100
    whole[at : at + 20] = bytes(20)
    (tmp_path / "damaged.zip").write_bytes(whole)
    assert "damaged" in error(tmp_path / "damaged.zip")


def test_wrong_delimiter(table):
    path = table("user;item;rating\n1;2;3\n")
    assert "give --data.table.delimiter" in error(path, table=TableFormat(delimiter=","))
    assert "must be one character" in error(path, table=TableFormat(delimiter="<>"))


def test_rows_of_different_lengths(table):
    path = table("user,item,rating\n1,2,3\n1,2\n1,3,4,5\n")
    message = error(path)
    assert re.search(r"line 3: must have 3 values like the first line, got 2 \('1,2'; 2 such lines", message)


def test_no_header(table):
    message = error(table("1,2,3\n4,5,1\n"))
    assert "must have a header line" in message
    assert "--data.table.column_names" in message


def test_mixed_id_types(table):
    frame = pd.DataFrame({"user": [1, "a", 2], "item": [1, 2, 3], "rating": [1, 2, 3]})
    with pytest.raises(DataError, match=r"column 'user': must hold one type .*got mixed types int, str"):
        _ = RatingsDataModule.from_frame(frame).table
    message = error(table("user,item,rating\n7,1,1\n8.5,2,2\n"))
    assert "line 3, column 'user': ids must be integers or strings" in message
    assert "'8.5'" in message
    train = table("user,item,rating\n1,2,3\n2,3,4\n3,3,3\n", "train.csv")
    test = table("user,item,rating\na,2,3\n", "test.csv")
    assert "mixed id types" in error(
        train, test_path=str(test), split=SplitOptions(method="predefined", val_fraction=0)
    )


def test_float_and_bool_ids(tmp_path):
    for values in ([1.5, 2.0], [True, False], [1e300, 2.0]):
        pd.DataFrame({"user": values, "item": [1, 2], "rating": [1, 2]}).to_parquet(tmp_path / "a.parquet")
        assert "ids must be integers or strings" in error(tmp_path / "a.parquet")
    pd.DataFrame({"user": np.array([2**63, 1], np.uint64), "item": [1, 2], "rating": [1, 2]}).to_parquet(
        tmp_path / "b.parquet"
    )
    assert "fit in 64 bits" in error(tmp_path / "b.parquet")


def test_bad_timestamp(table):
    message = error(table("user,item,rating,timestamp\n1,1,1,2020-01-01\n1,2,1,yesterday\n"))
    assert "line 3, column 'timestamp'" in message
    assert "'yesterday'" in message


def test_paths_that_hold_nothing(tmp_path):
    assert "does not exist" in error(tmp_path / "nothing.csv")
    assert "must hold a MovieLens data set" in error(tmp_path)
    (tmp_path / "a.parquet").write_text("no parquet")
    assert "must be a Parquet file" in error(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="--data.path: must name the table"):
        _ = RatingsDataModule(source="table").table
    with pytest.raises(DataError, match=r"^source: must be one of .*got 'netflix'"):
        _ = RatingsDataModule(source="netflix").table


def test_table_without_ratings_cannot_train(table):
    assert "column for the rating" in error(table("user,item\n1,2\n"))


def test_bad_sizes():
    with pytest.raises(DataError, match="batch_size: must be at least 1, got 0"):
        _ = RatingsDataModule(batch_size=0).table


@pytest.mark.parametrize("policy", ["last", "mean"])
def test_no_test_rating_reaches_a_training_row(table, policy):
    train = table("user,item,rating,timestamp\n1,1,1,10\n1,2,2,20\n2,1,3,30\n2,2,4,40\n2,2,2,41\n", "train.csv")
    test = table("user,item,rating,timestamp\n1,1,5,5\n2,2,5,70\n2,2,1,71\n", "test.csv")
    data = RatingsDataModule(
        str(train), test_path=str(test), duplicates=policy, split=SplitOptions(method="predefined", val_fraction=0)
    )
    frame = data.table.frame[["user", "item", "rating"]]
    assert frame.iloc[data.split.train].values.tolist() == [[1, 2, 2], [2, 1, 3]]
    assert frame.iloc[data.split.test].values.tolist() == [[1, 1, 5], [2, 2, 1 if policy == "last" else 3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duplicates": "first"}, "duplicates: must be one of error, last"),
        ({"split": "bogus"}, "method: must be one of random"),
        ({"split": {"fold": 3}}, "--data.split.fold: is 3, but --data.split.method random has none"),
        ({"rating_range": (0, float("inf"))}, "must be finite"),
        ({"split": {"seed": -1}}, "seed: must not be negative"),
        ({"table": {"delimiter": "é"}}, "must be one"),
    ],
)
def test_options_that_cannot_be(table, options, message):
    assert message in error(table(f"user,item,rating\n{ROWS}"), **options)


def test_synthetic_options():
    with pytest.raises(DataError, match=r"--data.synthetic: .*bogus"):
        _ = RatingsDataModule(source="synthetic", synthetic={"bogus": 3}).table
    with pytest.raises(DataError, match="synthetic reads nothing"):
        _ = RatingsDataModule("x.csv", source="synthetic").table


def test_columns_of_one_name(table):
    assert "user more than once" in error(table("user,user,item,rating\n1,2,3,4\n"))
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["user", "user", "item", "rating"])
    with pytest.raises(DataError, match="different names"):
        _ = RatingsDataModule.from_frame(frame).table


def test_line_numbers_behind_line_breaks_in_quotes(table):
    path = table('user,item,rating,text\n1,2,3,"a\nb ""c""\n"\n1,3,x,d\n')
    assert error(path).startswith(f"{path}: line 5, column 'rating'")


@pytest.mark.parametrize("time", ["nan", "inf", "1e30"])
def test_times_that_are_none(table, time):
    assert "must be seconds since 1970" in error(table(f"user,item,rating,timestamp\n1,2,3,4.5\n1,3,2,{time}\n"))


def test_encrypted_zip(movielens, tmp_path):
    whole = bytearray(movielens("ml-1m", zipped=True).read_bytes())
    for at in (i for i in range(len(whole) - 4) if whole[i : i + 4] in (b"PK\x03\x04", b"PK\x01\x02")):
        whole[at + (6 if whole[at + 2] == 3 else 8)] |= 1  # the flag of encryption
    (tmp_path / "secret.zip").write_bytes(whole)
    assert "cannot be unpacked" in error(tmp_path / "secret.zip")
