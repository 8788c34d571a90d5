"""Folders that bring a test part of their own, and candidates to rank it among."""

import gzip
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning import RatingsDataModule
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TEST, TRAIN, VAL
from cflightning.errors import DataError


def folder(tmp_path, **files):
    """A folder of files; `_` of a name stands for a dot."""
    made = tmp_path / "set"
    made.mkdir(exist_ok=True)
    for name, text in files.items():
        (made / name.replace("_", ".")).write_text(text)
    return made


def error(path, question="split", **options):
    with pytest.raises(DataError) as caught:
        getattr(RatingsDataModule(str(path), **{"split": SplitOptions(val_fraction=0), **options}), question)
    message = str(caught.value)
    assert "\n" not in message
    return message


TRAIN_ROWS = "user\titem\trating\ttimestamp\n" + "".join(f"{u}\t{i}\t{1 + i % 5}\t{u * 10 + i}\n"
                                                         for u in range(3) for i in range(6))  # fmt: skip
TEST_ROWS = "0\t8\t4\t100\n1\t6\t5\t101\n2\t7\t3\t102\n"
EVERY_ITEM = "3\t6\t5\t1\n3\t7\t5\t2\n3\t8\t5\t3\n3\t9\t5\t4\n"
NEGATIVES = "(0,8)\t6\t7\t8\t9\n(1,6)\t9\t7\t9\t8\n(2,7)\t6\t8\t9\t6\n"


@pytest.fixture
def leave_one_out(tmp_path):
    """A folder as that of NCF; the parts can be replaced."""

    def make(**files):
        own = {"a_train_rating": (TRAIN_ROWS + EVERY_ITEM).split("\n", 1)[1], "a_test_rating": TEST_ROWS,
               "a_test_negative": NEGATIVES}  # fmt: skip
        return folder(tmp_path, **(own | files))

    return make


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "csv.gz"])
def test_train_and_test_table(tmp_path, ending):
    train = pd.DataFrame({"user": [1, 1, 2, 3], "item": ["a", "b", "a", "c"]})
    test = pd.DataFrame({"user": [2, 4], "item": ["b", "d"]})
    for name, frame in (("train", train), ("test", test)):
        if ending == "parquet":
            frame.to_parquet(tmp_path / f"{name}.parquet")
        else:
            frame.to_csv(tmp_path / f"{name}.{ending}", index=False, sep="\t" if ending == "tsv" else ",")
    (tmp_path / "README.md").write_text("test. and train.")
    data = RatingsDataModule(str(tmp_path), feedback="implicit", split=SplitOptions(val_fraction=0))
    assert data.split_method == "predefined"
    assert data.split.sizes == (4, 0, 2)
    assert data.table.frame.iloc[data.split.test].values.tolist() == [[2, "b"], [4, "d"]]
    assert data.candidates is None
    assert len(data.rows_to_score) == 6
    other = RatingsDataModule(
        str(tmp_path), feedback="implicit", split=SplitOptions(method="random", test_fraction=0.5, val_fraction=0)
    )
    assert other.split.sizes == (3, 0, 3)


def test_a_test_table_is_the_natural_split(tmp_path):
    made = folder(tmp_path, a_csv="user,item,rating\n1,1,2\n1,2,3\n", b_csv="user,item,rating\n2,1,5\n")
    data = RatingsDataModule(str(made / "a.csv"), test_path=str(made / "b.csv"), split=SplitOptions(val_fraction=0))
    assert data.split_method == "predefined"
    assert data.split.sizes == (2, 0, 1)
    assert RatingsDataModule(str(made / "a.csv")).split_method == "random"
    assert "test_path: must be left out with split.method random" in error(
        made / "a.csv", test_path=str(made / "b.csv"), split=SplitOptions(method="random")
    )


def test_movielens_comes_first(movielens):
    path = movielens("ml-latest-small")
    (path / "train.csv").write_text("nonsense")
    assert len(RatingsDataModule(str(path)).table) == 150
    (path / "train.csv").unlink()


