"""Categories and counts of items: from lists beside the ratings and columns of tables to a vocabulary."""

import numpy as np
import pandas as pd
import pytest
import torch

from cflightning import RatingsDataModule
from cflightning.checkpoint.format import CheckpointMetadata, unpack_metadata
from cflightning.data.sources.columns import split_categories
from cflightning.data.sources.table_format import TableFormat
from cflightning.data.splits.options import SplitOptions
from cflightning.data.splits.split import TRAIN
from cflightning.data.table import RatingTable
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import CheckpointError, DataError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Drama", ("Drama",)),
        ("Crime| Drama |Crime||", ("Crime", "Drama")),
        ("(no genres listed)", ()),
        ("unknown|War", ("War",)),
        ("", ()),
        (None, ()),
        (float("nan"), ()),
    ],
)
def test_categories_are_split(text, parts):
    assert split_categories(text) == parts


@pytest.mark.parametrize(
    ("edition", "expected"),
    [("ml-latest-small", ("Drama",)), ("ml-1m", ("Comedy", "Drama")), ("ml-100k", ("Action",))],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_movielens_lists_say_genres(movielens, edition, expected, zipped):
    table = RatingsDataModule(path=str(movielens(edition, zipped=zipped))).table
    assert table.categories == dict.fromkeys(table.titles, expected)
    assert table.titles[2] == "Café Müller (2001)"


def test_the_official_split_knows_them_too(movielens):
    data = RatingsDataModule(path=str(movielens("ml-100k")), split=SplitOptions(method="predefined", fold=1))
    assert set(data.table.categories.values()) == {("Action",)}
    assert set(data.vocabulary.categories) == {"Action"}


def test_lists_without_genres(movielens, tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,2,3\n1,3,4\n")
    (tmp_path / "movies.csv").write_text("movieId,title\n2,Film\n3,Another\n")
    table = RatingsDataModule(path=str(tmp_path)).table
    assert (table.titles, table.categories) == ({2: "Film", 3: "Another"}, {})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_of_a_table(tmp_path, suffix):
    frame = pd.DataFrame(
        {"user": [1, 2, 3, 3], "item": ["a", "a", "b", "c"], "rating": [1.0, 2, 3, 4], "kind": [None, "X|Y", "Y", None]}
    )
    path = tmp_path / f"table.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    options = {"table": TableFormat(categories="kind"), "split": SplitOptions(test_fraction=0, val_fraction=0)}
    data = RatingsDataModule(path=str(path), **options)
    known = {"a": ("X", "Y"), "b": ("Y",)}
    if suffix == "csv":  # an empty text is the first value there
        known = {"b": ("Y",)}
    assert data.table.categories == known
    assert RatingsDataModule.from_frame(frame, **options).table.categories == {"a": ("X", "Y"), "b": ("Y",)}
    assert RatingsDataModule(path=str(path)).table.categories == {}
    with pytest.raises(DataError, match=r"--data\.table\.categories must name a column, got 'genre'"):
        _ = RatingsDataModule(path=str(path), table=TableFormat(categories="genre")).table


def test_the_cache_keeps_them(movielens, tmp_path, monkeypatch):
    from cflightning.data.sources import columns_cache

    monkeypatch.setattr(columns_cache, "SMALLEST", 0)
    monkeypatch.setenv("CFLIGHTNING_CACHE", str(tmp_path))
    path = str(movielens("ml-1m"))
    first, second = (RatingsDataModule(path=path).table for _ in range(2))
    assert list((tmp_path / "columns").iterdir())
    assert first.categories == second.categories != {}


def test_both_tables_of_a_split_are_asked(tmp_path):
    frame = pd.DataFrame({"user": [1, 2], "item": [5, 6], "rating": [1.0, 2], "kind": ["X", "Y"]})
    frame[:1].to_csv(tmp_path / "train.csv", index=False)
    frame[1:].assign(item=[7]).to_csv(tmp_path / "test.csv", index=False)
    table = RatingsDataModule(path=str(tmp_path), table=TableFormat(categories="kind")).table
    assert table.categories == {5: ("X",), 7: ("Y",)}


def test_counts_are_of_the_training_part(movielens):
    data = RatingsDataModule(path=str(movielens("ml-1m", 60, 40)))
    train = data.table.frame[data.split.parts == TRAIN]
    expected = train["item"].value_counts().sort_index()
    assert data.vocabulary.counts.tolist() == expected.tolist()
    assert data.vocabulary.items.values.tolist() == expected.index.tolist()
    np.testing.assert_array_equal(data.counts()[1][1:], data.vocabulary.counts)


def make_vocabulary():
    frame = pd.DataFrame({"user": [1, 2, 3], "item": ["b", "a", "b"]})
    categories = {"a": ("X",), "b": ("Y", "X"), "z": ("not in training",)}
    return Vocabulary.learn(RatingTable.from_frame(frame, "synthetic", categories=categories), slice(None))


def test_they_survive_a_safe_load(tmp_path):
    torch.save(make_vocabulary().state(), tmp_path / "v.pt")
    back = Vocabulary.from_state(torch.load(tmp_path / "v.pt", weights_only=True))
    assert {name: numbers.tolist() for name, numbers in back.categories.items()} == {"X": [0, 1], "Y": [1]}
    assert back.counts.tolist() == [1, 2]


def test_older_checkpoints_have_neither():
    state = make_vocabulary().state()
    packed = {"format": 1, "rating_range": None, "mean_rating": None, **state, "train_rows": 3}
    old = {key: value for key, value in packed.items() if key not in ("categories", "counts")}
    vocabulary, metadata = unpack_metadata({"cflightning": old})
    assert (vocabulary.categories, vocabulary.counts) == ({}, None)
    assert metadata == CheckpointMetadata(train_rows=3) == unpack_metadata({"cflightning": packed})[1]


@pytest.mark.parametrize(
    "change",
    [
        {"counts": torch.ones(3, dtype=torch.int64)},
        {"counts": torch.ones(2)},
        {"counts": [1, 2]},
        {"categories": {"X": torch.tensor([2])}},
        {"categories": {"X": torch.tensor([-1])}},
        {"categories": {"X": [0]}},
        {"categories": [1]},
    ],
)
def test_states_that_cannot_be(change):
    with pytest.raises(CheckpointError, match="vocabulary cannot be read"):
        Vocabulary.from_state(make_vocabulary().state() | change)
