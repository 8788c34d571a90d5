"""Splits: disjoint, complete, reproducible, and true to their method."""

import numpy as np
import pandas as pd
import pytest

from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import FOLD_IN, TEST, TRAIN, VAL, split_table
from cflightning.data.table import RatingTable
from cflightning.errors import DataError


def make(n=1000, users=30, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"user": rng.integers(users, size=n), "item": np.arange(n), "rating": np.float32(1),
                          "timestamp": rng.integers(200, size=n)})  # fmt: skip
    return RatingTable.from_frame(frame, "synthetic", **kwargs)


METHODS = [{"method": "random"}, {"method": "hash"}, {"method": "time"}, {"method": "leave_last"},
           {"method": "per_user"}, {"method": "kfold", "fold": 2}, {"method": "predefined"}]  # fmt: skip


@pytest.mark.parametrize("options", METHODS)
def test_parts_are_disjoint_complete_and_reproducible(options):
    table = make(test_rows=np.arange(1000) % 7 == 0)
    split = split_table(table, SplitOptions(**options, val_fraction=0.05))
    parts = split.train, split.val, split.test
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert all(len(part) for part in parts)
    assert split.sizes == tuple(map(len, parts))
    again = split_table(make(test_rows=np.arange(1000) % 7 == 0), SplitOptions(**options, val_fraction=0.05))
    np.testing.assert_array_equal(split.parts, again.parts)


def test_chunks_are_the_parts():
    split = split_table(make(), SplitOptions("random", val_fraction=0.05))
    for number, part in enumerate((split.train, split.val, split.test)):
        chunks = list(split.chunks(number, chunk=64))
        assert len(chunks) == 16
        np.testing.assert_array_equal(np.concatenate(chunks), part)


@pytest.mark.parametrize("options", [o for o in METHODS if o["method"] in {"random", "hash", "per_user", "kfold"}])
def test_another_seed_gives_another_split(options):
    a, b = (split_table(make(), SplitOptions(**options, seed=seed)).test for seed in (1, 2))
    assert not np.array_equal(a, b)