def test_leave_one_out(leave_one_out, caplog):
    path = leave_one_out()
    data = RatingsDataModule(str(path), split=SplitOptions(val_fraction=0))
    assert data.split.sizes == (22, 0, 3)
    assert data.table.ratings[data.split.test].tolist() == [4, 5, 3]
    assert data.table.timestamp[data.split.test].tolist() == [100, 101, 102]
    found = data.candidates
    assert found.user.dtype == found.item.dtype == torch.int64
    assert found.user.tolist() == [1, 2, 3]
    assert (found.item - 1).tolist() == [[8, 6, 7, 8, 9], [6, 9, 7, 9, 8], [7, 6, 8, 9, 6]]  # item i is row i + 1
    assert found.valid.tolist() == [
        [True, True, True, False, True],  # the test item itself
        [True, True, True, False, True],  # 9 stood there before
        [True, True, True, True, False],
    ]
    assert "3 test items with 4 negatives each, 1 of them among their own negatives and dropped there" in caplog.text
    with gzip.open(path / "a.test.negative.gz", "wt") as out:
        out.write((path / "a.test.negative").read_text().replace("\n", "\r\n"))
    (path / "a.test.negative").unlink()
    again = RatingsDataModule(str(path), split=SplitOptions(val_fraction=0)).candidates
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert RatingsDataModule(str(path), split=SplitOptions(method="random")).candidates is None


def test_candidates_have_the_order_of_their_file_and_the_rows_of_the_vocabulary(leave_one_out, caplog):
    path = leave_one_out(a_test_negative="\n".join(reversed(NEGATIVES.splitlines())) + "\n\n")
    data = RatingsDataModule(str(path), split=SplitOptions(val_fraction=0))
    assert data.candidates.user.tolist() == [3, 2, 1]
    lost = RatingsDataModule(
        str(leave_one_out(a_train_rating=TRAIN_ROWS.split("\n", 1)[1])), split=SplitOptions(val_fraction=0)
    )
    found = lost.candidates  # now no item above 5 is known
    assert not found.item.any()
    assert not found.valid.any()
    assert "3 test items and 12 negatives are not known from training" in caplog.text


def test_strings_as_ids(leave_one_out):
    def named(text):
        return text.replace("(", "(u,").replace("\t", "\ti")

    path = leave_one_out(
        a_train_rating="u,0\ti6\t1\t1\nu,0\ti7\t1\t2\nu,1\ti8\t1\t3\nu,1\ti9\t1\t4\nu,2\ti6\t2\t5\n",
        a_test_rating="u,0\ti8\t1\t9\nu,1\ti6\t1\t9\nu,2\ti7\t1\t9\n",
        a_test_negative=named(NEGATIVES.replace(",", ",i")),
    )
    data = RatingsDataModule(str(path), split=SplitOptions(val_fraction=0))
    assert data.vocabulary.users.values.tolist() == ["u,0", "u,1", "u,2"]
    assert data.candidates.item.tolist() == [[3, 1, 2, 3, 4], [1, 4, 2, 4, 3], [2, 1, 3, 4, 1]]


def test_rows_that_are_left_out_leave_their_candidates_out(leave_one_out):
    data = RatingsDataModule(
        str(leave_one_out()), feedback="implicit", min_rating=4, split=SplitOptions(val_fraction=0)
    )
    assert data.split.sizes[TEST] == 2
    assert data.candidates.user.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("val_split", "expected"), [("leave_last", [(0, 5), (1, 5), (2, 5), (3, 9)]), ("time", [(2, 4), (2, 5)])]
)
def test_validation_of_a_predefined_split(leave_one_out, val_split, expected):
    data = RatingsDataModule(str(leave_one_out()), split=SplitOptions(val_method=val_split, val_fraction=0.1))
    frame = data.table.frame.iloc[data.split.val]
    assert [*zip(frame["user"], frame["item"], strict=True)] == expected
    assert data.split.sizes[TEST] == 3


def test_validation_of_each_users_share(leave_one_out):
    data = RatingsDataModule(str(leave_one_out()), split=SplitOptions(val_method="per_user", val_fraction=1 / 3))
    users = data.table.frame["user"].to_numpy()
    assert np.bincount(users[data.split.val]).tolist() == [2, 2, 2, 1]


