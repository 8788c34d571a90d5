"""Layouts of data sets: another package adds its own."""

import io

import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources import registry
from cflightning.data.sources.layout import DataSet, Location
from cflightning.data.table import RatingTable


def find_pairs(location: Location) -> DataSet | None:
    """Recognise a folder with a file `likes.txt`, one ``user:item,item`` a line."""
    if location.name is not None or "likes.txt" not in location.files:
        return None

    def read() -> RatingTable:
        frame = pd.read_csv(io.BytesIO(location.files.read("likes.txt")), sep=":", names=["user", "item"])
        return RatingTable.from_frame(
            frame.assign(item=frame["item"].str.split(",")).explode("item"), str(location.path)
        )

    return DataSet(["likes.txt"], read)


@pytest.fixture
def registered():
    registry.register(find_pairs)
    yield
    registry.unregister(find_pairs)


def test_another_package_adds_a_layout(registered, tmp_path):
    (tmp_path / "likes.txt").write_text("ann:tea,milk\nbob:tea\n")
    table = RatingsDataModule(str(tmp_path), feedback="implicit").table
    assert table.user.values.tolist() == ["ann", "ann", "bob"]
    assert table.item.values.tolist() == ["tea", "milk", "tea"]


def test_what_it_does_not_recognise_goes_to_the_other_layouts(registered, tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\n1,2,3\n")
    assert len(RatingsDataModule(str(tmp_path / "a.csv")).table) == 1
