"""Splits: disjoint, complete, the same for the same seed, and what their names say."""

import numpy as np
import pandas as pd
import pytest

from cflightning.data.split import split_table
from cflightning.data.table import RatingTable
from cflightning.errors import DataError


def make(n=1000, users=30, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"user": rng.integers(users, size=n), "item": np.arange(n), "rating": np.float32(1),
                          "timestamp": rng.integers(200, size=n)})  # fmt: skip
    return RatingTable.from_frame(frame, "made up", **kwargs)


METHODS = [{"method": "random"}, {"method": "time"}, {"method": "leave_last"}, {"method": "per_user"},
           {"method": "kfold", "fold": 2}, {"method": "predefined"}]  # fmt: skip


@pytest.mark.parametrize("options", METHODS)
def test_parts_are_disjoint_complete_and_reproducible(options):
    table = make(test_rows=np.arange(1000) % 7 == 0)
    split = split_table(table, **options)
    parts = split.train, split.val, split.test
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert all(len(part) for part in parts)
    assert split.sizes == tuple(map(len, parts))
    again = split_table(make(test_rows=np.arange(1000) % 7 == 0), **options)
    np.testing.assert_array_equal(split.parts, again.parts)


def test_chunks_are_the_parts(monkeypatch):
    monkeypatch.setattr("cflightning.data.split.CHUNK", 64)
    split = split_table(make(), "random")
    for number, part in enumerate((split.train, split.val, split.test)):
        chunks = list(split.chunks(number))
        assert len(chunks) == 16
        np.testing.assert_array_equal(np.concatenate(chunks), part)


@pytest.mark.parametrize("options", [o for o in METHODS if o["method"] in {"random", "per_user", "kfold"}])
def test_another_seed_cuts_otherwise(options):
    a, b = (split_table(make(), **options, seed=seed).test for seed in (1, 2))
    assert not np.array_equal(a, b)


def test_random_is_the_published_protocol():
    # ml1m-90 of the literature: p = default_rng(42).permutation(n), test = p[:n // 10].
    n = 1009
    expected = np.sort(np.random.default_rng(42).permutation(n)[: n // 10])
    np.testing.assert_array_equal(split_table(make(n), "random", seed=42).test, expected)


@pytest.mark.parametrize("options", METHODS)
def test_where_few_rows_would_validate_all_train_unless_they_are_asked_for(few, options):
    assert few == 500
    table = make(test_rows=np.arange(1000) % 7 == 0)
    split, asked = split_table(table, **options), split_table(table, **options, val_fraction=0.05)
    assert split.sizes[1] == 0
    assert 0 < asked.sizes[1] < few
    np.testing.assert_array_equal(split.test, asked.test)


def test_enough_rows_validate(few):
    sizes = [split_table(make(n), "random", test_fraction=0.1).sizes[1] for n in (11_110, 11_111)]
    assert sizes == [0, 500]


def test_fractions_do_not_lose_a_row_to_rounding():
    assert len(split_table(make(100), "random", test_fraction=0.29, val_fraction=0).test) == 29


def test_time_cuts_once_and_never_inside_an_instant():
    table = make()
    time = table.frame["timestamp"].to_numpy()
    split = split_table(table, "time", test_fraction=0.2, val_fraction=0.1)
    assert time[split.train].max() < time[split.val].min()
    assert time[split.val].max() < time[split.test].min()
    assert 0.15 < len(split.test) / 1000 <= 0.2


def test_leave_last_takes_the_newest_of_each_user():
    frame = pd.DataFrame({"user": [1] * 5 + [2] * 2 + [3] * 4, "item": range(11), "rating": np.float32(1),
                          "timestamp": [5, 1, 9, 9, 2, 1, 2, 4, 3, 2, 1]})  # fmt: skip
    split = split_table(RatingTable.from_frame(frame, "t"), "leave_last", val_fraction=0.1)
    assert split.test.tolist() == [3, 7]  # of equal times the later row; user 2 is too short
    assert split.val.tolist() == [2, 8]
    two = split_table(RatingTable.from_frame(frame, "t"), "leave_last", leave_n=2, val_fraction=0)
    assert two.test.tolist() == [2, 3, 7, 8]


def test_per_user_takes_a_share_of_each_and_leaves_one():
    table = make(2000)
    split = split_table(table, "per_user", test_fraction=0.25, val_fraction=0)
    users = table.frame["user"].to_numpy()
    share = np.bincount(users[split.test]) / np.bincount(users)
    assert np.abs(share - 0.25).max() < 0.02
    single = RatingTable.from_frame(pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": np.float32(1)}), "t")
    assert len(split_table(single, "per_user", test_fraction=0.9, val_fraction=0).test) == 0


def test_kfold_tests_partition_the_table():
    tests = [split_table(make(103), "kfold", fold=fold, folds=4).test for fold in (1, 2, 3, 4)]
    assert sorted(np.concatenate(tests).tolist()) == list(range(103))
    assert {len(test) for test in tests} <= {25, 26}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "kfold"}, "must be 1 to 5"),
        ({"method": "kfold", "fold": 6}, "got 6"),
        ({"method": "kfold", "fold": 0}, "got 0"),
        ({"method": "predefined"}, "--data.fold u1"),
        ({"method": "random", "test_fraction": 1.0}, "below 1"),
        ({"method": "random", "val_fraction": -0.1}, "at least 0"),
        ({"method": "random", "test_fraction": float("nan")}, "got nan"),
        ({"method": "random", "test_fraction": 0.5, "val_fraction": 0.0001}, "validation part is empty"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(DataError, match=message):
        split_table(make(), **options)


def test_time_needs_timestamps():
    table = make()
    bare = RatingTable.from_frame(table.frame.drop(columns="timestamp"), "bare")
    for method in ("time", "leave_last"):
        with pytest.raises(DataError, match="needs timestamps"):
            split_table(bare, method)


def test_no_row_left_to_train():
    with pytest.raises(DataError, match="no row is left"):
        split_table(make(3, test_rows=np.array([True, True, True])), "predefined", val_fraction=0)
    one = make(1)
    assert split_table(one, "random", val_fraction=0).train.tolist() == [0]
