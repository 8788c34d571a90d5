"""``POST /recommend`` against the tables in numpy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cflightning_serve.http.routes.recommend import Recommend, cost
from cflightning_serve.http.serving.executor import INLINE_LIMIT
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings


def test_recommendations(served, post, titles_of):
    client, tables = served
    user, excluded = tables.user_ids.tolist()[1], tables.item_ids.tolist()[:2]
    body = post(client, "/recommend", user=user, k=4, exclude=excluded)
    items = [row["item"] for row in body["items"]]
    assert items == tables.recommend(user, 4, excluded)
    assert [row["title"] for row in body["items"]] == titles_of(tables, items)
    np.testing.assert_allclose([row["score"] for row in body["items"]], tables.score([user] * 4, items), atol=1e-5)
    assert body["known_user"] is True
    assert post(client, "/recommend", user=user, k=4, exclude=excluded) == body  # from the caches
    assert set(body) == {"items", "known_user"}


def test_whole_numbers_may_have_a_decimal_point(client, post):
    expected = post(client, "/recommend", user=10, k=4, exclude=[0])
    assert post(client, "/recommend", user=10.0, k=4.0, exclude=[0.0]) == expected


def test_an_unknown_user_gets_recommendations(served, post, unknown_id):
    client, tables = served
    user = unknown_id(tables)
    body = post(client, "/recommend", user=user)
    assert body["known_user"] is False
    assert [row["item"] for row in body["items"]] == tables.recommend(user, 10)


def test_k_beyond_the_catalogue_returns_what_there_is(served, post):
    client, tables = served
    items = tables.item_ids.tolist()
    body = post(client, "/recommend", user=tables.user_ids.tolist()[0], k=1000, exclude=items[1:])
    assert [row["item"] for row in body["items"]] == items[:1]


def test_a_bundle_of_implicit_feedback(choice_bundle, choice_tables, start, post):
    with start(ServerState(Settings(choice_bundle))) as client:
        user = int(choice_tables.user_ids[0])
        items = post(client, "/recommend", user=user, k=3)["items"]
    assert [row["item"] for row in items] == choice_tables.recommend(user, 3)
    expected = choice_tables.score([user] * 3, [row["item"] for row in items])
    np.testing.assert_allclose([row["score"] for row in items], expected, atol=1e-4)


def test_only_given_filters_reach_the_scorer(full_client, post):
    full_client.scorer.filters.clear()
    given = {
        "exclude_seen": False,
        "allow": [0, 3],
        "deny": [],
        "categories": ["Drama"],
        "min_count": 2,
        "diversity": 0.5,
    }
    post(full_client, "/recommend", user=10, **given)
    post(full_client, "/recommend", user=10)
    assert full_client.scorer.filters == [given, {}]


def test_limits_are_enforced_and_described(bundle, start, post):
    with start(ServerState(Settings(bundle, limits=Limits(ids=3, k=2)))) as client:
        assert post(client, "/recommend", 422, user=10, k=2, exclude=[1, 2, 3, 4])[0] == "limit"
        assert post(client, "/recommend", 422, user=10)[0] == "limit"  # the default is ten
        fields = client.get("/openapi.json").json()["components"]["schemas"]["Recommend"]["properties"]
        assert fields["k"]["maximum"] == 2 and fields["exclude"]["maxItems"] == 3


def test_scores_have_the_digits_of_float32(client):
    text = client.post("/recommend", json={"user": 10}).text
    assert all(len(str(row["score"])) <= 12 for row in json.loads(text)["items"])


@pytest.mark.parametrize(
    ("num_items", "options", "in_thread"),
    [
        (3_707, {}, False),
        (3_707, {"exclude": list(range(50)), "diversity": 0.0}, False),
        (3_707, {"diversity": 0.3}, False),
        (3_707, {"k": 100, "diversity": 0.3}, True),
        (3_707, {"k": 1000, "diversity": 0.5}, True),
        (3_707, {"exclude": list(range(10_000))}, True),
        (100_000, {}, True),
    ],
)
def test_long_requests_run_in_a_thread(num_items, options, in_thread):
    assert (cost(Recommend(user=1, **options), SimpleNamespace(num_items=num_items)) > INLINE_LIMIT) is in_thread
