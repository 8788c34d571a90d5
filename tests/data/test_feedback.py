"""Implicit feedback: rows as interactions whatever their rating, weights, and repeated events."""

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.load import as_implicit
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TRAIN
from cflightning.data.table import RatingTable, merge_duplicates
from cflightning.errors import DataError

ALL_ROWS_TRAIN = SplitOptions(test_fraction=0, val_fraction=0)


@pytest.fixture
def write(tmp_path):
    def write(text, name="events.csv"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def implicit(path, **options):
    return RatingsDataModule(path, **{"feedback": "implicit", "split": ALL_ROWS_TRAIN, **options})


def error(data):
    with pytest.raises(DataError) as caught:
        _ = data.table
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_row_is_an_interaction_and_ratings_are_not_read(write):
    data = implicit(write("user,item,rating\n1,1,5\n1,2,\n2,1,what?\n"))
    assert data.table.rating is None
    assert data.table.frame.values.tolist() == [[1, 1], [1, 2], [2, 1]]
    [batch] = data.train_dataloader()
    assert batch.rating.isnan().all()
    assert sorted(zip(batch.user.tolist(), batch.item.tolist(), strict=True)) == [(1, 1), (1, 2), (2, 1)]
    assert data.training_weights() is None


def test_a_table_without_ratings_suffices(write, tmp_path):
    path = write("user,item\nann,7\nbob,8\n")
    assert len(implicit(path).table) == 2
    message = error(RatingsDataModule(path))
    assert "must have a column for the rating" in message
    assert "--data.feedback implicit" in message
    pd.read_csv(path).to_parquet(tmp_path / "events.parquet")
    assert implicit(str(tmp_path / "events.parquet")).table.frame["user"].tolist() == ["ann", "bob"]
    frame = RatingsDataModule.from_frame(
        pd.read_csv(path), feedback="implicit", split=SplitOptions(test_fraction=0, val_fraction=0)
    )
    assert frame.split.sizes == (2, 0, 0)


def test_rating_statistics_are_refused(write):
    data = implicit(write("user,item,rating\n1,1,5\n1,2,3\n"))
    for question in ("rating_range", "mean_rating"):
        with pytest.raises(DataError, match="must have ratings to train on"):
            getattr(data, question)


def test_rows_rated_below_are_left_out_and_counted(write, caplog):
    path = write("user,item,rating,timestamp\n1,1,4,10\n1,2,3.5,20\n2,1,3.4,30\n2,3,5,40\n")
    data = implicit(path, min_rating=3.5)
    assert data.table.frame.values.tolist() == [[1, 1, 10], [1, 2, 20], [2, 3, 40]]
    assert "1 of 4 rows are rated below 3.5 and left out" in caplog.text
    assert data.num_items == 4  # 1, 2, 3 and the unknown
    assert "must leave a row, got 6, but the highest rating" in error(implicit(path, min_rating=6))
    caplog.clear()
    assert len(implicit(path, min_rating=0).table) == 4
    assert "0 of 4" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rating": 4}, "--data.min_rating: is 4, but ratings"),
        ({"table": {"weight": "plays"}}, "--data.table.weight: is plays, but ratings"),
        ({"feedback": "implicit", "rating_range": (1, 5)}, "--data.rating_range: is given, but"),
        ({"feedback": "implicit", "table": {"weight": "play"}}, "--data.table.weight must name a column, got 'play'"),
        ({"duplicates": "sum"}, "--data.duplicates: must be error, last or mean with ratings"),
    ],
)
def test_options_of_the_other_feedback_are_refused(write, options, message):
    assert message in error(RatingsDataModule(write("user,item,rating,plays\n1,1,5,2\n"), **options))


def test_min_rating_needs_ratings(write):
    assert "must have a column for the rating" in error(implicit(write("user,item\n1,1\n"), min_rating=3))
    bare = RatingTable.from_frame(pd.DataFrame({"user": [1], "item": [1]}), "bare")
    with pytest.raises(DataError, match="bare: must have ratings"):
        as_implicit(bare, 3.0)


def test_sources_without_a_weight_column_are_refused(movielens):
    assert "leave --data.table.user … out" in error(
        implicit(str(movielens("ml-1m")), table=TableFormat(weight="rating"))
    )
    predefined = implicit(
        str(movielens("ml-100k")),
        table=TableFormat(weight="rating"),
        split=SplitOptions(method="predefined", fold="u1"),
    )
    assert "--data.table.weight: is rating, but" in error(predefined)
    assert "has no such column" in error(implicit(None, source="synthetic", table=TableFormat(weight="plays")))