def test_columns_are_named_in_tables_with_a_header_alone(tmp_path):
    path = folder(tmp_path, a_test_rating=TEST_ROWS)
    frame = pd.DataFrame({"user": [0, 1, 2], "item": [6, 7, 8], "rating": [2, 3, 4], "when": [3, 2, 1]})
    frame.to_parquet(path / "train.parquet")
    data = RatingsDataModule(
        str(path),
        feedback="implicit",
        table=TableFormat(timestamp="when", weight="rating"),
        split=SplitOptions(val_fraction=0),
    )
    assert data.table.timestamp.tolist() == [3, 2, 1, 100, 101, 102]
    assert data.table.weight.tolist() == [2, 3, 4, 4, 5, 3]


def test_a_part_is_missing_or_stands_twice(tmp_path):
    table = "user,item,rating\n1,2,3\n"
    made = folder(tmp_path, train_csv=table)
    assert "must hold one test table beside train.csv" in error(made)
    assert "got none; add it" in error(made)
    folder(tmp_path, test_csv=table, b_test_rating=TEST_ROWS)
    assert "NAME.test.rating, …), got b.test.rating, test.csv; give every data set a folder of its own" in error(made)
    (made / "b.test.rating").unlink()
    folder(tmp_path, a_test_negative=NEGATIVES, b_test_negative=NEGATIVES)
    assert "must hold one file of negatives, got a.test.negative, b.test.negative" in error(made)
    (made / "train.csv").unlink()
    assert "must hold one train table beside test.csv" in error(made)


def test_options_that_a_folder_does_not_take(leave_one_out):
    path = leave_one_out()
    assert "--data.split.fold: is u1, but" in error(path, split=SplitOptions(method="predefined", fold=1))
    assert "has a test part; leave it out" in error(path, test_path=str(path / "a.test.rating"))
    bare = "0\t1\t5\t3\n"
    (path / "train.csv").write_text("user,item\n0,1\n")
    (path / "a.train.rating").unlink()
    assert "train.csv: must have a column for the rating" in error(path)
    (path / "a.test.rating").write_text(bare + "1\t2\n")
    assert "line 2: must have 4 values" in error(path, feedback="implicit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,8\t6\t7\n", "line 1: must be (user,item) and its negatives, all behind tabs, got '0,8\\t6\\t7'"),
        ("(0 8)\t6\t7\n", "line 1: must be"),
        ("(0,8)\n", "line 1: must be"),
        ("(0,8) 6 7 8\n", "line 1: must be"),
        ("(0,8)\t6\t\t8\n", "line 1: must be"),
        ("(0,8)\t6\t7\n(1,6)\t9\n", "line 2: must have 2 negatives like the first line, got 1"),
        (
            NEGATIVES.replace("\t7\t8\t9", "\t7.5\t8\t9"),
            "line 1, column 'item': ids must be integers or strings, got '7.5'",
        ),
        ("\n \n", "must have a line for each test row, got an empty file"),
        (NEGATIVES + "(77,7)\t6\t7\t8\t9\n", "users must be those of the train and test table, got 1 others ((77,7))"),
        (NEGATIVES.replace("(1,6)", "(1,7)"), "pairs must be those of the test table, got 1 others ((1,7))"),
        (NEGATIVES.replace("(1,6)", "(1,66)"), "pairs must be those of the test table"),
        (NEGATIVES.split("(2,7)")[0], "must have one line for each of 3 test rows, got 1 without and 0 repeated"),
        (NEGATIVES + NEGATIVES.split("\n")[0], "got 0 without and 1 repeated"),
    ],
)
def test_bad_negatives(leave_one_out, text, message):
    found = error(leave_one_out(a_test_negative=text), "candidates")
    assert message in found
    assert "a.test.negative" in found


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_truncated_negatives(leave_one_out, cut):
    path = leave_one_out()
    whole = gzip.compress(NEGATIVES.encode())
    (path / "a.test.negative").write_bytes(whole[: int(len(whole) * cut)])
    assert "a.test.negative: is damaged" in error(path, "candidates")


