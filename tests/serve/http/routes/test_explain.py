"""``POST /explain``."""

from types import SimpleNamespace

import pytest

from cflightning_serve.http.routes.explain import Explain, cost
from cflightning_serve.http.serving.executor import INLINE_LIMIT


def test_contributions_of_rated_items(full_client, tables, post, titles_of):
    user, item = tables.user_ids.tolist()[0], tables.item_ids.tolist()[0]
    body = post(full_client, "/explain", user=user, item=item)
    rated, ratings = full_client.scorer.history(user)
    assert body["contributions"] == [
        {"item": item, "title": titles_of(tables, [item])[0], "rating": rating, "contribution": 0.25}
        for item, rating in zip(rated.tolist(), ratings.tolist(), strict=True)
    ]
    assert (body["score"], body["base"], body["rest"]) == (3.5, 0.5, -0.5)
    assert len(body["nearest"]) == 3 and set(body["nearest"][0]) == {"item", "title", "similarity"}
    by_ratings = post(full_client, "/explain", item=item, ratings=[[tables.item_ids.tolist()[3], 4.5]])
    rows = by_ratings["contributions"]
    assert [(row["item"], row["rating"]) for row in rows] == [(tables.item_ids.tolist()[3], 4.5)]


def test_an_item_rated_twice_keeps_both_ratings(full_client, tables, post):
    first, second = tables.item_ids.tolist()[:2]
    body = post(full_client, "/explain", item=first, ratings=[[second, 5], [first, 3], [second, 1.5]])
    rows = body["contributions"]
    assert [(row["item"], row["rating"]) for row in rows] == [(second, 5), (first, 3), (second, 1.5)]


@pytest.mark.parametrize("given", [{}, {"user": 10, "ratings": []}, {"user": None}, {"user": 10, "ratings": None}])
def test_either_user_or_ratings_are_needed(full_client, post, given):
    assert post(full_client, "/explain", 422, item=0, **given)[0] == "input"


@pytest.mark.parametrize(
    ("given", "in_thread"),
    [
        ({"ratings": [(n, 3.0) for n in range(20)]}, False),
        ({"ratings": [(n, 3.0) for n in range(10_000)]}, True),
        ({"user": 10}, True),  # the length of the history is unknown
    ],
)
def test_long_requests_run_in_a_thread(given, in_thread):
    assert (cost(Explain(item=1, **given), SimpleNamespace(num_items=3_707)) > INLINE_LIMIT) is in_thread
