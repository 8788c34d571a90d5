"""``POST /similar`` against the tables in numpy."""

from types import SimpleNamespace

import numpy as np
import pytest

from cflightning_serve.http.routes.similar import Similar, cost
from cflightning_serve.http.serving.executor import INLINE_LIMIT


def test_similar_items(served, post, titles_of):
    client, tables = served
    item = tables.item_ids.tolist()[2]
    rows = post(client, "/similar", item=item, k=3)["items"]
    cosines = dict(zip(tables.item_ids.tolist(), tables.cosines(item), strict=True))
    del cosines[item]
    expected = sorted(cosines, key=cosines.get, reverse=True)[:3]
    assert [row["item"] for row in rows] == expected
    np.testing.assert_allclose([row["similarity"] for row in rows], [cosines[item] for item in expected], atol=1e-5)
    assert [row["title"] for row in rows] == titles_of(tables, expected)


def test_an_unknown_item_is_not_found(served, post, unknown_id):
    client, tables = served
    code, message = post(client, "/similar", 404, item=unknown_id(tables))
    assert code == "unknown_id" and repr(unknown_id(tables)) in message


@pytest.mark.parametrize(("k", "in_thread"), [(10, False), (1000, True)])
def test_long_requests_run_in_a_thread(k, in_thread):
    assert (cost(Similar(item=1, k=k), SimpleNamespace(num_items=3_707)) > INLINE_LIMIT) is in_thread
