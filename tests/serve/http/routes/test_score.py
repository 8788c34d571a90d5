"""``POST /score`` against the tables in numpy."""

import numpy as np

from cflightning_serve.http.routes.score import Score, cost
from cflightning_serve.http.serving.executor import INLINE_LIMIT
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings


def test_scores_of_pairs(served, post, unknown_id):
    client, tables = served
    unknown = unknown_id(tables)
    users, items = [*tables.user_ids.tolist()[:3], unknown], [*tables.item_ids.tolist()[:3], unknown]
    scores = post(client, "/score", pairs=list(zip(users, items, strict=True)))["scores"]
    assert [(row["user"], row["item"]) for row in scores] == list(zip(users, items, strict=True))
    np.testing.assert_allclose([row["score"] for row in scores], tables.score(users, items), atol=1e-5)
    for field in ("known_user", "known_item"):
        assert [row[field] for row in scores] == [True] * 3 + [False]
    assert post(client, "/score", pairs=[]) == {"scores": []}


def test_any_string_is_an_id(string_client, post):
    for user in ("", "\x00", "a" * 10_000, "zoë", "𝕏", '"\\\n'):
        row = post(string_client, "/score", pairs=[[user, "i1"]])["scores"][0]
        assert (row["user"], row["known_user"]) == (user, user == "zoë")


def test_the_number_of_pairs_is_limited(bundle, start, post):
    with start(ServerState(Settings(bundle, limits=Limits(ids=3)))) as client:
        post(client, "/score", pairs=[[10, 0]] * 3)
        assert post(client, "/score", 422, pairs=[[10, 0]] * 4)[0] == "limit"


def test_thousands_of_pairs_are_scored_in_a_thread(client, tables, post):
    pairs = [[int(user), int(item)] for user in tables.user_ids for item in tables.item_ids] * 120
    assert cost(Score(pairs=[tuple(pair) for pair in pairs])) > INLINE_LIMIT
    scores = post(client, "/score", pairs=pairs)["scores"]
    assert len(scores) > 9_000
    expected = tables.score(*np.array(pairs[:77]).T)
    np.testing.assert_allclose([row["score"] for row in scores[:77]], expected, atol=1e-5)
