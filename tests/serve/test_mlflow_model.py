"""The MLflow model, compared with numpy and without MLflow."""

import numpy as np
import pandas as pd
import pytest

from cflightning_serve import BundleError, InputError, UnknownIdError
from cflightning_serve.mlflow_model import _load_pyfunc

KINDS = {"bundle": "tables", "string_bundle": "string_tables", "choice_bundle": "choice_tables"}


@pytest.fixture(params=KINDS)
def loaded(request):
    return _load_pyfunc(str(request.getfixturevalue(request.param))), request.getfixturevalue(KINDS[request.param])


@pytest.fixture(params=["frame", "dict"])
def table(request):
    return pd.DataFrame if request.param == "frame" else dict


def test_user_and_item_columns_are_scored(loaded, table):
    model, tables = loaded
    users, items = tables.user_ids.tolist(), tables.item_ids.tolist()[: len(tables.user_ids)]
    scores = model.predict(table({"user": users, "item": items}))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, tables.score(users, items), atol=1e-5)


def test_a_user_column_gets_recommendations(loaded, table):
    model, tables = loaded
    users = tables.user_ids.tolist()
    for params, k in ((None, 10), ({}, 10), ({"k": 2}, 2), ({"k": np.int64(100)}, 100)):
        lists = model.predict(table({"user": users}), params)
        assert [row["item"] for row in lists] == [tables.recommend(user, k) for user in users]
        for user, row in zip(users, lists, strict=True):
            np.testing.assert_allclose(row["score"], tables.score([user] * len(row["item"]), row["item"]), atol=1e-5)
            assert type(row["item"][0]) in (int, str)
            assert type(row["score"][0]) is float


def test_an_exclude_column_is_left_out(loaded):
    model, tables = loaded
    users, items = tables.user_ids.tolist()[:4], tables.item_ids.tolist()
    exclude = [items[:3], np.array(items[4:5]), None, float("nan")]
    lists = model.predict({"user": users, "exclude": exclude}, {"k": 20})
    for user, left_out, row in zip(users, [items[:3], items[4:5], [], []], lists, strict=True):
        assert row["item"] == tables.recommend(user, 20, left_out)


def test_an_item_column_gets_similar_items(loaded, table):
    model, tables = loaded
    items = tables.item_ids.tolist()
    lists = model.predict(table({"item": items[:2]}), {"k": 1})
    for number, row in enumerate(lists):
        cosines = tables.cosines(items[number])
        cosines[number] = -np.inf
        assert row["item"] == [items[cosines.argmax()]]
        assert row["score"] == pytest.approx([cosines.max()], abs=1e-5)
    with pytest.raises(UnknownIdError):
        model.predict(table({"item": [tables.user_ids[0] * 2]}))


def test_an_empty_table_gives_an_empty_result(loaded, table):
    model, _ = loaded
    assert model.predict(table({"user": []})) == []
    assert model.predict(table({"item": []})) == []
    assert model.predict(table({"user": [], "item": []})).shape == (0,)


@pytest.mark.parametrize(
    "columns", [{}, {"users": [1]}, {"exclude": [[0]]}, {"user": [1], "item": [0], "exclude": [[]]}]
)
def test_other_columns_are_refused(bundle, columns):
    with pytest.raises(InputError, match="predict: columns must be"):
        _load_pyfunc(bundle).predict(pd.DataFrame(columns))


@pytest.mark.parametrize(
    ("columns", "params"),
    [({"user": [1.5]}, {}), ({"user": ["1"]}, {}), ({"user": [10]}, {"k": 0}), ({"user": [10]}, {"k": 2.5}),
     ({"user": [10], "exclude": [["x"]]}, {}), ({"user": [10], "exclude": ["x"]}, {}),
     ({"user": [10, None], "item": [0, 3]}, {})],
)  # fmt: skip
def test_values_of_the_wrong_type_are_refused(bundle, columns, params):
    with pytest.raises(InputError):
        _load_pyfunc(bundle).predict(pd.DataFrame(columns), params)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError):
        _load_pyfunc(tmp_path)
