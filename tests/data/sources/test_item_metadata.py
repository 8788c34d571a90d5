"""The list of items beside the ratings: its columns are found by their names, and it never stops a fit."""

import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources.table_format import TableFormat

MOVIES = pd.DataFrame({"movieId": [7, 8], "title": ["Seven", "Eight, or: 8"], "genres": ["A|B", "C"]})
TITLES, GENRES = {7: "Seven", 8: "Eight, or: 8"}, {7: ("A", "B"), 8: ("C",)}


@pytest.fixture
def read(tmp_path):
    def read(movies, ratings="userId,movieId,rating\n1,7,3\n2,8,4\n", **options):
        (tmp_path / "ratings.csv").write_text(ratings)
        (tmp_path / "movies.csv").write_bytes(movies if isinstance(movies, bytes) else movies.encode())
        return RatingsDataModule(str(tmp_path), **options).table

    return read


@pytest.mark.parametrize(
    "movies",
    [
        MOVIES.to_csv(index=False),
        MOVIES.to_csv(),
        MOVIES.to_csv(index=False, sep=";"),
        MOVIES.to_csv(index=False, sep="\t"),
        MOVIES[["genres", "title", "movieId"]].to_csv(index=False),
        MOVIES.astype({"movieId": float}).to_csv(index=False),
        MOVIES.assign(year=1995).rename(columns={"movieId": "ID", "title": "Movie_Name", "genres": "Genre"}).to_csv(),
    ],
)
def test_columns_are_found_by_name(read, movies):
    table = read(movies)
    assert (table.titles, table.categories) == (TITLES, GENRES)


def test_the_item_column_of_the_ratings_is_known(read):
    movies = MOVIES.rename(columns={"movieId": "film"}).assign(movieId=[1, 2]).to_csv(index=False)
    table = read(movies, "who,film,rating\n1,7,3\n2,8,4\n", table=TableFormat(user="who", item="film"))
    assert table.titles == TITLES


@pytest.mark.parametrize(
    ("movies", "reason"),
    [
        ("", "empty"),
        ("a,b\n7,Seven\n", "must have a column of item ids and one of titles"),
        ("movieId\n7\n", "must have a column of item ids and one of titles"),
        ("movieId,title\n7,Seven\n8\n", "must have 2 values"),
        ("7,Seven\n8,Eight\n", "must have"),
        ("movieId,movieId,title\n7,7,Seven\n", "different names"),
        ("movieId,title\n70,Seventy\n²,Two\n,None\n", "has none of their items"),
        (b"\x00\x01\x02\xff\xfe" * 100, ""),
    ],
)
def test_a_list_that_cannot_be_read_stops_nothing(read, movies, reason, caplog):
    table = read(movies)
    assert table.rating.tolist() == [3, 4]
    assert not table.titles.keys() & {7, 8}
    assert any(record.levelname == "WARNING" and reason in record.message for record in caplog.records)