def test_random_is_the_published_protocol():
    # ml1m-90 of the literature: p = default_rng(42).permutation(n), test = p[:n // 10].
    n = 1009
    expected = np.sort(np.random.default_rng(42).permutation(n)[: n // 10])
    np.testing.assert_array_equal(split_table(make(n), SplitOptions("random", seed=42)).test, expected)


@pytest.mark.parametrize("options", METHODS)
def test_without_a_val_fraction_few_rows_do_not_validate(options):
    table = make(test_rows=np.arange(1000) % 7 == 0)
    split, requested = (
        split_table(table, SplitOptions(**options)),
        split_table(table, SplitOptions(**options, val_fraction=0.05)),
    )
    assert split.sizes[1] == 0
    assert 0 < requested.sizes[1] < 500
    np.testing.assert_array_equal(split.test, requested.test)


def test_without_a_val_fraction_enough_rows_validate():
    sizes = [split_table(make(n), SplitOptions("random", test_fraction=0.1)).sizes[1] for n in (11_110, 11_111)]
    assert sizes == [0, 500]


def test_fractions_do_not_lose_a_row_to_rounding():
    assert len(split_table(make(100), SplitOptions("random", test_fraction=0.29, val_fraction=0)).test) == 29


def test_time_has_one_cut_for_all_users_and_keeps_equal_times_together():
    table = make()
    time = table.frame["timestamp"].to_numpy()
    split = split_table(table, SplitOptions("time", test_fraction=0.2, val_fraction=0.1))
    assert time[split.train].max() < time[split.val].min()
    assert time[split.val].max() < time[split.test].min()
    assert 0.15 < len(split.test) / 1000 <= 0.2


def test_leave_last_holds_out_the_newest_of_each_user():
    frame = pd.DataFrame({"user": [1] * 5 + [2] * 2 + [3] * 4, "item": range(11), "rating": np.float32(1),
                          "timestamp": [5, 1, 9, 9, 2, 1, 2, 4, 3, 2, 1]})  # fmt: skip
    split = split_table(RatingTable.from_frame(frame, "t"), SplitOptions("leave_last", val_fraction=0.1))
    assert split.test.tolist() == [3, 7]  # the later row among equal times; user 2 has too few
    assert split.val.tolist() == [2, 8]
    two = split_table(RatingTable.from_frame(frame, "t"), SplitOptions("leave_last", leave_n=2, val_fraction=0))
    assert two.test.tolist() == [2, 3, 7, 8]


def test_per_user_holds_out_a_share_of_each_user_and_leaves_one_row():
    table = make(2000)
    split = split_table(table, SplitOptions("per_user", test_fraction=0.25, val_fraction=0))
    users = table.frame["user"].to_numpy()
    share = np.bincount(users[split.test]) / np.bincount(users)
    assert np.abs(share - 0.25).max() < 0.02
    single = RatingTable.from_frame(pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": np.float32(1)}), "t")
    assert len(split_table(single, SplitOptions("per_user", test_fraction=0.9, val_fraction=0)).test) == 0


def test_per_user_draws_each_users_rows_evenly():
    counts = np.zeros(200)
    for seed in range(100):
        counts[
            split_table(make(200, users=4), SplitOptions("per_user", test_fraction=0.3, val_fraction=0, seed=seed)).test
        ] += 1
    assert abs(counts.mean() / 100 - 0.3) < 0.01
    assert counts.min() > 10 and counts.max() < 52  # five standard deviations of 100 draws


def test_leave_last_breaks_ties_by_position():
    frame = pd.DataFrame({"user": np.arange(300) % 7, "item": np.arange(300), "rating": np.float32(1),
                          "timestamp": np.arange(300) // 100})  # fmt: skip
    split = split_table(RatingTable.from_frame(frame, "t"), SplitOptions("leave_last", leave_n=3, val_fraction=0.1))
    for user in range(7):
        rows = np.flatnonzero(frame["user"] == user)
        assert split.test[np.isin(split.test, rows)].tolist() == rows[-3:].tolist()
        assert split.val[np.isin(split.val, rows)].tolist() == rows[-6:-3].tolist()


VAL_METHODS = ["random", "hash", "time", "leave_last", "per_user"]


@pytest.mark.parametrize("val_method", VAL_METHODS)
@pytest.mark.parametrize("options", METHODS)
def test_the_validation_part_may_have_another_method(options, val_method):
    table = make(test_rows=np.arange(1000) % 7 == 0)
    same, split = (
        split_table(table, SplitOptions(**options, val_fraction=0.2, val_method=how)) for how in ("same", val_method)
    )
    np.testing.assert_array_equal(split.test, same.test)  # the test part is the same
    frame = table.frame
    left, val = frame.drop(index=split.test), frame.iloc[split.val]
    if val_method == "time":
        assert frame["timestamp"].iloc[split.train].max() < val["timestamp"].min()
    elif val_method == "leave_last":
        newest = left.reset_index().sort_values(["user", "timestamp", "index"]).groupby("user").tail(1)
        assert sorted(newest["index"]) == split.val.tolist()
    elif val_method == "per_user":
        share = val.groupby("user").size() / left.groupby("user").size()
        assert (share - 0.2).abs().max() < 0.05
    elif val_method == "hash":
        assert abs(len(val) / len(left) - 0.2) < 0.05
    else:
        assert len(val) == int(len(left) * 0.2)
    if val_method == options["method"] or (val_method == "random" and options["method"] in {"predefined", "kfold"}):
        np.testing.assert_array_equal(split.parts, same.parts)


@pytest.mark.parametrize(
    ("test_users", "val_users", "expected"),
    [(5, 3.0, (5, 3)), (0.1, 0.2, (3, 6)), (7, 0.1, (7, 3)), (None, None, (3, 1))],
)
def test_held_out_users_do_not_train(test_users, val_users, expected):
    table = make()
    split = split_table(table, SplitOptions("users", test_users=test_users, val_users=val_users, holdout_fraction=0.25))
    users = table.frame["user"].to_numpy()
    train, val, test, given = (set(users[split.parts == part].tolist()) for part in (TRAIN, VAL, TEST, FOLD_IN))
    assert (len(test), len(val)) == expected
    assert given == val | test
    assert len(train) + len(val) + len(test) == 30
    assert not (train & given or val & test)
    for user in given:
        out = (users == user) & np.isin(split.parts, (VAL, TEST))
        assert out.sum() == int((users == user).sum() * 0.25 + 0.5)
    assert len(split.train) + len(split.val) + len(split.test) + len(split.fold_in) == 1000
    again = split_table(
        make(), SplitOptions("users", test_users=test_users, val_users=val_users, holdout_fraction=0.25)
    )
    np.testing.assert_array_equal(again.parts, split.parts)
    other = split_table(
        table, SplitOptions("users", test_users=test_users, val_users=val_users, holdout_fraction=0.25, seed=7)
    )
    assert not np.array_equal(other.parts, split.parts)


def test_validation_users_do_not_change_the_test_users():
    one, two = (split_table(make(), SplitOptions("users", test_users=4, val_users=val)) for val in (2, 9))
    np.testing.assert_array_equal(one.test, two.test)
    none = split_table(make(), SplitOptions("users", test_users=4, val_users=9, val_fraction=0))
    np.testing.assert_array_equal(one.test, none.test)
    assert not len(none.val)


def test_users_are_held_out_only_with_a_fold_in_row():
    frame = pd.DataFrame({"user": [1, 2, 2, 3, 3, 3, 4, 4], "item": range(8), "rating": np.float32(1)})
    table = RatingTable.from_frame(frame, "t")
    split = split_table(table, SplitOptions("users", test_users=2, val_fraction=0, holdout_fraction=0.01))
    assert np.bincount(table.user.codes[split.test]).max() == 1  # at least one of each
    assert len(split.test) == 2
    split = split_table(table, SplitOptions("users", test_users=2, val_fraction=0, holdout_fraction=0.99))
    assert split.parts[0] == TRAIN  # user 1 has one row
    for user in np.unique(table.user.codes[split.test]):
        assert (split.parts[table.user.codes == user] == FOLD_IN).sum() == 1
    with pytest.raises(DataError, match=r"must have 4 users of two rows or more .*got 3; hold out fewer"):
        split_table(table, SplitOptions("users", test_users=4, val_fraction=0))
    full = RatingTable.from_frame(frame[1:], "t")
    with pytest.raises(DataError, match="must have a row to train on"):
        split_table(full, SplitOptions("users", test_users=3, val_fraction=0))
    with pytest.raises(DataError, match="validation part is empty"):
        split_table(table, SplitOptions("users", test_users=1, val_users=0))


def test_kfold_tests_partition_the_table():
    tests = [split_table(make(103), SplitOptions("kfold", fold=fold, folds=4)).test for fold in (1, 2, 3, 4)]
    assert sorted(np.concatenate(tests).tolist()) == list(range(103))
    assert {len(test) for test in tests} <= {25, 26}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "kfold"}, "must be 1 to 5"),
        ({"method": "kfold", "fold": 6}, "got 6"),
        ({"method": "kfold", "fold": 0}, "got 0"),
        ({"method": "predefined"}, "--data.split.fold u1"),
        ({"method": "random", "test_fraction": 1.0}, "below 1"),
        ({"method": "random", "val_fraction": -0.1}, "at least 0"),
        ({"method": "random", "test_fraction": float("nan")}, "got nan"),
        ({"method": "random", "test_fraction": 0.5, "val_fraction": 0.0001}, "validation part is empty"),
        ({"method": "random", "val_method": "kfold"}, "val_method: must be one of same"),
        (
            {"method": "random", "test_users": 3},
            "--data.split.test_users: is 3, but --data.split.method random has none",
        ),
        ({"method": "time", "val_users": 0.5}, "--data.split.val_users: is 0.5, but --data.split.method time has none"),
        (
            {"method": "users", "val_method": "random"},
            "--data.split.val_method: must be same with --data.split.method users",
        ),
        (
            {"method": "users", "test_users": 2.5},
            "test_users: must be a share below 1 or a whole number of users",
        ),
        ({"method": "users", "test_users": float("inf")}, "must be a finite number, got inf"),
        ({"method": "users", "test_users": -1}, "got -1"),
        ({"method": "users", "val_users": float("nan")}, "got nan"),
        ({"method": "users", "holdout_fraction": 0}, "holdout_fraction: must be above 0 and below 1, got 0"),
        ({"method": "users", "holdout_fraction": 1.0}, "got 1"),
    ],
)
def test_contradictory_options_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        split_table(make(), SplitOptions(**options))


def test_time_needs_timestamps():
    table = make()
    bare = RatingTable.from_frame(table.frame.drop(columns="timestamp"), "bare")
    for method in ("time", "leave_last"):
        with pytest.raises(DataError, match="needs timestamps"):
            split_table(bare, SplitOptions(method))
        with pytest.raises(DataError, match=f"--data.split.val_method {method} needs timestamps"):
            split_table(bare, SplitOptions("random", val_method=method))


def test_a_split_without_training_rows_is_refused():
    with pytest.raises(DataError, match="must have a row to train on"):
        split_table(make(3, test_rows=np.array([True, True, True])), SplitOptions("predefined", val_fraction=0))
    one = make(1)
    assert split_table(one, SplitOptions("random", val_fraction=0)).train.tolist() == [0]
