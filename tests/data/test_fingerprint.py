"""Digests of tables: equal for the same rows in the same order, whatever their source."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.table import RatingTable


def table(**columns):
    frame = pd.DataFrame({"user": [1, 2, 2, 3], "item": ["a", "b", "a", "c"], "rating": [1.0, 2.0, 3.0, 4.0]})
    return RatingTable.from_frame(frame.assign(**columns), "synthetic")


def test_the_source_does_not_change_the_fingerprint(tmp_path):
    rows = pd.DataFrame({"user": [5, 3, 5], "item": ["x", "y", "z\n,"], "rating": [1.0, 2.5, 3.0]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_parquet(tmp_path / "rows.parquet")
    found = [RatingsDataModule(path=str(tmp_path / name)).table.fingerprint for name in ("rows.csv", "rows.parquet")]
    found.append(RatingsDataModule.from_frame(rows).table.fingerprint)
    assert len(set(found)) == 1
    assert len(found[0]) == 32


def test_names_titles_and_unused_ids_do_not_change_the_fingerprint():
    whole = table()
    assert replace(whole, name="other", titles={"a": "A"}).fingerprint == whole.fingerprint
    some = whole.take([0, 2])  # keeps the ids of the other rows
    alone = RatingTable.from_frame(pd.DataFrame({"user": [1, 2], "item": ["a", "a"], "rating": [1.0, 3.0]}), "alone")
    assert len(some.item.ids) == 3
    assert some.fingerprint == alone.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"rating": [1.0, 2.0, 3.0, 5.0]},
        {"user": [1, 2, 2, 4]},
        {"user": ["1", "2", "2", "3"]},
        {"item": ["a", "b", "a", "d"]},
        {"item": ["a", "ba", "a", "c"]},
        {"timestamp": [1, 2, 3, 4]},
        {"weight": [1.0, 1.0, 1.0, 1.0]},
    ],
)
def test_another_value_or_column_changes_the_fingerprint(changed):
    assert table(**changed).fingerprint != table().fingerprint


def test_order_rows_and_test_part_change_the_fingerprint():
    whole = table()
    others = [whole.take([1, 0, 2, 3]), whole.take([0, 1, 2]), replace(whole, rating=None),
              replace(whole, test_rows=np.array([True, False, False, False]))]  # fmt: skip
    assert len({one.fingerprint for one in (whole, *others)}) == 5
    assert whole.take([0, 1, 2, 3]).fingerprint == whole.fingerprint


def test_the_boundaries_of_ids_change_the_fingerprint():
    one = table(item=["a", "bc", "a", "d"])
    two = table(item=["ab", "c", "ab", "d"])
    assert one.fingerprint != two.fingerprint