def test_test_rows_of_unknown_items(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="cflightning")
    made = folder(tmp_path, train_csv="user,item\n1,1\n2,2\n", test_csv="user,item\n1,2\n1,3\n9,1\n")
    data = RatingsDataModule(str(made), feedback="implicit", split=SplitOptions(val_fraction=0))
    assert data.interactions(TEST).indices.tolist() == [2]
    assert "2 of 3 rows have an id not seen in training: left out" in caplog.text
    folder(tmp_path, test_csv="user,item\n9,2\n1,3\n9,1\n")
    none = RatingsDataModule(str(made), feedback="implicit", split=SplitOptions(val_fraction=0))
    with pytest.raises(DataError, match="known from training, got none of 3; are both tables of one data set"):
        none.interactions(TEST)


def test_folders_are_kept_in_the_cache(leave_one_out, tmp_path, monkeypatch):
    from cflightning.data.sources import columns_cache

    monkeypatch.setattr(columns_cache, "SMALLEST", 1)
    monkeypatch.setenv("CFLIGHTNING_CACHE", str(tmp_path / "cache"))
    path = leave_one_out()
    first, second = (RatingsDataModule(str(path), split=SplitOptions(val_fraction=0)) for _ in range(2))
    pd.testing.assert_frame_equal(first.table.frame, second.table.frame)
    np.testing.assert_array_equal(first.split.parts, second.split.parts)
    assert len(list((tmp_path / "cache" / "columns").iterdir())) == 1
    (path / "a.test.rating").write_text(TEST_ROWS.replace("100", "99"))
    assert RatingsDataModule(str(path), split=SplitOptions(val_fraction=0)).table.timestamp[-3] == 99


@pytest.mark.slow
@pytest.mark.data
def test_gowalla(real_data):
    if not (real_data / "gowalla").is_dir():
        pytest.skip("no gowalla")
    data = RatingsDataModule(str(real_data / "gowalla"), feedback="implicit", split=SplitOptions(val_fraction=0))
    assert data.split.sizes == (810_128, 0, 217_242)
    assert (data.num_users, data.num_items) == (29_859, 40_982)
    train, test = data.interactions(TRAIN), data.interactions(TEST)
    assert (len(train.indices), len(test.indices)) == (810_128, 217_242)
    assert (test.counts > 0).sum() == 29_858
    held = RatingsDataModule(
        str(real_data / "gowalla"), feedback="implicit", split=SplitOptions(val_method="per_user", val_fraction=0.1)
    )
    seen = len(held.interactions(TRAIN).indices) + len(held.interactions(VAL).indices)
    assert 0.999 * 810_128 < seen <= 810_128  # some items have one user, who is held out


@pytest.mark.slow
@pytest.mark.data
def test_leave_one_out_of_movielens(real_data, caplog):
    if not (real_data / "ncf-ml-1m").is_dir():
        pytest.skip("no ncf-ml-1m")
    path = str(real_data / "ncf-ml-1m")
    data = RatingsDataModule(path, feedback="implicit", split=SplitOptions(val_fraction=0))
    assert data.split.sizes == (994_169, 0, 6040)
    found = data.candidates
    assert found.item.shape == (6040, 100)
    assert "156 of them among their own negatives" in caplog.text
    popular = data.interactions(TRAIN)
    count = torch.bincount(popular.indices.long(), minlength=popular.num_columns).double()[found.item]
    count[~found.valid] = -1
    better, ties = ((count[:, 1:] > count[:, :1]).sum(1), (count[:, 1:] == count[:, :1]).sum(1))
    hit = (better + ties / 2 < 10) & found.valid[:, 0]
    assert hit.double().mean().item() == pytest.approx(0.4535, abs=0.001)  # as published for popularity
    newest = RatingsDataModule(
        path, feedback="implicit", table=TableFormat(timestamp="time_rank"), split=SplitOptions(val_method="leave_last")
    )
    assert newest.split.sizes == (988_129, 6040, 6040)
    frame = newest.table.frame
    train, val = frame.iloc[newest.split.train], frame.iloc[newest.split.val]
    assert (train.groupby("user")["timestamp"].max() < val.set_index("user")["timestamp"].sort_index()).all()