def test_weights_stay_with_their_rows(write):
    path = write("user,item,plays\n1,1,3\n1,2,.5\n2,1,1e3\n3,1,7\n")
    data = implicit(path, table=TableFormat(weight="plays"))
    assert data.table.weight.dtype == np.float32
    assert data.table.weight.tolist() == [3, 0.5, 1000, 7]
    assert data.table.take([2, 0]).weight.tolist() == [1000, 3]
    half = RatingsDataModule(
        path,
        feedback="implicit",
        table=TableFormat(weight="plays"),
        split=SplitOptions(test_fraction=0.25, val_fraction=0.34),
    )
    users, items = half.training_pairs()
    known = {(1, 1): 3, (1, 2): 0.5, (2, 1): 1000, (3, 1): 7}
    ids = zip(half.vocabulary.users.values[users - 1].tolist(), half.vocabulary.items.values[items - 1].tolist(),
              strict=True)  # fmt: skip
    assert [known[pair] for pair in ids] == half.training_weights().tolist()
    assert len(half.training_weights()) == half.split.sizes[TRAIN] == 2
    rated = implicit(write("user,item,rating\n1,1,3\n1,2,.5\n", "rated.csv"), table=TableFormat(weight="rating"))
    assert rated.table.weight.tolist() == [3, 0.5]
    assert rated.table.rating is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("many", "column 'weight': must be a finite number, got 'many'"),
        ("nan", "must be a finite number"),
        ("inf", "must be a finite number"),
        ("", "must be a number, got nothing"),
        ("0", "must be above 0, got '0'"),
        ("-1", "must be above 0, got '-1'"),
        ("1e-60", "must be above 0"),  # it is 0 as a float32
    ],
)
def test_invalid_weights_are_refused(write, value, message):
    found = error(
        implicit(write(f"user,item,plays\n1,1,3\n1,2,{value}\n2,2,{value}\n"), table=TableFormat(weight="plays"))
    )
    assert "line 3, column 'weight'" in found
    assert message in found
    assert "and 1 more such row" in found


def test_weights_must_be_numbers(tmp_path):
    pd.DataFrame({"user": [1], "item": [1], "plays": [True]}).to_parquet(tmp_path / "a.parquet")
    assert "weights must be numbers, got bool" in error(
        implicit(str(tmp_path / "a.parquet"), table=TableFormat(weight="plays"))
    )


EVENTS = "user,item,plays,timestamp\n1,1,3,50\n1,2,1,1\n1,1,2,10\n2,1,4,1\n1,1,1,20\n"


def test_repeated_events_are_merged(write):
    once = implicit(write(EVENTS)).table
    assert once.unique
    assert once.frame.values.tolist() == [[1, 1, 50], [1, 2, 1], [2, 1, 1]]  # the newest time of each
    summed = implicit(write(EVENTS), table=TableFormat(weight="plays")).table
    assert summed.weight.tolist() == [6, 1, 4]
    assert summed.weight.dtype == np.float32
    for policy, expected in (("last", [3, 1, 4]), ("mean", [2, 1, 4]), ("sum", [6, 1, 4])):
        assert (
            implicit(write(EVENTS), duplicates=policy, table=TableFormat(weight="plays")).table.weight.tolist()
            == expected
        )
        assert len(implicit(write(EVENTS), duplicates=policy).table) == 3
    message = error(implicit(write(EVENTS), duplicates="error"))
    assert "got 2 repeated (row 3: user 1, item 1; row 5: user 1, item 1)" in message
    assert "sum (count them once)" in message


def test_repeated_ratings_are_refused(write):
    assert "got 1 repeated" in error(RatingsDataModule(write("user,item,rating\n1,1,5\n1,1,4\n")))


def test_weights_of_test_rows_are_not_added_to_training_rows():
    train = RatingTable.from_frame(
        pd.DataFrame({"user": [1, 1, 1, 2], "item": [1, 2, 2, 1], "weight": [1.0, 2, 4, 8]}), "train"
    )
    test = RatingTable.from_frame(pd.DataFrame({"user": [1, 2, 2], "item": [1, 2, 2], "weight": [16.0, 32, 64]}), "t")
    merged = merge_duplicates(train.append(test, "both"), "sum")
    assert merged.frame.values.tolist() == [[1, 2, 6], [2, 1, 8], [1, 1, 16], [2, 2, 96]]
    assert merged.test_rows.tolist() == [False, False, True, True]
    bare = RatingTable.from_frame(test.frame.drop(columns="weight"), "bare")
    assert train.append(bare, "both").weight is None


def test_weights_are_cached(write, tmp_path, monkeypatch):
    from cflightning.data.sources import columns_cache

    monkeypatch.setattr(columns_cache, "SMALLEST", 1)
    monkeypatch.setenv("CFLIGHTNING_CACHE", str(tmp_path / "cache"))
    path = write("user,item,plays,skips\n1,1,3,1\n1,2,2,4\n")
    for _ in range(2):
        assert implicit(path, table=TableFormat(weight="plays")).table.weight.tolist() == [3, 2]
        assert implicit(path, table=TableFormat(weight="skips")).table.weight.tolist() == [1, 4]
        assert implicit(path).table.weight is None
    assert len(list((tmp_path / "cache" / "columns").iterdir())) == 3


def test_scoring_needs_no_weights(write):
    assert len(implicit(write("user,item\n1,1\n1,1\n"), table=TableFormat(weight="plays")).rows_to_score) == 2
